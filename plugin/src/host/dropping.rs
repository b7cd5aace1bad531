//! Blocks that are dropped: of some bytes, by each vCPU for itself, before it begins another one.
//!
//! So are those of frames that lose the right to be executed, unless they are checked. Once a frame has lost it, its blocks are checked also while it
//! has it again, until all blocks are dropped: when it loses it once more, no block is, and nothing has to be translated from a page that
//! may be out of QEMU's mapping.

use crate::host::domain_host::Host;
use crate::host::instrumentation;
use crate::qemu::{internals, outside};
use mem_event::{Gfn, PAGE_SIZE, Rights};
use std::ops::RangeInclusive;

/// Which blocks were, or must be, dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Those of the bytes.
    Some,
    /// All must be.
    All,
    /// None can be.
    None,
}

impl Host {
    /// Whether blocks can be dropped here, so that others are translated: some, or all.
    pub fn can_drop_blocks(&self) -> bool {
        internals::can_drop() || internals::can_flush()
    }

    /// Whether a block of this frame that is translated now is checked where it begins.
    pub fn checks_fetches_of(&self, gfn: Gfn) -> bool {
        self.checked.has(gfn) || !self.rights.allowed(gfn).contains(Rights::X)
    }

    /// All blocks are gone, and every vCPU is out of its own.
    pub fn has_no_blocks(&self) {
        self.checked.clear();
        self.each.clear();
    }

    /// Of these frames, those that may not be executed: each vCPU ends its block, and drops those of theirs that are not checked, before it begins
    /// another one.
    pub fn lose_execution(&self, first: Gfn, count: u64) {
        let end = first.0.saturating_add(count).min(self.rights.frames());
        let mut forbidden = (first.0..end).map(Gfn).filter(|gfn| self.is_forbidden_ram(*gfn)).peekable();
        if forbidden.peek().is_none() {
            return;
        }
        if !internals::can_drop() {
            if internals::can_flush() {
                instrumentation::renew();
            }
            return;
        }
        let mut unchecked = forbidden.filter(|gfn| !self.checked.add(*gfn)).peekable();
        while let Some(first) = unchecked.next() {
            let mut count = 1;
            while unchecked.next_if_eq(&Gfn(first.0 + count)).is_some() {
                count += 1;
            }
            for (gfn, run) in self.memory.map().runs_of(first, count) {
                if let Some(host) = self.memory.host_address(gfn) {
                    let _ = self.drop_blocks_of(host, run * PAGE_SIZE as u64);
                }
            }
        }
        // Whatever was dropped: those that are checked have begun, maybe.
        self.have_vcpus_drop(None);
    }

    fn is_forbidden_ram(&self, gfn: Gfn) -> bool {
        !self.rights.allowed(gfn).contains(Rights::X) && self.memory.offset(gfn).is_some()
    }

    /// The blocks of the bytes at a host address.
    pub(super) fn drop_blocks_of(&self, host: u64, length: u64) -> Dropped {
        match internals::ram_address(host) {
            Some(ram) => {
                self.have_vcpus_drop(Some(ram..=ram + length - 1));
                Dropped::Some
            }
            None if internals::can_flush() => Dropped::All,
            None => Dropped::None,
        }
    }

    /// Each for itself: none begins another block before the blocks are gone, and none waits for another.
    fn have_vcpus_drop(&self, bytes: Option<RangeInclusive<u64>>) {
        for vcpu in self.vcpus.iter().filter(|vcpu| vcpu.has_started()) {
            let bytes = bytes.clone();
            outside::before_next_block(vcpu.id.0, || bytes.into_iter().for_each(internals::drop_blocks));
        }
    }
}
