//! Beginning and end.

pub mod choice;
pub mod install;
