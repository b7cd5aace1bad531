//! A consumer's side of `mem_event`: what a pager, a listener or a helper needs to talk to the plugin, and nothing of the
//! harness.
//!
//! In Xen a consumer uses libxc: control operations, a ring page that it maps, an event channel. Here it has a control socket, a
//! ring page and two eventfds, and this crate is its hands on them. `mem-event` knows the bytes and does no I/O; this is the I/O.
//! The bytes themselves, for those who write a consumer in another language, are in `docs/protocol.md`.
//!
//! | file | what lives there |
//! |---|---|
//! | [`socket`] | the control socket: calls, replies, descriptors, notices |
//! | `calls` | what a consumer asks for, a method a call |
//! | [`refusal`] | why a call or a connection comes to nothing |
//! | [`channel`] | one ring: its page, its event channel, the connection that holds it |
//! | [`poll`] | polling before a sleep |
//! | [`order`] | what the toolstack has a pager do |
//! | [`handed`] | what `mem-event run --consumer` hands over, taken from the environment |

mod calls;
pub mod channel;
pub mod handed;
pub mod order;
pub mod poll;
pub mod refusal;
pub mod socket;

pub use calls::PutOver;
pub use channel::{Channel, RingSettings};
pub use handed::Handed;
pub use order::{Order, Orders};
pub use refusal::{Lacking, Lost};
pub use socket::Client;
