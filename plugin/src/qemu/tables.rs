//! The tables that a processor uses by itself, by its CPU state: descriptors, the task state.

use super::layout::{self, SYSTEM_TABLES};
use super::view::{HF_LMA, HF_PE, View};
use std::ops::RangeInclusive;

/// Of a task state's descriptor: it is of 32 or 64 bits.
const WIDE: u32 = 1 << 11;

impl View {
    /// The linear addresses of the tables that the processor uses by itself: LDT, task state, GDT, IDT. Of the last as much as vectors
    /// reach, and in real mode nothing else: after a reset all have the base 0 and a limit of 64 KiB, and are no tables there.
    pub fn system_tables(&self) -> [Option<RangeInclusive<u64>>; 4] {
        let table = |number: usize, most: u64| {
            let segment = layout::segment(SYSTEM_TABLES + number);
            let base = self.u64_behind(segment.plus(layout::SEGMENT_BASE));
            base..=base.wrapping_add(u64::from(self.u32_behind(segment.plus(layout::SEGMENT_LIMIT))).min(most))
        };
        let is_protected = self.flags() & HF_PE != 0;
        let entry = match self.flags() {
            flags if flags & HF_LMA != 0 => 16,
            _ if is_protected => 8,
            _ => 4,
        };
        let selected = |number: usize| {
            let selector = self.u32_behind(layout::segment(SYSTEM_TABLES + number));
            (is_protected && selector & 0xfffc != 0).then(|| table(number, u64::MAX))
        };
        [selected(0), selected(1), is_protected.then(|| table(2, u64::MAX)), Some(table(3, 256 * entry - 1))]
    }

    /// The global descriptor table, or the local one.
    pub(super) fn table_of_descriptors(&self, local: bool) -> Option<RangeInclusive<u64>> {
        if self.is_by_api() {
            return None;
        }
        let [of_task, _, of_all, _] = self.system_tables();
        if local { of_task } else { of_all }
    }

    /// Where the task state is, and whether it is none of 16 bits.
    pub(super) fn task(&self) -> Option<(u64, bool)> {
        if self.is_by_api() {
            return None;
        }
        let [_, task, _, _] = self.system_tables();
        let flags = layout::segment(SYSTEM_TABLES + 1).plus(layout::SEGMENT_FLAGS);
        Some((*task?.start(), self.u32_behind(flags) & WIDE != 0))
    }
}
