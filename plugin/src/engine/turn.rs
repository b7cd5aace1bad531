//! The turns of vCPUs that do an instruction alone, and what came of each.

use mem_event::{Gfn, VcpuId};
use std::sync::atomic::{AtomicU64, Ordering};

/// Whose it is, and which frames are open for it.
#[derive(Debug)]
pub struct Turn {
    /// The vCPU.
    pub vcpu: VcpuId,
    /// Opened against their rights; closed at its end.
    pub open: Vec<Gfn>,
}

/// What came of an instruction that was to run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It is over, or has raised the guest's exception.
    Ran,
    /// Nothing, or not all of it, was done.
    Kept,
    /// The vCPU was at another one, had no grant any more, or was stopped.
    Elsewhere,
    /// A frame of it was not there.
    Unready,
    /// It had no turn: it ran in its block, with a frame open to all.
    InItsBlock,
}

/// How often, by [`Came`].
static COUNTS: [AtomicU64; 5] = [const { AtomicU64::new(0) }; 5];

impl Came {
    /// Once more.
    pub fn counts(self) {
        COUNTS[self as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// What came of them, if there were any.
pub fn told() -> Option<String> {
    let [ran, kept, elsewhere, unready, open] = COUNTS.each_ref().map(|count| count.load(Ordering::Relaxed));
    let turns = ran + kept + elsewhere + unready;
    (turns + open > 0).then(|| {
        format!(
            "alone: {turns} turns, in {ran} an instruction ran, in {kept} nothing did, in {elsewhere} the vCPU was elsewhere, in {unready} a \
             frame was out; {open} times a page was open until a block's end"
        )
    })
}
