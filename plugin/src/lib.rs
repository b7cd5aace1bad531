//! A QEMU TCG plugin that plays the hypervisor of `mem_event`: it raises EPT violations and paging faults before the access
//! happens, stops the vCPU, and lets it go on when a consumer has answered.
//!
//! The plugin translates and carries out; what happens next is the engine's decision ([`mem_event::Domain`]). ARCHITECTURE.md walks
//! one event through the rooms:
//!
//! | room | what lives there |
//! |---|---|
//! | `entry` | the door that QEMU comes in by: callbacks, shims, beginning and end (unsafe) |
//! | `service` | the control socket, which processes may call, event channels, faults |
//! | `trap` | what stops a vCPU before its instruction, and how it waits |
//! | [`engine`] | the engine under its lock: steps, effects, control operations, the trace |
//! | `fatal` | the end of a run that cannot go on |
//! | [`host`] | vCPUs, event channels, instrumentation: what effects act on |
//! | [`memory`] | guest memory: where it is, taking pages out and putting them back (unsafe) |
//! | [`qemu`] | everything that touches QEMU (unsafe) |
//! | [`insn`] | which memory an instruction will touch, and where page tables lead (its arena of recipes unsafe) |
//! | [`arguments`] | the plugin's arguments |

pub mod arguments;
pub mod engine;
mod entry;
mod fatal;
pub mod host;
pub mod insn;
pub mod memory;
pub mod qemu;
mod service;
mod trap;
