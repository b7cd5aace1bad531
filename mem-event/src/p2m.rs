//! The type and the access rights of each guest frame.

use crate::altp2m::{Settings, View, Views, Watched};
use crate::number::{Gfn, ViewId};
use crate::published::PublishedRights;
use crate::rights::{AccessType, Rights};
use crate::table::table;
use bincode::{Decode, Encode};
use std::sync::Arc;

table! {
    /// What a guest frame is, with the numbers that Xen puts on the wire and the names of its source (`p2m_type_t` from af518d3ea1 on).
    #[derive(Default)]
    pub enum P2mType {
        /// Ordinary memory with a frame.
        #[default]
        RamRw = 0 "p2m_ram_rw",
        /// Nothing there: outside of RAM, or ballooned out.
        Invalid = 1 "p2m_invalid",
        /// Memory whose writes are logged.
        RamLogdirty = 2 "p2m_ram_logdirty",
        /// Memory that drops or faults writes.
        RamRo = 3 "p2m_ram_ro",
        /// Emulated device.
        MmioDm = 4 "p2m_mmio_dm",
        /// Passed-through device.
        MmioDirect = 5 "p2m_mmio_direct",
        /// Memory that was never touched: the first touch takes a frame from the budget.
        PopulateOnDemand = 6 "p2m_populate_on_demand",
        /// Grant mapping, writable.
        GrantMapRw = 7 "p2m_grant_map_rw",
        /// Grant mapping, read only.
        GrantMapRo = 8 "p2m_grant_map_ro",
        /// Nominated for eviction; the frame is still there.
        RamPagingOut = 9 "p2m_ram_paging_out",
        /// Evicted; the content is the pager's.
        RamPaged = 10 "p2m_ram_paged",
        /// Asked for; the pager has not answered yet.
        RamPagingIn = 11 "p2m_ram_paging_in",
        /// One frame shared by several guest frames, write-protected.
        RamShared = 12 "p2m_ram_shared",
        /// Broken memory.
        RamBroken = 13 "p2m_ram_broken",
    }
}

impl P2mType {
    /// Whether the pager has, or is about to have, the frame's content (`p2m_is_paging`).
    #[must_use]
    pub fn is_paging(self) -> bool {
        matches!(self, P2mType::RamPagingOut | P2mType::RamPaged | P2mType::RamPagingIn)
    }
}

/// What the p2m holds for one guest frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Entry {
    pub kind: P2mType,
    pub access: AccessType,
    /// Memory is behind the frame now.
    pub held: bool,
    /// The access type was chosen for this frame, so the domain's default does not replace it.
    pub chosen: bool,
    /// Foreign mappings; a pinned frame is neither nominated, evicted, shared nor dropped.
    pub pins: u8,
}

impl Entry {
    /// What every number outside of RAM reads as: a device's, and no event.
    const OUTSIDE: Entry =
        Entry { kind: P2mType::MmioDm, access: AccessType::Rwx, held: false, chosen: false, pins: 0 };

    const RAM: Entry = Entry { kind: P2mType::RamRw, held: true, ..Entry::OUTSIDE };

    pub fn is_ram(self) -> bool {
        self.kind != P2mType::MmioDm
    }

    /// Whether the pager has the content.
    pub fn is_paged_out(self) -> bool {
        self.kind.is_paging() && !self.held
    }

    /// The rights that pass without the engine.
    pub fn passing(self) -> Rights {
        self.passes(self.access.rights())
    }

    /// What of these rights passes without the engine.
    fn passes(self, rights: Rights) -> Rights {
        match self.kind {
            P2mType::RamRw if self.held => rights,
            P2mType::RamShared if self.held => rights.without(Rights::W),
            _ => Rights::NONE,
        }
    }
}

/// An entry as it lies in the table: four bytes, none of them across a cache line. Most of what a look-up costs is the wait
/// for this.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(4))]
struct Stored {
    kind: P2mType,
    access: AccessType,
    /// Bit 0 held, bit 1 chosen.
    bits: u8,
    pins: u8,
}

impl Stored {
    #[inline(always)]
    fn new(entry: Entry) -> Stored {
        let bits = u8::from(entry.held) | u8::from(entry.chosen) << 1;
        Stored { kind: entry.kind, access: entry.access, bits, pins: entry.pins }
    }

    #[inline(always)]
    fn entry(self) -> Entry {
        let Stored { kind, access, bits, pins } = self;
        Entry { kind, access, held: bits & 1 != 0, chosen: bits & 2 != 0, pins }
    }
}

