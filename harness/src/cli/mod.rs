//! The command line.
//!
//! | file | what lives there |
//! |---|---|
//! | [`arguments`] | what the user writes |
//! | [`command`], [`new`] | what is done about it |

pub mod arguments;
pub mod command;
pub mod new;
