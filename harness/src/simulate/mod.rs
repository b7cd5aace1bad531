//! `simulate`: the flow control of rings in virtual time, for more vCPUs, slots, rings and consumers than a machine has. No QEMU, no guest,
//! no thread, no clock but its own: the same settings and the same seed give the same figures.
//!
//! | file | what lives there |
//! |---|---|
//! | [`amount`], [`law`], [`dice`] | times as users write them, times by chance, the streams that are drawn from |
//! | [`clock`] | virtual time: what is due next |
//! | [`arrival`], [`recording`] | when a vCPU makes its next event; what a recorded run tells of that |
//! | [`settings`] | what is simulated, and within which limits |
//! | [`lane`], [`vcpu`], [`world`], `outside` | a ring with its consumers, a vCPU, the domain; foreign producers and consumers at work |
//! | [`tally`], [`figures`] | what is counted, and what that comes to |
//! | [`sweep`] | many simulations, one number varied |
//! | [`report`], [`picture`], [`page`], [`command`] | tables, JSON and CSV; pictures; the command line |

pub mod amount;
pub mod arrival;
pub mod clock;
pub mod command;
pub mod dice;
pub mod figures;
pub mod lane;
pub mod law;
mod outside;
pub mod page;
pub mod picture;
pub mod recording;
pub mod report;
pub mod settings;
pub mod sweep;
pub mod tally;
pub mod vcpu;
pub mod world;