/// The table itself: flat, one entry a frame number, and its published shadow.
#[derive(Debug)]
pub(crate) struct P2m {
    entries: Vec<Stored>,
    /// Frames that can do less than others, by the host's rights.
    watched: Watched,
    /// Frames with memory behind them.
    held: u64,
    /// Frames whose content the pager has.
    paged: u64,
    /// Tables of rights beside this one, where the domain has views.
    views: Option<Box<Views>>,
    published: Arc<PublishedRights>,
}

impl P2m {
    /// A table in which the given ranges are ordinary memory.
    ///
    /// # Errors
    /// A sentence, where the ranges are empty, out of order, overlap, or reach above [`P2m::LARGEST`] frames.
    pub fn new(ram: &[(Gfn, u64)], vcpus: u32) -> Result<P2m, String> {
        let mut end = 0;
        for (first, count) in ram {
            if *count == 0 || first.0 < end {
                return Err(format!("RAM range of {count} frames at {first}: empty, out of order or overlapping"));
            }
            end = first.0.checked_add(*count).filter(|end| *end <= P2m::LARGEST).ok_or_else(|| {
                format!("RAM range of {count} frames at {first} reaches above frame {:#x}", P2m::LARGEST)
            })?;
        }
        let size = usize::try_from(end).map_err(|_| "no room for the p2m on this host".to_string())?;
        let entries = vec![Stored::new(Entry::OUTSIDE); size];
        let mut p2m = P2m {
            entries,
            watched: Watched::default(),
            held: 0,
            paged: 0,
            views: None,
            published: Arc::new(PublishedRights::new(size, vcpus)),
        };
        for (first, count) in ram {
            for gfn in first.0..first.0 + count {
                p2m.set(Gfn(gfn), Entry::RAM);
            }
        }
        Ok(p2m)
    }

    /// Frame numbers stay below this: 256 GiB of guest-physical space.
    pub const LARGEST: u64 = 1 << 26;

    pub fn published(&self) -> &Arc<PublishedRights> {
        &self.published
    }

    /// Whether any frame's access type is not `Rwx`, in any view.
    pub fn is_watching(&self) -> bool {
        self.watched().any > 0
    }

    fn watched(&self) -> Watched {
        self.views.as_ref().map_or(self.watched, |views| self.watched.plus(views.watched()))
    }

    /// Frames with memory behind them.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Frames whose content the pager has, and that hold no memory.
    pub fn paged(&self) -> u64 {
        self.paged
    }

    fn count(&mut self, entry: Entry, by: i64) {
        let when = |is: bool| if is { by } else { 0 };
        self.watched.count(entry.access, by);
        self.held = self.held.wrapping_add_signed(when(entry.held));
        self.paged = self.paged.wrapping_add_signed(when(entry.is_paged_out()));
    }

    /// Whether any frame may be written and not read.
    pub fn is_watching_write_only(&self) -> bool {
        self.watched().write_only > 0
    }

    /// Whether any frame may not be executed.
    pub fn is_watching_execution(&self) -> bool {
        self.watched().unexecutable > 0
    }

    /// The number after the last frame's.
    pub fn end(&self) -> u64 {
        self.entries.len() as u64
    }

    #[inline]
    pub fn get(&self, gfn: Gfn) -> Entry {
        usize::try_from(gfn.0).ok().and_then(|at| self.entries.get(at)).map_or(Entry::OUTSIDE, |it| it.entry())
    }

    /// Replaces a frame's entry, counts it and publishes what it lets pass.
    pub fn set(&mut self, gfn: Gfn, entry: Entry) {
        let at = usize::try_from(gfn.0).unwrap_or(usize::MAX);
        assert!(at < self.entries.len(), "frame {gfn} has no p2m entry");
        let before = std::mem::replace(&mut self.entries[at], Stored::new(entry));
        self.count(entry, 1);
        self.count(before.entry(), -1);
        self.publish(gfn, entry);
    }

    #[inline]
    fn publish(&self, gfn: Gfn, entry: Entry) {
        match &self.views {
            None => self.published.publish(gfn, entry.passing()),
            Some(views) => self.publish_by_view(views, gfn, entry),
        }
    }

    #[cold]
    fn publish_by_view(&self, views: &Views, gfn: Gfn, entry: Entry) {
        let mut common = Rights::RWX;
        for (view, access) in views.of(gfn.0, entry.access) {
            let rights = entry.passes(access.rights());
            let shown = views.shown(view, gfn.0);
            self.published.show(view, gfn, shown.map(|other| (other, rights)));
            let passing = if shown.is_some() { Rights::NONE } else { rights };
            self.published.publish_in(view, gfn, passing);
            if views.is_active(view) {
                common = common.intersection(passing);
            }
        }
        self.published.publish(gfn, common);
    }

