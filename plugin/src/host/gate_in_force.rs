//! Which gate stops accesses: the one that was taken at the start, or the one that it gave way to.

use crate::arguments::{Arguments, Gate};
use std::sync::atomic::{AtomicBool, Ordering};

/// The gate of this run.
#[derive(Debug)]
pub struct GateInForce {
    taken: Gate,
    /// `gate=mmu` was taken by `gate=auto`, and may give way to the other gate.
    may_give_way: bool,
    gave_way: AtomicBool,
}

impl GateInForce {
    /// The one that was taken at the start.
    pub fn new(arguments: &Arguments) -> GateInForce {
        GateInForce { taken: arguments.gate, may_give_way: arguments.gives_way, gave_way: AtomicBool::new(false) }
    }

    /// What stops accesses now.
    pub fn now(&self) -> Gate {
        if self.gave_way.load(Ordering::Acquire) { Gate::Callback } else { self.taken }
    }

    /// From here on memory instructions are checked, where `gate=auto` took the host's MMU; says whether it did. A watched page is
    /// unmapped under either gate, so nothing passes meanwhile. Blocks must be translated anew.
    pub fn give_way(&self) -> bool {
        if self.may_give_way {
            self.gave_way.store(true, Ordering::Release);
        }
        self.may_give_way
    }
}
