//! Provokes touches while unwinding is held against notes: few guests touch enough watched pages by themselves.
//!
//! Pages that are in use are taken out of QEMU's mapping, every so often again those that came back. While touches by slow paths are wanting, vCPUs forget
//! addresses too: each access of a page is by its slow path then. A touch costs the guest as much as a
//! page fault does, and is let go on without a word to anybody.

use crate::arguments::Gate;
use crate::engine::hypervisor::Hypervisor;
use crate::host::instrumentation;
use crate::host::witness::{self, Standing};
use crate::qemu::outside;
use crate::qemu::source::ViewCheck;
use crate::qemu::unwinding::Kind;
use mem_event::Gfn;
use std::time::{Duration, Instant};

/// Between two rounds.
pub const ROUND: Duration = Duration::from_millis(1);
/// Pages in a round.
const PAGES: usize = 128;
/// Rounds with the same pages.
const ROUNDS: u32 = 16;

/// What is provoked, and when.
#[derive(Debug, Default)]
pub struct Provoker {
    frames: Vec<Gfn>,
    rounds: u32,
    last: Option<Instant>,
}

impl Provoker {
    /// Whether there are notes to prove needless.
    pub fn has_work(hypervisor: &Hypervisor) -> bool {
        instrumentation::wanted() & instrumentation::NOTE != 0
            && Standing::now() != Standing::Refuted
            && ViewCheck::now() == ViewCheck::Proven
            && hypervisor.host.gate.now() == Gate::Mmu
    }

    /// A round, where one is due.
    pub fn round(&mut self, hypervisor: &Hypervisor) {
        if !Provoker::has_work(hypervisor) || self.last.is_some_and(|last| last.elapsed() < ROUND) {
            return;
        }
        self.last = Some(Instant::now());
        if Standing::now() == Standing::Proven {
            hypervisor.gives_up_notes();
            return;
        }
        if self.rounds.is_multiple_of(ROUNDS) {
            self.frames = hypervisor.host.memory.present(PAGES);
        }
        self.rounds += 1;
        hypervisor.provoke(&self.frames);
        if witness::lacks(Kind::SlowPath) {
            let started = hypervisor.host.vcpus.iter().filter(|vcpu| vcpu.has_started());
            started.for_each(|vcpu| outside::forget_addresses(vcpu.id.0));
        }
    }
}
