//! The command `mem-event`.
fn main() {}
