//! Xen's `mem_event` protocol as a state machine of values and effects.
//!
//! In Xen, a program outside a virtual machine watches and pages its memory: an access that the p2m table forbids stops
//! the vCPU, a request goes onto a ring shared with a *consumer* (a pager, an access listener, an out-of-memory helper),
//! the consumer answers on the same ring, and the vCPU goes on. This crate is the hypervisor's half of that protocol:
//! rings in Xen's byte layout, slot claims, wait queues, the p2m table, control operations with Xen's error numbers.
//!
//! It has no threads, no clock, no sockets and knows no emulator. A caller hands in values ([`Input`], [`With`]), the engine changes
//! its state and returns what the caller must do now ([`Outcome`]) and what must happen elsewhere ([`Effects`]). So the same
//! engine runs inside an emulator, replays from a trace, and is explored by a model checker.
//!
//! The one order that is safe everywhere is **claim, pause, put**: a vCPU may sleep only while claiming, it is paused before
//! its request can be seen, and a put after a claim always succeeds.
//!
//! | file | what lives there |
//! |---|---|
//! | [`number`] | newtypes for every number with a unit |
//! | [`rights`] | read, write, execute; Xen's ten access types |
//! | [`p2m`] | the type and the access rights of each guest frame |
//! | [`event`], `flags` | the one event type, with the request and the response that carry it, and their flags |
//! | [`input`], [`effect`] | what the engine is told, what it answers |
//! | [`domain`] | the engine: its state and the one dispatch into it |
//! | `channel`, `ring_state`, `vcpu` | claims, slots, queues; a ring's phase; what a vCPU waits for |
//! | [`flow`] | when a ring is full: four policies, this engine's and three of Xen's history |
//! | `historic`, `history` | what is kept of those three; the engine under them |
//! | `life`, `budget`, `shares`, `modes` | the rest of the state: whether the domain lives, frames, who shares, CPU events |
//! | `access`, `foreign`, `monitor` | what makes events: accesses of vCPUs, of others, CPU events |
//! | `paging`, `populate`, `sharing` | what a frame's type asks for |
//! | `response` | what a consumer may change |
//! | `emulation`, `let_through` | instructions that are let through alone; to whom, and until when |
//! | `reset` | the machine begins anew |
//! | `lifecycle`, `operations` | rings begin and end; the other control operations |
//! | `invariants` | what holds between two steps |
//! | [`state`], [`view`] | the whole state as a value; what of it can be inspected |
//! | `altp2m`, `views` | tables of rights beside the host's; the steps that have to do with them |
//! | `shown`, `beyond` | frames that show others' memory in a view; frames beyond RAM |
//! | [`published`] | the rights that pass without the engine |
//! | [`control`], `operation`, `argument`, [`cpu_events`] | control operations, their arguments as numbers, the kinds of CPU events |
//! | `table` | enums whose rows have numbers and names |
//! | [`errno`] | Xen's error numbers |
//! | [`page`], [`multicall`] | the memory shared with a consumer: the ring's page, calls that are handed over (the unsafe files of this crate) |
//! | [`ring`] | its two halves, the engine's and the consumer's, and who must be signalled |
//! | [`spin`] | how long a waiting thread spins before it sleeps |
//! | [`mark`] | by what a thread is told in a signal's handler where it stands |
//! | [`stopped`], [`seat`] | whether a thread waits and how it sleeps; what one thread has at a time |
//! | [`registers`] | a vCPU's registers |
//! | [`wire`] | the byte layouts of a slot |
//! | `word` | halves of words |
//! | [`taken`] | the bytes that a step took from ring pages |
//! | [`mod@digest`] | tells contents apart
//! | [`trace`] | records a run, reads it back, replays it |
//! | [`message`] | the bytes of the control socket |

mod access;
mod altp2m;
mod answer;
mod argument;
mod atomics;
mod beyond;
mod budget;
mod channel;
pub mod control;
pub mod cpu_events;
pub mod digest;
pub mod domain;
pub mod effect;
mod emulation;
pub mod errno;
pub mod event;
mod flags;
pub mod flow;
mod foreign;
mod historic;
mod history;
pub mod input;
mod invariants;
mod let_through;
mod life;
mod lifecycle;
pub mod mark;
pub mod message;
mod modes;
mod monitor;
pub mod multicall;
pub mod number;
mod operation;
mod operations;
pub mod p2m;
mod packed;
pub mod page;
mod paging;
mod populate;
pub mod published;
mod recorded;
pub mod registers;
mod reset;
mod response;
pub mod rights;
pub mod ring;
mod ring_state;
pub mod seat;
mod shares;
mod sharing;
mod shown;
pub mod spin;
pub mod state;
pub mod stopped;
mod table;
pub mod taken;
pub mod trace;
pub mod trap;
mod vcpu;
pub mod view;
mod views;
pub mod wire;
mod word;

pub use control::{Control, Layout, MonitorMode, NoConsumer, Ring, SET_ACCESS_SPAN};
pub use cpu_events::{CpuEventKind, DescriptorTable};
pub use digest::{digest, keyed_digest};
pub use domain::Domain;
pub use effect::{Effect, Effects, Outcome, WaitReason};
pub use emulation::Emulation;
pub use errno::Errno;
pub use event::{About, Cpu, Event, Flags, Reason, Request, Response};
pub use flow::{Flow, FlowKind};
pub use input::{Access, AccessSource, CpuEvent, DomainConfig, Input, With};
pub use number::{Gfn, Gla, Gpa, MOST_VIEWS, PAGE_SIZE, VcpuId, ViewId};
pub use p2m::P2mType;
pub use page::RingPage;
pub use published::PublishedRights;
pub use rights::{AccessType, Rights};
pub use ring::{Back, Broken, Front, FrontState, Pollers};
pub use state::{Checkpoint, DomainState};
pub use trap::{Trap, TrapKind};
pub use view::{RingPhase, RingView, VcpuView};
