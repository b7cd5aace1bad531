//! The command line.
//!
//! | file | what lives there |
//! |---|---|
//! | [`arguments`] | what the user writes |
//! | [`command`], [`new`], [`package`], [`pages`], [`save`], [`xen`], `xen_program`, [`xenstore`] | what is done about it |

pub mod arguments;
pub mod command;
pub mod new;
pub mod package;
pub mod pages;
pub mod save;
pub mod xen;
mod xen_program;
pub mod xenstore;
