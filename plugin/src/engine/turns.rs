//! How often vCPUs had a turn alone, and what came of it.

use std::sync::atomic::{AtomicU64, Ordering};

/// What came of the instructions that were to run alone, each counted once.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// They ran, or raised the guest's exception.
    pub ran: AtomicU64,
    /// QEMU ran nothing.
    pub kept: AtomicU64,
    /// The vCPU was at another instruction, or had no grant any more.
    pub elsewhere: AtomicU64,
    /// A frame of theirs was not there.
    pub unready: AtomicU64,
    /// They ran in their blocks, with a frame open to all.
    pub open: AtomicU64,
}

/// Of this process.
pub(super) static COUNTS: Counts = Counts {
    ran: AtomicU64::new(0),
    kept: AtomicU64::new(0),
    elsewhere: AtomicU64::new(0),
    unready: AtomicU64::new(0),
    open: AtomicU64::new(0),
};

/// What came of them, if there were any.
pub fn told() -> Option<String> {
    let Counts { ran, kept, elsewhere, unready, open } = &COUNTS;
    let [ran, kept, elsewhere, unready, open] =
        [ran, kept, elsewhere, unready, open].map(|count| count.load(Ordering::Relaxed));
    let turns = ran + kept + elsewhere + unready;
    (turns + open > 0).then(|| {
        format!(
            "alone: {turns} turns, in {ran} an instruction ran, in {kept} nothing did, in {elsewhere} the vCPU was elsewhere, in {unready} a \
             frame was out; {open} times a page was open until a block's end"
        )
    })
}

pub(super) fn count(which: &AtomicU64) {
    which.fetch_add(1, Ordering::Relaxed);
}
