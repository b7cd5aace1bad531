//! What is written from outside the guest is what runs: blocks that were made from other bytes are dropped.
//!
//! QEMU sees the guest's own stores and its devices' to code by itself. It does not see what goes into the memory file.

use crate::host::domain_host::Host;
use crate::host::dropping::Dropped;
use crate::host::instrumentation;
use mem_event::{Gfn, PAGE_SIZE};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often bytes were changed.
static CHANGES: AtomicU64 = AtomicU64::new(0);

/// How often blocks were dropped, or would have been if there had been any, since a consumer changed bytes.
pub fn changes() -> u64 {
    CHANGES.load(Ordering::Relaxed)
}

impl Host {
    /// These bytes of a frame have changed, in the memory file: no vCPU begins a block that was made from what was there before, and one
    /// that waits in its callback leaves such a block. A vCPU that runs within one, or stands there in the kernel, ends it.
    pub fn bytes_changed(&self, gfn: Gfn, offset: u16, length: usize) {
        let Some(host) = self.memory.host_address(gfn).filter(|_| length > 0) else { return };
        CHANGES.fetch_add(1, Ordering::Relaxed);
        let length = (length as u64).min(PAGE_SIZE as u64 - u64::from(offset));
        match self.drop_blocks_of(host + u64::from(offset), length) {
            Dropped::Some => {}
            Dropped::All => instrumentation::renew(),
            Dropped::None => {
                static SAID: Once = Once::new();
                SAID.call_once(|| {
                    eprintln!(
                        "mem-event: this QEMU drops no blocks when asked to: code that a consumer overwrites may run on as it was"
                    );
                });
            }
        }
    }
}
