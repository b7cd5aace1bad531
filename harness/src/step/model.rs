//! Where one is in a trace.

use super::hunt::{Goal, Hunt};
use super::moment::{Moment, Scene};
use crate::guest::symbols::Symbols;
use crate::scenario::amount;
use crate::trace::condition::nanoseconds;
use crate::trace::row::{About, vcpu_of};
use mem_event::trace::{End, Header, Player, PlayerError, Step};
use mem_event::{Effect, Gfn, VcpuId};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read, Seek};

/// A trace, a position in it, and what one has marked.
#[derive(Debug)]
pub struct Model<R: Read + Seek = BufReader<File>> {
    player: Player<R>,
    symbols: Symbols,
    at: u64,
    moment: Moment,
    frame: Option<Gfn>,
    vcpu: Option<VcpuId>,
    bookmarks: BTreeSet<u64>,
    sought: Option<Goal>,
    hunt: Option<Hunt>,
    message: Option<String>,
}

impl<R: Read + Seek> Model<R> {
    /// At the first step.
    #[must_use]
    pub fn new(player: Player<R>) -> Model<R> {
        let symbols = Symbols::of_trace(player.header());
        let vcpus = player.header().config.vcpus;
        let after = Scene::of(player.domain(), vcpus, Gfn(0));
        let moment = Moment { step: Ok(None), before: None, after, applied: 0, stop: None };
        let mut model = Model {
            player,
            symbols,
            at: 0,
            moment,
            frame: None,
            vcpu: None,
            bookmarks: BTreeSet::new(),
            sought: None,
            hunt: None,
            message: None,
        };
        model.go(1);
        model
    }

    /// The same, with these names.
    #[must_use]
    pub fn with_names(self, symbols: Symbols) -> Model<R> {
        Model { symbols, ..self }
    }

