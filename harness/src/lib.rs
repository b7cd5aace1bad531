//! Boots guests under QEMU, runs consumers of `mem_event` rings against them, keeps the sequences as text.
//!
//! The plugin inside QEMU plays the hypervisor; this crate is everything around it, in a process of its own: the toolstack
//! (control operations on a Unix socket), the consumers (a pager, an access listener, an out-of-memory helper), and the
//! scenarios that tell them what to do when. It knows the plugin as a file to load and a socket to talk to.
//!
//! | room | what lives there |
//! |---|---|
//! | [`refusal`], [`verdict`], [`output`], [`poll`], [`beside`] | errors with a remedy, how a run ended, writing, waiting, files built with this program |
//! | [`guest`] | guest images, names for addresses, the Linux guest and its first file system |
//! | [`scenario`] | the format: a scenario, its acts and settings, ranges, sizes and times; the built-in ones |
//! | [`machine`] | QEMU: its command line, its process, its monitor, its files; what this host has and lacks |
//! | [`toolstack`] | control operations carried out, what came of them, the sequence as text |
//! | [`consumers`] | the pager, the listener, the helper, those that misbehave, those in processes of their own |
//! | [`run`] | a domain served from its start, or its being joined, to its end; the summary |
//! | [`trace`], [`step`] | traces read, compared, exported, minimised, replayed; a trace in the terminal, step by step |
//! | [`simulate`] | flow control of rings in virtual time, for more vCPUs than a machine has |
//! | [`trial`] | a consumer against a recording, without QEMU |
//! | [`flow`] | one run under the four flow controls, side by side |
//! | [`pages`] | which pages a guest touches |
//! | [`suite`] | scenarios against their snapshots |
//! | [`cli`] | the command line |

pub mod beside;
pub mod cli;
pub mod consumers;
pub mod flow;
pub mod guest;
pub mod machine;
pub mod output;
pub mod pages;
pub mod poll;
pub mod refusal;
pub mod run;
pub mod scenario;
pub mod simulate;
pub mod step;
pub mod suite;
pub mod toolstack;
pub mod trace;
pub mod trial;
pub mod verdict;
