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
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockWriteGuard};

/// By view and frame: the frame whose memory is shown there, and what passes of it without the engine but for that.
type Shown = BTreeMap<(ViewId, Gfn), (Gfn, Rights)>;

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
    /// Whether any frame shows another one's memory: asked before the lock is taken.
    shows: AtomicBool,
    shown: RwLock<Shown>,
}

impl PublishedRights {
    pub(crate) fn new(frames: usize, vcpus: u32) -> PublishedRights {
        let active = (0..vcpus).map(|_| AtomicU8::new(NO_VIEW)).collect();
        PublishedRights {
            frames: table(frames),
            views: [const { OnceLock::new() }; MOST_VIEWS as usize],
            active,
            shows: AtomicBool::new(false),
            shown: RwLock::default(),
        }
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

    /// In a view a frame shows another one's memory, with these rights of its own, or no other's.
    pub(crate) fn show(&self, view: ViewId, gfn: Gfn, other: Option<(Gfn, Rights)>) {
        match other {
            Some(other) => {
                self.change_shown().insert((view, gfn), other);
                self.shows.store(true, Ordering::Release);
            }
            None if self.shows.load(Ordering::Relaxed) => {
                let mut shown = self.change_shown();
                shown.remove(&(view, gfn));
                self.shows.store(!shown.is_empty(), Ordering::Release);
            }
            None => {}
        }
    }

    /// In a view, or in all, no frame shows another one's memory.
    pub(crate) fn shows_nothing(&self, view: Option<ViewId>) {
        let mut shown = self.change_shown();
        shown.retain(|(of, _), _| view.is_some_and(|view| *of != view));
        self.shows.store(!shown.is_empty(), Ordering::Release);
    }

    fn change_shown(&self) -> RwLockWriteGuard<'_, Shown> {
        self.shown.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The frame whose memory another one shows to a vCPU, by its view, and what the vCPU may do with it without the engine; `None` where it shows
    /// its own.
    #[must_use]
    pub fn shown_to(&self, vcpu: VcpuId, gfn: Gfn) -> Option<(Gfn, Rights)> {
        if !self.shows.load(Ordering::Acquire) {
            return None;
        }
        let active = self.active.get(vcpu.0 as usize).map_or(NO_VIEW, |active| active.load(Ordering::Acquire));
        let shown = self.shown.read().unwrap_or_else(PoisonError::into_inner);
        shown.get(&(ViewId(active.into()), gfn)).copied()
    }

    /// Whether a frame shows another one's memory in any view.
    #[must_use]
    pub fn is_shown_otherwise(&self, gfn: Gfn) -> bool {
        self.shows.load(Ordering::Acquire)
            && self.shown.read().unwrap_or_else(PoisonError::into_inner).keys().any(|(_, frame)| *frame == gfn)
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

    /// Whether a frame may be closed to reads, now or when some vCPU goes by another view.
    #[must_use]
    pub fn may_be_unreadable(&self, gfn: Gfn) -> bool {
        let views = self.views.iter().filter_map(OnceLock::get);
        views.chain([&self.frames]).any(|table| !allowed(table, gfn).contains(Rights::R))
            || self.is_shown_otherwise(gfn)
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
