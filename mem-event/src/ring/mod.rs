//! The two halves of a ring: [`Front`] is the engine's, [`Back`] the consumer's; [`Pollers`] is the view of threads that wait.
//!
//! The names are those of Xen's `ring.h`, whose front end puts requests and whose back end answers them. In `mem_event` the hypervisor
//! is the front end and the program in dom0 the back end: the other way round than with a guest's block or network device.
//!
//! Requests and responses share the slots: a response overwrites the oldest slot that holds no response yet. A slot is free
//! again only when the engine has taken its response, so everything that the engine decides by (how many slots are free,
//! how many answers are due) comes from counters of its own. From the page it believes one number, the consumer's
//! `rsp_prod`, and only after [`Front::poll`] has found it possible.
//!
//! All counters run freely over 32 bits; a counter's slot is its remainder by the number of slots, a power of two.
//!
//! **Orderings.** A slot's words are relaxed. The side that fills a slot then stores its producer index with *release*, and
//! the other side loads that index with *acquire* before it reads the slot: so the body is seen whole. A slot changes sides
//! only through such a pair: the consumer reuses a slot after it has copied the request out (same thread, and its release
//! store of `rsp_prod` comes after), the engine after it has taken the response out. `tests/memory_order.rs` has loom try every
//! order of these effects, and shows that it would find a weaker one.

mod back;
mod front;
mod pollers;

pub use back::Back;
pub use front::{Front, FrontState};
pub use pollers::Pollers;

use crate::control::{Layout, Ring};
use std::fmt;

/// A producer index that an honest consumer cannot have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What the page says.
    pub rsp_prod: u32,
    /// Responses that the engine has taken.
    pub rsp_cons: u32,
    /// Responses that are due at most.
    pub outstanding: u32,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { rsp_prod, rsp_cons, outstanding } = self;
        write!(f, "rsp_prod is {rsp_prod:#x}, but {outstanding} responses are due after {rsp_cons:#x}")
    }
}

impl std::error::Error for Broken {}

/// Which slots a ring has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    ring: Ring,
    layout: Layout,
    slots: u32,
}

impl Shape {
    fn new(ring: Ring, layout: Layout, slots: u32) -> Result<Shape, String> {
        let most = layout.max_slots();
        let slots = if slots == 0 { most } else { slots };
        if !slots.is_power_of_two() || slots > most {
            return Err(format!("{slots} slots: a power of two up to {most} is needed"));
        }
        Ok(Shape { ring, layout, slots })
    }

    #[inline]
    fn slot(self, counter: u32) -> u32 {
        counter & (self.slots - 1)
    }

    /// Where the slot's words begin in the page.
    #[inline]
    fn word(self, counter: u32) -> usize {
        self.slot(counter) as usize * (self.layout.slot_bytes() / 8)
    }
}