    /// The domain has views from now on, by the first of which all vCPUs go, or none any more.
    pub fn set_views(&mut self, views: Option<Views>) {
        self.views = views.map(Box::new);
        self.published.shows_nothing(None);
        self.republish();
    }

    pub fn views(&self) -> Option<&Views> {
        self.views.as_deref()
    }

    /// A view beside the host's begins or ends.
    pub fn put_view(&mut self, view: ViewId, settings: Option<Settings>) {
        if let Some(views) = &mut self.views {
            views.put(view, settings.map(View::new));
        }
        self.published.shows_nothing(Some(view));
        self.republish();
    }

    /// A vCPU goes by another view from now on. What all may do is to be published anew, of the frames of which the two say different things.
    pub fn moves(&mut self, vcpu: usize, from: ViewId, to: ViewId) {
        if let Some(views) = &mut self.views {
            views.moves(from, to);
        }
        self.published.activate(vcpu, self.views.as_ref().map(|_| to));
    }

    /// A vCPU goes by the rights that are its view's, or all vCPUs'.
    pub fn activate(&self, vcpu: usize, view: ViewId) {
        self.published.activate(vcpu, self.views.as_ref().map(|_| view));
    }

    /// Publishes what is said of all frames.
    pub fn republish(&self) {
        (0..self.end()).map(Gfn).for_each(|gfn| self.publish(gfn, self.get(gfn)));
    }

    /// Publishes what is said of one.
    pub fn republish_frame(&self, gfn: Gfn) {
        self.publish(gfn, self.get(gfn));
    }

    /// Whether the host's rights are less than all of any frame.
    pub fn is_host_watched(&self) -> bool {
        self.watched.any > 0
    }

    /// A frame's entry as a vCPU has it that goes by this view.
    pub fn get_in(&self, view: ViewId, gfn: Gfn) -> Entry {
        let entry = self.get(gfn);
        match self.views.as_ref().and_then(|views| views.get(view)) {
            Some(view) if entry.is_ram() => Entry { access: view.get(gfn.0), ..entry },
            _ => entry,
        }
    }

    /// What those may do with a frame without the engine that go by this view: nothing, where it shows another one's memory.
    pub fn passing_in(&self, view: ViewId, gfn: Gfn) -> Rights {
        match self.shown(view, gfn) {
            Some(_) => Rights::NONE,
            None => self.get_in(view, gfn).passing(),
        }
    }

    /// The frame whose memory another one shows in a view.
    pub fn shown(&self, view: ViewId, gfn: Gfn) -> Option<Gfn> {
        self.views.as_ref()?.shown(view, gfn.0)
    }

    /// Whether a frame's memory is shown by another one in any view.
    pub fn is_shown(&self, gfn: Gfn) -> bool {
        self.views.as_ref().is_some_and(|views| views.is_shown(gfn))
    }

    /// In a view a frame shows another one's memory from now on, with these rights, or its own with the view's; which one it showed.
    pub fn show(&mut self, view: ViewId, gfn: Gfn, other: Option<(Gfn, AccessType)>) -> Option<Gfn> {
        let entry = self.get(gfn);
        let view = self.views.as_mut()?.get_mut(view)?;
        let before = view.show(gfn.0, other.map(|(other, _)| other));
        match other {
            Some((_, access)) if entry.is_ram() => view.set(gfn.0, access),
            Some(_) => {}
            None => view.unset(gfn.0),
        }
        self.publish(gfn, entry);
        before
    }

    /// A frame's rights in a view.
    pub fn set_access_in(&mut self, view: ViewId, gfn: Gfn, access: AccessType) {
        let entry = self.get(gfn);
        match self.views.as_mut().and_then(|views| views.get_mut(view)) {
            Some(view) => {
                view.set(gfn.0, access);
                self.publish(gfn, entry);
            }
            None => self.set(gfn, Entry { access, ..entry }),
        }
    }

    /// The rights in a view of the frames of which nothing else was set there.
    pub fn set_default_in(&mut self, view: ViewId, access: AccessType) {
        if let Some(view) = self.views.as_mut().and_then(|views| views.get_mut(view)) {
            view.set_default(access);
        }
        self.republish();
    }

    /// What all vCPUs may do without the engine.
    pub fn common(&self, gfn: Gfn) -> Rights {
        self.published.allowed(gfn)
    }

    /// All entries, in order of their frames.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.entries.iter().map(|it| it.entry())
    }
}
