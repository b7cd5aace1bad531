//! How the machine lays its RAM out: which frame lies where in the memory file.

use mem_event::{Gfn, PAGE_SIZE};
use std::fmt;

const PAGE: u64 = PAGE_SIZE as u64;
/// Where RAM goes on above the hole for devices.
const ABOVE: u64 = 4 << 30;
/// The VGA and ROM window: RAM is there, but what an access meets is the chipset's choice at run time.
const WINDOW: std::ops::Range<u64> = 0xa0..0x100;

/// Which frames are RAM, and where in the memory file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    below: u64,
    above: u64,
}

impl MemoryMap {
    /// RAM of `size` bytes of which at most `below` lie under the hole.
    pub fn new(size: u64, below: u64) -> MemoryMap {
        let low = size.min(below);
        MemoryMap { below: low / PAGE, above: (size - low) / PAGE }
    }

    /// The file offset of a frame.
    pub fn offset(&self, gfn: Gfn) -> Option<u64> {
        let above = gfn.0.checked_sub(ABOVE / PAGE);
        if gfn.0 < self.below {
            Some(gfn.0 * PAGE)
        } else {
            above.filter(|above| *above < self.above).map(|above| (self.below + above) * PAGE)
        }
    }

    /// The frame at a file offset.
    pub fn frame(&self, offset: u64) -> Option<Gfn> {
        let page = offset / PAGE;
        if page < self.below {
            Some(Gfn(page))
        } else {
            (page < self.below + self.above).then(|| Gfn(page - self.below + ABOVE / PAGE))
        }
    }

    /// How many frames from this one on, at most `most`, lie together in the file; `None` where it is no RAM.
    pub fn contiguous(&self, gfn: Gfn, most: u64) -> Option<u64> {
        self.offset(gfn)?;
        let end = if gfn.0 < self.below { self.below } else { ABOVE / PAGE + self.above };
        Some(most.min(end - gfn.0))
    }

    /// Frames in a row, as runs that lie together in the file; what is no RAM is left out.
    pub fn runs_of(&self, first: Gfn, count: u64) -> impl Iterator<Item = (Gfn, u64)> {
        let end = first.0.saturating_add(count);
        let mut next = first.0;
        std::iter::from_fn(move || {
            while next < end {
                let gfn = Gfn(next);
                let run = self.contiguous(gfn, end - next);
                next += run.unwrap_or(1);
                if let Some(run) = run {
                    return Some((gfn, run));
                }
            }
            None
        })
    }

    /// Appends the frames of a range of the file, as runs.
    pub fn runs(&self, from: u64, to: u64, runs: &mut Vec<(Gfn, u64)>) {
        let mut page = from / PAGE;
        let end = to.div_ceil(PAGE);
        while page < end {
            let Some(first) = self.frame(page * PAGE) else { return };
            let Some(count) = self.contiguous(first, end - page) else { return };
            runs.push((first, count));
            page += count;
        }
    }

    /// RAM as the engine wants it: ascending runs.
    pub fn ram(&self) -> Vec<(Gfn, u64)> {
        let mut ram = vec![(Gfn(0), self.below)];
        if self.above > 0 {
            ram.push((Gfn(ABOVE / PAGE), self.above));
        }
        ram
    }

    /// The first frames of a row that are no RAM, if any are: the first of them and the last.
    pub fn gap(&self, first: Gfn, count: u64) -> Option<(Gfn, Gfn)> {
        let end = first.0.saturating_add(count);
        let mut next = first.0;
        while next < end {
            let Some(run) = self.contiguous(Gfn(next), end - next) else {
                let above = self.ram().into_iter().map(|(gfn, _)| gfn.0).find(|start| *start > next);
                return Some((Gfn(next), Gfn(above.map_or(end, |start| start.min(end)) - 1)));
            };
            next += run;
        }
        None
    }

    /// The frames of the VGA and ROM window, where accesses cannot be trapped.
    pub const fn window() -> std::ops::Range<u64> {
        WINDOW
    }

    /// Whether a run of frames meets the VGA and ROM window, where accesses cannot be trapped.
    pub fn meets_window(first: Gfn, count: u64) -> bool {
        first.0 < WINDOW.end && first.0.saturating_add(count) > WINDOW.start
    }
}

impl fmt::Display for MemoryMap {
    /// Its ranges of frames, the highest last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.ram().into_iter().map(|(first, count)| format!("{first} to {}", Gfn(first.0 + count - 1)));
        f.write_str(&ranges.collect::<Vec<_>>().join(" and "))
    }
}
