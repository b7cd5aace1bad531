//! One run under the four flow controls, side by side (`mem-event flow`).
//!
//! | file | what lives there |
//! |---|---|
//! | `command` | the arguments, and what is printed |
//! | `told` | what a run came to: the figures, and who waited when |
//! | `measure` | these of a trace |
//! | `again` | these of a recorded run's events, made again under a policy and in a seeded schedule, without a guest |
//! | `page` | four time lines on one axis, as a page |

mod again;
pub mod command;
mod measure;
mod page;
mod told;
