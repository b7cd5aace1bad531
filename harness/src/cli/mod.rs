//! The command line.
//!
//! | file | what lives there |
//! |---|---|
//! | [`arguments`] | what the user writes |
//! | [`command`], [`new`], [`xen`] | what is done about it |

pub mod arguments;
pub mod command;
pub mod new;
pub mod xen;
