//! Frames that show others' memory in a view, and frames beyond RAM for them to show.

use crate::altp2m::View;
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::errno::Errno;
use crate::number::{Gfn, ViewId};
use crate::p2m::{P2m, P2mType};

/// So many frames beyond its RAM a domain has at most: 256 MiB.
const MOST: usize = 1 << 16;

impl Domain {
    /// Whether it is a frame beyond RAM that a consumer has given the domain.
    #[must_use]
    pub fn is_beyond_ram(&self, gfn: Gfn) -> bool {
        self.beyond.has(gfn)
    }

    /// `Control::Populate` of a frame beyond RAM.
    pub(crate) fn populate_beyond(&mut self, gfn: Gfn) -> Outcome {
        if gfn.0 >= P2m::LARGEST {
            return Outcome::Refused(Errno::EINVAL, format!("frame {gfn} is above {:#x}", P2m::LARGEST - 1));
        }
        if self.beyond.has(gfn) {
            return Outcome::Refused(Errno::EBUSY, format!("frame {gfn} is there already"));
        }
        if self.beyond.count() >= MOST {
            return Outcome::Refused(Errno::ENOMEM, format!("the domain has {MOST} frames beyond its RAM"));
        }
        self.beyond.add(gfn);
        Outcome::Proceed
    }

    /// `Control::Drop` of such a frame. What views say of it as one of theirs goes with it.
    pub(crate) fn drop_beyond(&mut self, gfn: Gfn, effects: &mut Effects) -> Outcome {
        if self.beyond.pins(gfn) != Some(0) {
            return Outcome::Refused(Errno::EBUSY, format!("frame {gfn} is mapped, or shown in a view"));
        }
        self.shows_its_own_everywhere(gfn);
        self.beyond.remove(gfn);
        effects.list.push(Effect::Punch(gfn));
        Outcome::Proceed
    }

    /// `Control::ChangeGfn`, as `p2m_change_altp2m_gfn`: the frame gets the rights of the one that it shows, and one that shows another itself
    /// leads to that.
    pub(crate) fn change_gfn(&mut self, view: ViewId, old: Gfn, new: Gfn, effects: &mut Effects) -> Outcome {
        if let Err(refused) = self.existing_view(view) {
            return refused;
        }
        let Some(settings) = self.p2m.views().and_then(|views| views.get(view)) else {
            return Outcome::Refused(Errno::EINVAL, "view 0 is the host's, where each frame shows its own".to_owned());
        };
        let (shown, access) = (settings.shown(new.0).unwrap_or(new), settings.get(new.0));
        let other = (new != Gfn::INVALID).then_some((shown, access));
        if let Some((other, _)) = other {
            if let Some(missing) = [old, other].into_iter().find(|gfn| !self.is_ordinary(*gfn)) {
                return Outcome::Refused(Errno::ESRCH, format!("frame {missing} is no ordinary memory"));
            }
            if !self.p2m.is_shown(other)
                && let refused @ Outcome::Refused(..) = self.holds(other)
            {
                return refused;
            }
        }
        let before = self.p2m.passing_in(view, old);
        if let Some(left) = self.p2m.show(view, old, other) {
            self.lets_go_where_not_shown(left);
        }
        if self.is_active(view) && !self.p2m.passing_in(view, old).contains(before) {
            effects.list.push(Effect::Tighten { first: old, count: 1 });
        }
        Outcome::Proceed
    }

    /// Whether a frame's memory is there and nobody's but its own.
    fn is_ordinary(&self, gfn: Gfn) -> bool {
        self.p2m.get(gfn).kind == P2mType::RamRw || self.beyond.has(gfn)
    }

    /// A frame that views may say something of is about to go.
    fn shows_its_own_everywhere(&mut self, gfn: Gfn) {
        for view in ViewId::all() {
            if let Some(left) = self.p2m.show(view, gfn, None) {
                self.lets_go_where_not_shown(left);
            }
        }
    }

    /// What these views show is theirs no more.
    pub(crate) fn lets_go_of_shown(&mut self, views: Vec<ViewId>) {
        for view in views {
            let settings = self.p2m.views().and_then(|it| it.get(view)).map(View::settings);
            let frames: Vec<u64> = settings.into_iter().flat_map(|it| it.shown.keys().copied()).collect();
            for gfn in frames {
                if let Some(left) = self.p2m.show(view, Gfn(gfn), None) {
                    self.lets_go_where_not_shown(left);
                }
            }
        }
    }

    /// A frame that a view showed may go, unless another one shows it.
    fn lets_go_where_not_shown(&mut self, gfn: Gfn) {
        if !self.p2m.is_shown(gfn) {
            let _ = self.unpin(gfn);
        }
    }
}
