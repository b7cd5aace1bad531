//! Provokes touches while unwinding is held against notes: few guests touch enough watched pages by themselves.
//!
//! Pages are taken out of QEMU's mapping, each once, and those that the guest uses, because they came back, again and again. A touch costs the
//! guest as much as a page fault does, and is let go on without a word to anybody. What was never touched is put back at the end.

use crate::arguments::Gate;
use crate::engine::hypervisor::Hypervisor;
use crate::host::instrumentation;
use crate::host::witness::Standing;
use crate::qemu::source::ViewCheck;
use mem_event::Gfn;
use std::time::{Duration, Instant};

/// Between two rounds.
pub const ROUND: Duration = Duration::from_millis(1);
/// Pages in a round that were not tried yet.
const PAGES: usize = 128;
/// Pages in a round that are put back.
const BACK: usize = 1024;
/// Rounds until all pages are tried again, where it is not proven by then.
const ROUNDS: u32 = 1024;

/// What is provoked, and when.
#[derive(Debug, Default)]
pub struct Provoker {
    untried: Vec<Gfn>,
    rounds: u32,
    /// Whether pages may be out.
    provokes: bool,
    last: Option<Instant>,
}

impl Provoker {
    /// Whether there are notes to prove needless, or pages to put back.
    pub fn has_work(&self, hypervisor: &Hypervisor) -> bool {
        self.provokes || Provoker::has_notes(hypervisor)
    }

    fn has_notes(hypervisor: &Hypervisor) -> bool {
        instrumentation::wanted() & instrumentation::NOTE != 0
            && Standing::now() != Standing::Refuted
            && ViewCheck::now() == ViewCheck::Proven
            && hypervisor.host.gate.now() == Gate::Mmu
    }

    /// A round, where one is due.
    pub fn round(&mut self, hypervisor: &Hypervisor) {
        if !self.has_work(hypervisor) || self.last.is_some_and(|last| last.elapsed() < ROUND) {
            return;
        }
        self.last = Some(Instant::now());
        let is_proven = Standing::now() == Standing::Proven;
        if is_proven && Provoker::has_notes(hypervisor) {
            hypervisor.gives_up_notes();
        }
        if is_proven || !Provoker::has_notes(hypervisor) {
            self.provokes = hypervisor.stop_provoking(BACK);
            return;
        }
        if self.rounds.is_multiple_of(ROUNDS) {
            self.untried = hypervisor.host.memory.present(usize::MAX);
        }
        self.rounds += 1;
        let first = self.untried.len().saturating_sub(PAGES);
        self.provokes = true;
        hypervisor.provoke(&self.untried.split_off(first));
    }
}
