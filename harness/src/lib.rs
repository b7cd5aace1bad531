//! The harness library (placeholder of the workspace's first commit; see the next commits).
