//! What the tool reserved on `/dev/xen/privcmd`: only there are pages put.

use crate::mapping::PAGE;
use rustix::mm::ProtFlags;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How many there are; read without the lock at each `munmap` of the tool.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The regions of one process.
#[derive(Debug, Default)]
pub struct Regions(Vec<(Range<u64>, ProtFlags)>);

/// Whether there is any.
pub fn any() -> bool {
    COUNT.load(Ordering::Acquire) > 0
}

impl Regions {
    /// A region that was reserved.
    pub fn add(&mut self, region: Range<u64>, protection: ProtFlags) {
        self.remove(&region);
        self.0.push((region, protection));
        COUNT.store(self.0.len(), Ordering::Release);
    }

    /// Addresses that the tool unmapped, or mapped anew: what is left of each region stays.
    pub fn remove(&mut self, gone: &Range<u64>) {
        let beside = |(region, protection): (Range<u64>, ProtFlags)| {
            let parts = [region.start..region.end.min(gone.start), region.start.max(gone.end)..region.end];
            parts.into_iter().filter(|part| !part.is_empty()).map(move |part| (part, protection))
        };
        self.0 = std::mem::take(&mut self.0).into_iter().flat_map(beside).collect();
        COUNT.store(self.0.len(), Ordering::Release);
    }

    /// How a page is to be mapped; `None` where none is reserved.
    pub fn protection(&self, address: u64) -> Option<ProtFlags> {
        let end = address.checked_add(PAGE)?;
        let within = |region: &Range<u64>| address.is_multiple_of(PAGE) && region.start <= address && end <= region.end;
        self.0.iter().find(|(region, _)| within(region)).map(|(_, protection)| *protection)
    }
}
