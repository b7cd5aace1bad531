//! The rights that pass without the engine, one byte a frame, read by every access without a lock.
//!
//! The engine alone writes, while its caller holds it exclusively; anybody reads. A reader may see the rights from just
//! before a change: the one that reduces rights must wait until no late access can follow ([`crate::Effect::Tighten`],
//! [`crate::Effect::Unmap`], [`crate::Effect::Switched`]) before the reduction is answered. Nothing else hangs on the order of these stores.
//!
//! Where the domain has views there is a table a view, and beside them one of what all vCPUs may do, by the views that they go by: what memory that
//! all of them share can be opened for.

use crate::number::{Gfn, MOST_VIEWS, VcpuId, ViewId};
use crate::rights::Rights;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

/// A byte a frame.
type Table = Box<[AtomicU8]>;

/// The number of a vCPU's view while there is none but the host's.
const NO_VIEW: u8 = u8::MAX;

/// Tables of atomics, shared with the fast path.
#[derive(Debug)]
pub struct PublishedRights {
    frames: Table,
    /// Made when a view of that number is, and kept.
    views: [OnceLock<Table>; MOST_VIEWS as usize],
    /// By which view each vCPU goes.
    active: Table,
}

impl PublishedRights {
    pub(crate) fn new(frames: usize, vcpus: u32) -> PublishedRights {
        let active = (0..vcpus).map(|_| AtomicU8::new(NO_VIEW)).collect();
        PublishedRights { frames: table(frames), views: [const { OnceLock::new() }; MOST_VIEWS as usize], active }
    }

    /// What all vCPUs may do.
    pub(crate) fn publish(&self, gfn: Gfn, rights: Rights) {
        publish(&self.frames, gfn, rights);
    }

    /// What those may do that go by this view.
    pub(crate) fn publish_in(&self, view: ViewId, gfn: Gfn, rights: Rights) {
        if let Some(place) = self.views.get(usize::from(view.0)) {
            publish(place.get_or_init(|| table(self.frames.len())), gfn, rights);
        }
    }

    /// By which view a vCPU goes from now on; `None` while there are none.
    pub(crate) fn activate(&self, vcpu: usize, view: Option<ViewId>) {
        if let Some(active) = self.active.get(vcpu) {
            let number = view.and_then(|view| u8::try_from(view.0).ok()).unwrap_or(NO_VIEW);
            active.store(number, Ordering::Release);
        }
    }

    /// The rights of a frame that need no word from the engine, whichever vCPU asks: empty unless it is RAM with memory behind it.
    #[must_use]
    #[inline]
    pub fn allowed(&self, gfn: Gfn) -> Rights {
        allowed(&self.frames, gfn)
    }

    /// The same as this vCPU has them, by its view.
    #[must_use]
    #[inline]
    pub fn allowed_to(&self, vcpu: VcpuId, gfn: Gfn) -> Rights {
        let active = self.active.get(vcpu.0 as usize).map_or(NO_VIEW, |active| active.load(Ordering::Acquire));
        let table = self.views.get(usize::from(active)).and_then(OnceLock::get).unwrap_or(&self.frames);
        allowed(table, gfn)
    }

    /// How many frame numbers the table covers.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames.len() as u64
    }
}

fn table(frames: usize) -> Table {
    (0..frames).map(|_| AtomicU8::new(0)).collect()
}

fn publish(table: &Table, gfn: Gfn, rights: Rights) {
    if let Some(frame) = usize::try_from(gfn.0).ok().and_then(|at| table.get(at)) {
        frame.store(rights.bits(), Ordering::Release);
    }
}

#[inline]
fn allowed(table: &Table, gfn: Gfn) -> Rights {
    match usize::try_from(gfn.0).ok().and_then(|at| table.get(at)) {
        Some(frame) => Rights::from_bits(frame.load(Ordering::Acquire)),
        None => Rights::NONE,
    }
}
