//! What the tool reserved on `/dev/xen/privcmd`, and which frames it has mapped there: only there are pages put.

use crate::mapping::PAGE;
use rustix::mm::ProtFlags;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use xen::tool::Frame;

/// How many there are; read without the lock at each `munmap` of the tool.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The regions of one process.
#[derive(Debug, Default)]
pub struct Regions {
    /// By their beginnings: the end, and how pages are to be mapped. None overlaps another.
    reserved: BTreeMap<u64, (u64, ProtFlags)>,
    /// The frames by the addresses where the tool sees them.
    frames: BTreeMap<u64, Frame>,
}

/// Whether there is any.
pub fn any() -> bool {
    COUNT.load(Ordering::Acquire) > 0
}

impl Regions {
    /// A region that was reserved. The frames that were mapped there before.
    pub fn add(&mut self, region: Range<u64>, protection: ProtFlags) -> Vec<Frame> {
        let gone = self.remove(&region);
        self.reserved.insert(region.start, (region.end, protection));
        self.count();
        gone
    }

    /// Addresses that the tool unmapped, or mapped anew: what is left of each region stays. The frames that were mapped there.
    pub fn remove(&mut self, gone: &Range<u64>) -> Vec<Frame> {
        let first = self.reserved.range(..=gone.start).next_back().map_or(gone.start, |(start, _)| *start);
        let touched = self.reserved.range(first..gone.end.max(first)).filter(|(_, (end, _))| *end > gone.start);
        let touched: Vec<_> = touched.map(|(start, (end, protection))| (*start..*end, *protection)).collect();
        for (region, protection) in touched {
            self.reserved.remove(&region.start);
            let parts = [region.start..region.end.min(gone.start), region.start.max(gone.end)..region.end];
            let parts = parts.into_iter().filter(|part| !part.is_empty());
            self.reserved.extend(parts.map(|part| (part.start, (part.end, protection))));
        }
        self.count();
        let pages: Vec<u64> = self.frames.range(gone.clone()).map(|(address, _)| *address).collect();
        pages.iter().filter_map(|address| self.frames.remove(address)).collect()
    }

    /// How a page is to be mapped; `None` where none is reserved.
    pub fn protection(&self, address: u64) -> Option<ProtFlags> {
        let end = address.checked_add(PAGE)?;
        let (_, (last, protection)) = self.reserved.range(..=address).next_back()?;
        (address.is_multiple_of(PAGE) && end <= *last).then_some(*protection)
    }

    /// What is mapped at an address from now on; what was there before.
    pub fn put(&mut self, address: u64, frame: Option<Frame>) -> Option<Frame> {
        match frame {
            Some(frame) => self.frames.insert(address, frame),
            None => self.frames.remove(&address),
        }
    }

    /// Whether a frame is mapped within these addresses.
    pub fn has_frames(&self, pages: &Range<u64>) -> bool {
        self.frames.range(pages.clone()).next().is_some()
    }

    /// A child of the tool has no frames: they are mapped for its parent alone.
    pub fn child(&mut self) {
        self.frames.clear();
    }

    fn count(&self) {
        COUNT.store(self.reserved.len(), Ordering::Release);
    }
}
