//! Alternate p2ms: the tables of rights that a domain has beside the host's, and how many vCPUs go by each.
//!
//! A view holds what was set of it, and a default for all other frames. The frames themselves, their types and their memory, are the host's; but
//! in a view a frame may show another one's memory.

use crate::number::{Gfn, MOST_VIEWS, ViewId};
use crate::rights::{AccessType, Rights};
use bincode::{Decode, Encode};
use std::collections::{BTreeMap, BTreeSet};

const COUNT: usize = MOST_VIEWS as usize;

/// How many frames can do less than others.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Watched {
    /// Those whose access type is not `Rwx`.
    pub any: u64,
    /// Those of them that may not be executed.
    pub unexecutable: u64,
    /// Those of them that may be written and not read.
    pub write_only: u64,
}

impl Watched {
    /// Both together.
    pub fn plus(self, other: Watched) -> Watched {
        Watched {
            any: self.any + other.any,
            unexecutable: self.unexecutable + other.unexecutable,
            write_only: self.write_only + other.write_only,
        }
    }

    /// So many frames more, or less, have this access type.
    pub fn count(&mut self, access: AccessType, by: i64) {
        let rights = access.rights();
        let when = |is: bool| if is { by } else { 0 };
        self.any = self.any.wrapping_add_signed(when(access != AccessType::Rwx));
        self.unexecutable = self.unexecutable.wrapping_add_signed(when(!rights.contains(Rights::X)));
        let write_only = rights.contains(Rights::W) && !rights.contains(Rights::R);
        self.write_only = self.write_only.wrapping_add_signed(when(write_only));
    }
}

/// What a view says, as it is kept in a trace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Settings {
    /// Of frames of which nothing else was set.
    pub default: AccessType,
    /// By the frame's number.
    pub own: BTreeMap<u64, AccessType>,
    /// Frames that show the memory of others.
    pub shown: BTreeMap<u64, u64>,
}

/// A view beside the host's.
#[derive(Clone, Debug)]
pub(crate) struct View {
    settings: Settings,
    watched: Watched,
}

impl View {
    pub fn new(settings: Settings) -> View {
        let mut watched = Watched::default();
        settings.own.values().for_each(|access| watched.count(*access, 1));
        View { settings, watched }
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    pub fn get(&self, gfn: u64) -> AccessType {
        self.settings.own.get(&gfn).copied().unwrap_or(self.settings.default)
    }

    pub fn set(&mut self, gfn: u64, access: AccessType) {
        if let Some(before) = self.settings.own.insert(gfn, access) {
            self.watched.count(before, -1);
        }
        self.watched.count(access, 1);
    }

    /// The frame whose memory this one shows, where that is another's.
    pub fn shown(&self, gfn: u64) -> Option<Gfn> {
        self.settings.shown.get(&gfn).copied().map(Gfn)
    }

    /// A frame shows another one's memory from now on, or its own; which one it showed.
    pub fn show(&mut self, gfn: u64, other: Option<Gfn>) -> Option<Gfn> {
        let before = match other {
            Some(other) => self.settings.shown.insert(gfn, other.0),
            None => self.settings.shown.remove(&gfn),
        };
        before.map(Gfn)
    }

    /// Nothing is set of a frame any more.
    pub fn unset(&mut self, gfn: u64) {
        if let Some(before) = self.settings.own.remove(&gfn) {
            self.watched.count(before, -1);
        }
    }

    pub fn set_default(&mut self, access: AccessType) {
        self.settings.default = access;
    }

    /// How many frames can do less than others: at least one, where all are by default. One that shows another's memory does so by no access that
    /// passes unseen.
    pub fn watched(&self) -> Watched {
        let shown = self.settings.shown.len() as u64;
        let mut watched = self.watched.plus(Watched { any: shown, unexecutable: shown, write_only: 0 });
        watched.count(self.settings.default, 1);
        watched
    }
}

/// The views of a domain that has some. Number 0 is the host's, of which nothing stands here.
#[derive(Clone, Debug)]
pub(crate) struct Views {
    list: [Option<View>; COUNT],
    /// How many vCPUs go by each.
    vcpus: [u32; COUNT],
}

impl Views {
    /// All of so many vCPUs go by the host's.
    pub fn new(vcpus: u32) -> Views {
        let mut views = Views { list: [const { None }; COUNT], vcpus: [0; COUNT] };
        views.vcpus[0] = vcpus;
        views
    }

    pub fn has(&self, view: ViewId) -> bool {
        view.0 == 0 || self.get(view).is_some()
    }

    /// One beside the host's.
    pub fn get(&self, view: ViewId) -> Option<&View> {
        self.list.get(usize::from(view.0))?.as_ref()
    }

    pub fn get_mut(&mut self, view: ViewId) -> Option<&mut View> {
        self.list.get_mut(usize::from(view.0))?.as_mut()
    }

    /// The lowest number beside the host's that no view has.
    pub fn free(&self) -> Option<ViewId> {
        ViewId::all().skip(1).find(|view| self.get(*view).is_none())
    }

    pub fn put(&mut self, view: ViewId, new: Option<View>) {
        if let Some(place) = self.list.get_mut(usize::from(view.0)) {
            *place = new;
        }
    }

    /// Whether a vCPU goes by it.
    pub fn is_active(&self, view: ViewId) -> bool {
        self.vcpus.get(usize::from(view.0)).is_some_and(|count| *count > 0)
    }

    /// A vCPU goes by another one.
    pub fn moves(&mut self, from: ViewId, to: ViewId) {
        self.vcpus[usize::from(from.0)] -= 1;
        self.vcpus[usize::from(to.0)] += 1;
    }

    /// The frame whose memory another one shows in a view.
    pub fn shown(&self, view: ViewId, gfn: u64) -> Option<Gfn> {
        self.get(view)?.shown(gfn)
    }

    /// Whether a frame's memory is shown by another one in any view.
    pub fn is_shown(&self, gfn: Gfn) -> bool {
        self.list.iter().flatten().any(|view| view.settings.shown.values().any(|other| *other == gfn.0))
    }

    /// All that there are, with what each says of a frame of which the host's says this.
    pub fn of(&self, gfn: u64, host: AccessType) -> impl Iterator<Item = (ViewId, AccessType)> {
        let access = move |view: ViewId| if view.0 == 0 { Some(host) } else { self.get(view).map(|it| it.get(gfn)) };
        ViewId::all().filter_map(move |view| Some((view, access(view)?)))
    }

    /// The frames of which two of them may say different things; `None` for any.
    pub fn differing(&self, views: [ViewId; 2], is_host_watched: bool) -> Option<BTreeSet<u64>> {
        let [one, other] = views.map(|view| self.default_of(view, is_host_watched));
        if one? != other? {
            return None;
        }
        Some(views.iter().filter_map(|view| self.get(*view)).flat_map(|it| it.settings.own.keys().copied()).collect())
    }

    fn default_of(&self, view: ViewId, is_host_watched: bool) -> Option<AccessType> {
        match self.get(view) {
            Some(view) => Some(view.settings.default),
            None => Some(AccessType::Rwx).filter(|_| !is_host_watched),
        }
    }

    /// The frames that can do less than others, in any.
    pub fn watched(&self) -> Watched {
        self.list.iter().flatten().map(View::watched).fold(Watched::default(), Watched::plus)
    }

    /// What they say, by number.
    pub fn settings(&self) -> Vec<Option<Settings>> {
        self.list.iter().map(|view| view.as_ref().map(|view| view.settings().clone())).collect()
    }
}