    /// Steps in the trace.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.player.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.player.is_empty()
    }

    /// The number of the step at hand; 0 is before the first.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.at
    }

    /// The step at hand and the engine around it.
    #[must_use]
    pub fn moment(&self) -> &Moment {
        &self.moment
    }

    /// What the trace says of its run.
    #[must_use]
    pub fn header(&self) -> &Header {
        self.player.header()
    }

    /// How the trace ends.
    pub fn end(&mut self) -> &End {
        self.player.tape().end()
    }

    /// Names for addresses.
    #[must_use]
    pub fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The frame at hand: the one of the last step that had one, or that was chosen.
    #[must_use]
    pub fn frame(&self) -> Option<Gfn> {
        self.frame
    }

    /// The vCPU at hand: the one of the last step that had one.
    #[must_use]
    pub fn vcpu(&self) -> Option<VcpuId> {
        self.vcpu
    }

    /// What there is to say of any step, from 1, with names for its addresses.
    ///
    /// # Errors
    /// Where it is damaged, and for numbers that are no step's.
    pub fn words<T>(&mut self, number: u64, of: impl FnOnce(&Step, &Symbols) -> T) -> Result<T, End> {
        self.player.tape().step(number).map(|step| of(step, &self.symbols))
    }

    /// Goes to a step, at most the last; frame and vCPU at hand become the step's.
    pub fn go(&mut self, number: u64) {
        self.hunt = None;
        self.message = None;
        self.arrive(number);
    }

    /// Goes so many steps on, or back.
    pub fn go_by(&mut self, steps: i64) {
        self.go(self.at.saturating_add_signed(steps));
    }

    fn arrive(&mut self, number: u64) {
        self.at = number.min(self.len());
        let step = match self.at {
            0 => Ok(None),
            number => self.player.tape().step(number).map(|step| Some(step.clone())),
        };
        if let Ok(Some(step)) = &step {
            let (frame, vcpu) = at_hand(step);
            self.frame = frame.or(self.frame);
            self.vcpu = vcpu.or(self.vcpu);
        }
        self.look(step);
    }

    /// Brings the engine to the step at hand.
    fn look(&mut self, step: Result<Option<Step>, End>) {
        let mut before = None;
        let stop = match self.at {
            0 => self.player.seek(0).err(),
            number => self.player.seek(number - 1).err().or_else(|| {
                before = Some(self.scene());
                self.player.forward().err()
            }),
        };
        self.moment = Moment { step, before, after: self.scene(), applied: self.player.number(), stop };
    }

    fn scene(&self) -> Scene {
        let config = &self.player.header().config;
        let around = self.frame.or(config.ram.first().map(|(first, _)| *first));
        Scene::of(self.player.domain(), config.vcpus, around.unwrap_or_default())
    }

    /// Makes another frame the one at hand.
    pub fn choose_frame(&mut self, gfn: Gfn) {
        self.frame = Some(gfn);
        self.look(self.moment.step.clone());
    }

    /// A place as people write it: a step (`1234`), a part of the whole (`50%`), a time (`1.5ms`).
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn place(&mut self, text: &str) -> Result<u64, String> {
        let text = text.trim();
        let (len, none) = (self.len(), || format!("{text:?} is no step, part or time"));
        if let Some(part) = text.strip_suffix('%') {
            let part = amount::number(part.trim()).filter(|part| *part <= 100).ok_or_else(none)?;
            return Ok((u128::from(len) * u128::from(part) / 100).try_into().unwrap_or(len));
        }
        if let Some(number) = amount::number(text) {
            return if number <= len { Ok(number) } else { Err(format!("there are {len} steps")) };
        }
        let time = nanoseconds(text).ok_or_else(none)?;
        self.player.tape().step_at(time).map(|number| number.min(len)).map_err(|end| end.to_string())
    }

    /// Sets a bookmark on the step at hand, or takes it away.
    pub fn toggle_bookmark(&mut self) {
        if !self.bookmarks.remove(&self.at) {
            self.bookmarks.insert(self.at);
        }
    }

    /// The bookmarks, in order.
    #[must_use]
    pub fn bookmarks(&self) -> &BTreeSet<u64> {
        &self.bookmarks
    }

    /// Goes to the next bookmark, or the one before; round the ends.
    pub fn go_to_bookmark(&mut self, back: bool) {
        let marks = &self.bookmarks;
        let found = if back {
            marks.range(..self.at).next_back().or_else(|| marks.last())
        } else {
            marks.range(self.at + 1..).next().or_else(|| marks.first())
        };
        match found.copied() {
            Some(number) => self.go(number),
            None => self.say("no bookmark is set: m sets one"),
        }
    }

    /// Something to be told once.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Tells something until the next move.
    pub fn say(&mut self, text: impl Into<String>) {
        self.message = Some(text.into());
    }

    /// Begins to look for a step after the one at hand, or before it.
    pub fn hunt(&mut self, goal: Goal, back: bool) {
        if matches!(goal, Goal::Text(_) | Goal::Condition(..)) {
            self.sought = Some(goal.clone());
        }
        let next = if back { self.at.saturating_sub(1) } else { self.at + 1 };
        self.message = None;
        self.hunt = Some(Hunt { goal, back, next });
    }

    /// Looks once more for the text or condition that was looked for last.
    pub fn hunt_again(&mut self, back: bool) {
        match self.sought.clone() {
            Some(goal) => self.hunt(goal, back),
            None => self.say("nothing was looked for yet: / looks for words, c for a condition"),
        }
    }

    /// The search that is under way.
    #[must_use]
    pub fn hunting(&self) -> Option<&Hunt> {
        self.hunt.as_ref()
    }

    /// Ends the search without going anywhere.
    pub fn give_up(&mut self) {
        if let Some(hunt) = self.hunt.take() {
            self.say(format!("given up at step {}", hunt.next));
        }
    }

    /// Goes on with the search that is under way, by at most so many steps; where it finds, the position moves there.
    pub fn advance(&mut self, steps: u64) {
        let Some(mut hunt) = self.hunt.take() else { return };
        for _ in 0..steps {
            if hunt.next == 0 || hunt.next > self.len() {
                let side = if hunt.back { "before" } else { "after" };
                self.say(format!("no step {side} {} fits {}", self.at, hunt.goal));
                return;
            }
            let fits = match (&hunt.goal, self.player.tape().step(hunt.next)) {
                (_, Err(end)) => {
                    self.say(end.to_string());
                    return;
                }
                (Goal::Difference, Ok(_)) => match self.player.seek(hunt.next) {
                    Ok(()) => false,
                    Err(stop) => {
                        // It may lie before the step at hand.
                        hunt.next = step_of(&stop).unwrap_or(hunt.next);
                        true
                    }
                },
                (goal, Ok(step)) => goal.fits(hunt.next, step, &self.symbols),
            };
            if fits {
                self.found(&hunt);
                return;
            }
            hunt.next = if hunt.back { hunt.next - 1 } else { hunt.next + 1 };
        }
        self.hunt = Some(hunt);
    }

    fn found(&mut self, hunt: &Hunt) {
        let (frame, vcpu) = (self.frame, self.vcpu);
        self.arrive(hunt.next);
        // Who walks along a frame keeps it, whatever else the step is about.
        match hunt.goal {
            Goal::Frame(gfn) if self.frame != frame => self.choose_frame(gfn),
            Goal::Vcpu(_) => self.vcpu = vcpu,
            _ => {}
        }
    }
}

/// The step at which an engine stopped, where it is a step's matter.
fn step_of(stop: &PlayerError) -> Option<u64> {
    match stop {
        PlayerError::Failure(failure) => Some(failure.step()),
        PlayerError::End(_) | PlayerError::NoDomain(_) => None,
    }
}

/// The frame and the vCPU that a step is about: its input's, else those of its first request or answer.
fn at_hand(step: &Step) -> (Option<Gfn>, Option<VcpuId>) {
    let about = About::of(&step.input);
    let (mut gfn, mut vcpu) = (about.gfn, about.vcpu.map(VcpuId));
    for effect in &step.effects.list {
        let request = match effect {
            Effect::Requested { request, .. } => Some(*request),
            Effect::Answered { response, .. } => response.echo(),
            _ => None,
        };
        gfn = gfn.or(request.as_ref().and_then(|request| request.frame()));
        vcpu = vcpu.or(request.as_ref().and_then(vcpu_of));
    }
    (gfn, vcpu)
}
