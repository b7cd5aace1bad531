//! Which pages a guest touches, from its entry on: the events of a listener that gives each right at its first touch in a window of time,
//! gathered while they come, and told in four ways.
//!
//! | file | what lives there |
//! |---|---|
//! | [`touched`] | what was touched when and by what code |
//! | [`command`] | the options, and where what was gathered goes |
//! | [`names`] | what lies in a page, and who touched it, in words |
//! | [`groups`], [`report`] | pages in a row that are alike; the table, CSV, JSON |
//! | [`grid`], [`page`] | memory and time in cells; these as an HTML page |

pub mod command;
pub mod grid;
pub mod groups;
pub mod names;
pub mod page;
pub mod report;
pub mod touched;
