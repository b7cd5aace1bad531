//! Which pages of QEMU's mapping of guest memory are there, as the kernel tells of this process's own.

use crate::memory::mapping::Memory;
use mem_event::{Gfn, PAGE_SIZE};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Pages that are asked for at a time.
const SPAN: u64 = 1 << 10;
/// Spans at most, spread over all of memory: what a page costs to ask is little, but a machine may have many.
const MOST_SPANS: u64 = 256;
/// In an entry of the kernel's table of pages: it is there.
const PRESENT: u64 = 1 << 63;

impl Memory {
    /// So many frames at most that are mapped now, spread over memory.
    pub fn present(&self, most: usize) -> Vec<Gfn> {
        let Ok(table) = File::open("/proc/self/pagemap") else { return Vec::new() };
        let pages = self.size / PAGE_SIZE as u64;
        let apart = pages.div_ceil(SPAN).div_ceil(MOST_SPANS).max(1);
        let mut found = Vec::new();
        for first in (0..pages).step_by(usize::try_from(SPAN * apart).unwrap_or(usize::MAX)) {
            let count = SPAN.min(pages - first);
            let mut entries = vec![0; usize::try_from(count * 8).unwrap_or_default()];
            let page = self.base / PAGE_SIZE as u64 + first;
            if table.read_exact_at(&mut entries, page * 8).is_err() {
                continue;
            }
            let is_there = |entry: &[u8]| entry.try_into().is_ok_and(|entry| u64::from_ne_bytes(entry) & PRESENT != 0);
            let there = (first..).zip(entries.chunks_exact(8)).filter(|(_, entry)| is_there(entry));
            found.extend(there.filter_map(|(page, _)| self.frame_at(self.base + page * PAGE_SIZE as u64)));
        }
        let step = found.len().div_ceil(most.max(1)).max(1);
        found.into_iter().step_by(step).collect()
    }
}
