//! What was touched when and by what code.

use crate::guest::symbols::Symbols;
use crate::run::report::Live;
use crate::toolstack::counts::Counts;
use crate::toolstack::log::{Observer, Served};
use crate::toolstack::transcript::{Point, Record};
use mem_event::{Event, Flags, Rights};
use std::collections::BTreeMap;
use std::time::Duration;

/// Who touched a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toucher {
    /// The instruction at this linear address, 0 where it is not known.
    Code(u64),
    /// The walk of the page tables for it.
    Walk(u64),
    /// No vCPU.
    Device,
}

/// One touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// Nanoseconds since the first touch of all.
    pub at: u64,
    /// Who.
    pub by: Toucher,
}

/// One page that was touched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// All that was done to it.
    pub rights: Rights,
    /// The first touch.
    pub first: Touch,
    /// Where in the page that was.
    pub offset: u16,
    /// The last that was seen.
    pub last: Touch,
    /// The windows in which it was touched, and how.
    pub windows: Vec<(u32, Rights)>,
}

/// All pages that were touched, by their frames.
#[derive(Clone, Debug, Default)]
pub struct Pages {
    /// Nanoseconds of a window.
    pub window: u64,
    /// The pages.
    pub pages: BTreeMap<u64, Page>,
    begun: Option<u64>,
}

impl Pages {
    /// None yet.
    #[must_use]
    pub fn new(window: Duration) -> Pages {
        let window = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX).max(1);
        Pages { window, ..Pages::default() }
    }

    /// What a record of the run tells of touches; whether it is one.
    pub fn take(&mut self, record: &Record) -> bool {
        let Record::Event { request, rip, since, .. } = record else { return false };
        let Event::Violation { gfn, offset, rights, in_gpt, .. } = request.event else { return false };
        let at = since.saturating_sub(*self.begun.get_or_insert(*since));
        let by = match (request.flags.contains(Flags::FOREIGN), in_gpt) {
            (true, _) => Toucher::Device,
            (false, true) => Toucher::Walk(*rip),
            (false, false) => Toucher::Code(*rip),
        };
        self.touch(gfn.0, offset, rights, Touch { at, by });
        true
    }

    /// A page was touched.
    pub fn touch(&mut self, gfn: u64, offset: u16, rights: Rights, touch: Touch) {
        let window = u32::try_from(touch.at / self.window).unwrap_or(u32::MAX);
        let fresh = || Page { rights, first: touch, offset, last: touch, windows: Vec::new() };
        let page = self.pages.entry(gfn).or_insert_with(fresh);
        page.rights = page.rights.union(rights);
        if touch.at < page.first.at {
            (page.first, page.offset) = (touch, offset);
        }
        if touch.at >= page.last.at {
            page.last = touch;
        }
        match page.windows.iter_mut().rev().find(|(number, _)| *number == window) {
            Some((_, in_it)) => *in_it = in_it.union(rights),
            None => page.windows.push((window, rights)),
        }
    }

    /// How many pages were touched in each window, from the first to the last in which one was.
    #[must_use]
    pub fn working_set(&self) -> Vec<u64> {
        let mut counts = Vec::new();
        for (window, _) in self.pages.values().flat_map(|page| &page.windows) {
            let window = *window as usize;
            counts.resize(counts.len().max(window + 1), 0);
            counts[window] += 1;
        }
        counts
    }
}

/// Gathers what is touched, and shows the rest of a run as it comes.
#[derive(Debug)]
pub struct Gathering {
    /// What was gathered.
    pub pages: Pages,
    live: Live,
}

impl Gathering {
    /// None yet.
    #[must_use]
    pub fn new(window: Duration, live: Live) -> Gathering {
        Gathering { pages: Pages::new(window), live }
    }
}

impl Observer for Gathering {
    fn record(&mut self, record: &Record, symbols: &Symbols) {
        if !self.pages.take(record) {
            self.live.record(record, symbols);
        }
    }

    fn attached(&mut self, vcpus: u32) {
        self.live.attached(vcpus);
    }

    fn stopped(&mut self, at: Point, arguments: [u64; 3]) {
        self.live.stopped(at, arguments);
    }

    fn served(&mut self, machine: &Served) {
        self.live.served(machine);
    }

    fn looked(&mut self, counts: &Counts) {
        self.live.looked(counts);
    }
}

#[cfg(test)]
pub(crate) mod sample {
    use super::{Pages, Touch, Toucher};
    use mem_event::Rights;
    use std::time::Duration;

    /// Two pages of a function `a` at 0x1000, one that a device writes, in windows of a second.
    pub(crate) fn pages() -> Pages {
        let mut pages = Pages::new(Duration::from_secs(1));
        let a = Toucher::Code(0x1008);
        let mut touch = |gfn, rights, millis: u64, by| {
            pages.touch(gfn, 0, rights, Touch { at: millis * 1_000_000, by });
        };
        touch(1, Rights::X, 0, a);
        touch(5, Rights::R, 1, a);
        touch(5, Rights::W, 2, a);
        touch(6, Rights::R, 3, a);
        touch(6, Rights::W, 2500, a);
        touch(9, Rights::W, 2600, Toucher::Device);
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::sample::pages;
    use mem_event::Rights;

    #[test]
    fn a_page_has_all_its_rights_and_the_windows_in_which_it_was_touched() {
        let pages = pages();
        let page = &pages.pages[&6];
        assert_eq!((page.rights, page.first.at, page.last.at), (Rights::RW, 3_000_000, 2_500_000_000));
        assert_eq!(page.windows, [(0, Rights::R), (2, Rights::W)]);
        assert_eq!(pages.working_set(), [3, 0, 2], "a window without a touch has none");
    }
}
