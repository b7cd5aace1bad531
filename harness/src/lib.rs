//! Boots guests under QEMU, runs consumers of `mem_event` rings against them, keeps the sequences as text.
//!
//! The plugin inside QEMU plays the hypervisor; this crate is everything around it, in a process of its own: the toolstack
//! (control operations on a Unix socket), the consumers (a pager, an access listener, an out-of-memory helper), and the
//! scenarios that tell them what to do when. It knows the plugin as a file to load and a socket to talk to.
//!
//! | file | what lives there |
//! |---|---|
//! | [`guest`], [`symbols`], [`range`] | guest images, names for addresses, ranges of memory |
//! | [`linux`], [`cpio`] | the Linux guest and its first file system |
//! | [`qemu`], [`process`], [`spawn`], [`qmp`], [`folder`] | the machine, QEMU as a process, its monitor, its files |
//! | [`icount`] | a machine that does the same in each run |
//! | [`gate`] | what speaks against the host's MMU as a gate |
//! | [`pager`], [`pagefile`], [`policy`], [`recent`], [`listener`], [`helper`] | the consumers |
//! | [`settings`] | what they are told, as plain data |
//! | [`external`], [`solo`] | a consumer that is a process of its own; a built-in one |
//! | [`watcher`], [`faulty`] | a listener with one treatment for all; consumers that misbehave |
//! | [`scenario`], [`corpus`], [`act`], [`share`] | what is to be done when, as a file says it; the built-in ones; what can be done and how |
//! | [`consumers`], [`watch`], [`log`], [`run`], [`attach`] | serving a domain from its start, or its being joined, to its end |
//! | [`transcript`], [`report`], [`resident`], [`verdict`] | what is shown: the sequence, the summary, the memory held, the verdict |
//! | [`suite`], [`new`] | scenarios against their snapshots; what a new one begins with |
//! | [`replay`], [`trace`], [`facts`] | a trace through a fresh engine; traces read; what their header says |
//! | [`step`] | a trace in the terminal, step by step |
//! | [`doctor`] | what this machine has and lacks |
//! | [`cli`], [`command`], [`signals`] | the command line |
//! | [`refusal`], [`amount`] | errors with a remedy, sizes and times |

pub mod act;
pub mod amount;
pub mod attach;
pub mod cli;
pub mod command;
pub mod consumers;
pub mod corpus;
pub mod cpio;
pub mod disk;
pub mod doctor;
pub mod external;
pub mod facts;
pub mod faulty;
pub mod folder;
pub mod gate;
pub mod guest;
pub mod helper;
pub mod icount;
pub mod linux;
pub mod listener;
pub mod log;
pub mod new;
pub mod pagefile;
pub mod pager;
pub mod policy;
pub mod process;
pub mod qemu;
pub mod qmp;
pub mod range;
pub mod recent;
pub mod refusal;
pub mod replay;
pub mod report;
pub mod resident;
pub mod run;
pub mod scenario;
pub mod settings;
pub mod share;
pub mod signals;
pub mod solo;
pub mod spawn;
pub mod step;
pub mod suite;
pub mod symbols;
pub mod trace;
pub mod transcript;
pub mod verdict;
pub mod watch;
pub mod watcher;
