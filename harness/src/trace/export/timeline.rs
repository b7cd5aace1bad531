//! What the picture and the trace events are made of: the waits, requests and acts that a selection asks for, and how things stood meanwhile.

use super::frames::Frames;
use crate::guest::symbols::Symbols;
use crate::trace::progress::Progress;
use crate::trace::row::About;
use crate::trace::selection::Selection;
use crate::trace::story::{Exchange, Level, Story, Wait};
use mem_event::trace::{End, Header, Step, Tape};
use mem_event::{Effect, Input, Outcome};
use std::collections::{HashMap, HashSet};

/// Steps that are named of a wait at most.
const STEPS: usize = 12;

/// A wait, and the steps that belong to it.
#[derive(Clone, Debug)]
pub struct Waited {
    /// The wait.
    pub wait: Wait,
    /// Its first steps: what began it, what was done to its frame meanwhile; at last what ended it.
    pub steps: Vec<u64>,
}

/// An act of the toolstack or of a consumer.
#[derive(Clone, Debug)]
pub struct Act {
    /// Its step.
    pub step: u64,
    /// When.
    pub time: u64,
    /// Which operation.
    pub kind: &'static str,
    /// What it was about, and whether it was refused.
    pub about: String,
}

/// What a trace tells of a part of its time.
#[derive(Debug)]
pub struct Timeline {
    /// The trace's header.
    pub header: Header,
    /// Its symbols.
    pub symbols: Symbols,
    /// Steps that are selected.
    pub steps: u64,
    /// The time of the first and the last of them.
    pub span: (u64, u64),
    /// The time until which waits are known: what has not ended by then never did.
    pub last: u64,
    /// A part was asked for: the axis is that part's.
    pub is_part: bool,
    /// Waits that lasted within that time.
    pub waits: Vec<Waited>,
    /// Requests that were out within that time.
    pub exchanges: Vec<Exchange>,
    /// How things stood, wherever it changed.
    pub levels: Vec<Level>,
    /// What the frames did.
    pub frames: Frames,
    /// Acts.
    pub acts: Vec<Act>,
}

/// The timeline so far.
struct Teller<'a> {
    selection: &'a Selection,
    timeline: Timeline,
    story: Story,
    /// Steps that are not asked for, as far as something began with them that lasts.
    unwanted: HashSet<u64>,
    /// The steps of each vCPU's wait.
    steps: HashMap<u32, Vec<u64>>,
    first: Option<u64>,
}

impl Timeline {
    /// What is selected of a trace. All steps up to the last of them are read: what lasts when the part begins began before. Where reading
    /// stopped, if it did.
    #[must_use]
    pub fn of(tape: &mut Tape, selection: &Selection, symbols: Symbols) -> (Timeline, Option<End>) {
        let header = tape.header().clone();
        let is_part = *selection.numbers().start() > 1 || *selection.numbers().end() < tape.len();
        let frames = Frames::new(&header.config);
        let timeline = Timeline {
            header,
            symbols,
            steps: 0,
            span: (0, 0),
            last: 0,
            is_part,
            waits: Vec::new(),
            exchanges: Vec::new(),
            levels: Vec::new(),
            frames,
            acts: Vec::new(),
        };
        let (unwanted, steps) = (HashSet::new(), HashMap::new());
        let mut teller = Teller { selection, timeline, story: Story::default(), unwanted, steps, first: None };
        let progress = Progress::new("steps", *selection.numbers().end());
        let mut ended = None;
        for number in 1..=tape.len() {
            // What lasts when the part ends may end later.
            if number > *selection.numbers().end() && !teller.waits_for_an_end() {
                break;
            }
            progress.at(number);
            match tape.step(number) {
                Ok(step) => teller.step(number, step),
                Err(end) => {
                    ended = Some(end);
                    break;
                }
            }
        }
        progress.end();
        (teller.end(), ended)
    }
}

impl Teller<'_> {
    fn step(&mut self, number: u64, step: &Step) {
        let is_within = self.selection.numbers().contains(&number);
        let is_wanted = self.selection.wants(number, step, &self.timeline.symbols);
        let begins = is_within && self.first.is_none();
        if begins {
            self.first = Some(step.time);
        }
        self.story.step(number, step);
        self.timeline.last = step.time;
        if !is_wanted && self.begins_with(number) {
            self.unwanted.insert(number);
        }
        self.timeline.frames.step(step, is_within);
        self.name_steps(number, step);
        self.take();
        if !is_within {
            return;
        }
        if begins {
            self.timeline.levels.push(Level { time: step.time, ..self.story.level });
        }
        self.level();
        if is_wanted {
            self.timeline.steps += 1;
            self.timeline.span = (self.first.unwrap_or(step.time), step.time);
            self.act(number, step);
        }
    }

    /// Whether something that lasts began with this step.
    fn begins_with(&self, number: u64) -> bool {
        self.story.waiting().iter().any(|wait| wait.step == number)
            || self.story.out().iter().any(|open| open.asked.0 == number)
    }

    /// Whether a wait of the part lasts.
    fn waits_for_an_end(&self) -> bool {
        self.story.waiting().iter().any(|wait| wait.step <= *self.selection.numbers().end())
    }

    fn level(&mut self) {
        let last = self.timeline.levels.last().copied().unwrap_or_default();
        if (Level { time: last.time, ..self.story.level }) != last {
            self.timeline.levels.push(self.story.level);
        }
    }

    fn act(&mut self, number: u64, step: &Step) {
        let Input::Control(control) = &step.input else { return };
        let about = match &step.outcome {
            Outcome::Refused(errno, _) => format!("{control}: {errno}"),
            _ => control.to_string(),
        };
        self.timeline.acts.push(Act { step: number, time: step.time, kind: control.name(), about });
    }

    /// The steps of the waits that last: their first, and what was asked, answered and done for their vCPUs and frames.
    fn name_steps(&mut self, number: u64, step: &Step) {
        let about = About::of(&step.input);
        let answers = |vcpu: u32| {
            let is_for = |effect: &Effect| matches!(effect, Effect::Answered { response, .. } if response.vcpu == vcpu);
            step.effects.list.iter().any(is_for)
        };
        for wait in self.story.waiting() {
            let steps = self.steps.entry(wait.vcpu).or_default();
            if wait.step == number {
                steps.clear();
            }
            let acts_on_it = matches!(step.input, Input::Control(_)) && about.gfn.is_some() && about.gfn == wait.gfn;
            if steps.len() < STEPS && (wait.step == number || acts_on_it || answers(wait.vcpu)) {
                steps.push(number);
            }
        }
    }

    /// What has ended. What ended before the part began is none of its.
    fn take(&mut self) {
        let is_before = self.timeline.is_part && self.first.is_none();
        let end = *self.selection.numbers().end();
        for wait in self.story.waits.drain(..) {
            let mut steps = self.steps.get(&wait.vcpu).cloned().unwrap_or_default();
            steps.extend(wait.end.map(|(step, _)| step));
            steps.dedup();
            if !is_before && wait.step <= end && !self.unwanted.contains(&wait.step) {
                self.timeline.waits.push(Waited { wait, steps });
            }
        }
        for exchange in self.story.exchanges.drain(..) {
            if !is_before && exchange.asked.0 <= end && !self.unwanted.contains(&exchange.asked.0) {
                self.timeline.exchanges.push(exchange);
            }
        }
    }

    fn end(mut self) -> Timeline {
        self.story.finish();
        self.take();
        self.timeline
    }
}
