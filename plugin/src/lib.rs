//! A QEMU TCG plugin that plays the hypervisor of `mem_event`: it raises EPT violations and paging faults before the access
//! happens, stops the vCPU, and lets it go on when a consumer has answered.
//!
//! The plugin translates and carries out; what happens next is the engine's decision ([`mem_event::Domain`]). The walk of an
//! event through the files: `qemu` (a block is translated) → `translate` → `decode` → `recipe`; then, before the instruction
//! runs, `qemu::shim` → `gate` → `cache`, and on a miss `walk` → `hypervisor` (the engine) → `park`. A touch of a page that is
//! not mapped comes by `userfault` → `service` → `hypervisor` → `stopped`. Consumers come by `service` → `client`.
//!
//! | file | what lives there |
//! |---|---|
//! | `qemu` | everything that touches QEMU (unsafe): callbacks, shims, leaving a block, the direct view of registers |
//! | `decode`, `recipe`, `quick`, `registers` | which memory an instruction will touch |
//! | `gate`, `cache`, `walk` | whether it may |
//! | `arming` | what new blocks are instrumented with |
//! | `events` | control and model-specific registers, breakpoints, steps |
//! | `verify` | predictions compared with QEMU's own reports |
//! | `explain`, `own` | what a vCPU was doing that the host's MMU stopped, what a processor touches by itself, what is a device's |
//! | `hypervisor`, `effects`, `held` | what the guest does goes to the engine, what the engine wants is carried out; who is called when it is free |
//! | [`facts`], [`spool`] | the trace's header; the trace's bytes to their file |
//! | `stopped`, `park` | who is stopped |
//! | `wait`, `word`, `link` | how a vCPU waits: spinning, asleep; a ring's event channel |
//! | `memory`, `userfault`, `machine` | guest memory (unsafe): where it is, taking pages out and putting them back |
//! | `service`, `peer`, `client`, `toolstack` | the control socket, who may call, event channels, faults |
//! | `sharing`, [`shares`], `remap` | frames that show one page (`remap` unsafe) |
//! | `follow` | on which core the service runs |
//! | `checkpoint`, `arguments`, [`choice`], `start` | the guest's "here", the plugin's arguments, which gate `auto` takes, beginning and end |

pub mod arguments;
mod arming;
pub mod cache;
mod checkpoint;
pub mod choice;
mod client;
pub mod decode;
mod effects;
pub mod elements;
mod events;
mod explain;
pub mod facts;
mod follow;
mod gate;
mod held;
mod hypervisor;
mod link;
pub mod machine;
pub mod memory;
mod own;
mod park;
mod peer;
mod qemu;
pub mod quick;
pub mod recipe;
mod recipes;
pub mod registers;
mod remap;
mod service;
pub mod shares;
mod sharing;
pub mod spool;
mod start;
pub mod stopped;
mod toolstack;
mod translate;
pub mod userfault;
mod verify;
mod wait;
pub mod walk;
mod word;
