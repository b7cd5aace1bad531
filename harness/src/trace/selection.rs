//! Which steps of a trace are wanted.

use super::condition::{Condition, nanoseconds};
use super::progress::Progress;
use super::row::{self, About, Row};
use super::story::Story;
use crate::guest::symbols::Symbols;
use crate::refusal::{Refusal, nearest};
use crate::scenario::amount;
use crate::scenario::range::Frames;
use clap::Args;
use mem_event::trace::{End, Step, Tape};
use mem_event::{Control, Effect, Gfn, Input, Ring, VcpuId};
use std::collections::HashMap;
use std::path::PathBuf;

/// Filters; a step must pass all that are given.
#[derive(Clone, Debug, Default, Args)]
pub struct Filters {
    /// Steps that concern this vCPU: its own, and those that wake it or carry its requests.
    #[arg(long, value_name = "N")]
    pub vcpu: Option<u32>,
    /// Steps that concern these frames: a range (0x100..0x110, gpa:0x1000-0x1fff) or a symbol.
    #[arg(long, value_name = "RANGE")]
    pub gfn: Option<String>,
    /// The kernel that the guest ran, with whose names addresses are shown: its vmlinux, bzImage, System.map or output of /proc/kallsyms.
    #[arg(long, value_name = "FILE")]
    pub symbols: Option<PathBuf>,
    /// Steps that concern this ring: paging, access or sharing.
    #[arg(long)]
    pub ring: Option<String>,
    /// Steps of this kind: access, kick, set-access, cr3, … Several are separated by commas.
    #[arg(long)]
    pub kind: Option<String>,
    /// From one step or time to another, both included: 100..200, 1ms..2.5ms, ..50, 3s..
    #[arg(long, value_name = "FROM..TO")]
    pub between: Option<String>,
    /// A condition: `vcpu == 1 and gfn >= 0x500`, `wait > 2ms`. Fields: step, time, wait, vcpu, gfn, offset, rip, ring, kind, rights,
    /// outcome, effects.
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,
}

/// Filters that are understood.
#[derive(Debug)]
pub struct Selection {
    vcpu: Option<u32>,
    frames: Option<Frames>,
    ring: Option<Ring>,
    kinds: Vec<String>,
    condition: Option<Condition>,
    /// The first and the last step.
    first: u64,
    last: u64,
    waits: HashMap<u64, u64>,
}

impl Selection {
    /// Understands the filters for a trace.
    ///
    /// # Errors
    /// What is wrong with one of them; a trace that cannot be read where it must be for it.
    pub fn new(filters: &Filters, tape: &mut Tape, symbols: &Symbols) -> anyhow::Result<Selection> {
        let frames = filters.gfn.as_deref().map(|text| Frames::parse(text, symbols)).transpose()?;
        let ring = filters.ring.as_deref().map(ring).transpose()?;
        let condition = filters.condition.as_deref().map(Condition::parse).transpose()?;
        let (first, last) = filters.between.as_deref().map_or(Ok((1, tape.len())), |text| between(text, tape))?;
        let kinds = filters.kind.iter().flat_map(|text| text.split(',')).map(kind).collect::<Result<_, _>>()?;
        let waits = match &condition {
            Some(condition) if condition.asks_for_waits() => waits(tape)?,
            _ => HashMap::new(),
        };
        Ok(Selection { vcpu: filters.vcpu, frames, ring, kinds, condition, first, last, waits })
    }

    /// The numbers of the steps that may be wanted.
    #[must_use]
    pub fn numbers(&self) -> std::ops::RangeInclusive<u64> {
        self.first..=self.last
    }

    /// The row of a step that is wanted.
    #[must_use]
    pub fn row(&self, number: u64, step: &Step, symbols: &Symbols) -> Option<Row> {
        if !self.passes(step) {
            return None;
        }
        let row = Row::new(number, step, symbols);
        self.holds(&row).then_some(row)
    }

    /// Whether a step is wanted. Its words are made only where a condition asks for them: there are many steps.
    #[must_use]
    pub fn wants(&self, number: u64, step: &Step, symbols: &Symbols) -> bool {
        self.passes(step) && (self.condition.is_none() || self.holds(&Row::new(number, step, symbols)))
    }

    fn holds(&self, row: &Row) -> bool {
        self.condition.as_ref().is_none_or(|it| it.holds(row, self.waits.get(&row.step).copied()))
    }

    fn passes(&self, step: &Step) -> bool {
        let concerned = Concerned::of(step);
        let passes = self.kinds.is_empty() || self.kinds.contains(&row::kind(&step.input));
        passes
            && self.vcpu.is_none_or(|vcpu| concerned.vcpu(vcpu))
            && self.ring.is_none_or(|ring| concerned.ring(ring))
            && self.frames.is_none_or(|frames| concerned.frames(frames))
    }
}

/// What a step concerns: by its input, its requests and answers, and whom it wakes.
#[derive(Clone, Copy, Debug)]
pub struct Concerned<'a> {
    about: About,
    step: &'a Step,
}

impl Concerned<'_> {
    /// Of this step.
    #[must_use]
    pub fn of(step: &Step) -> Concerned<'_> {
        Concerned { about: About::of(&step.input), step }
    }

    /// Whether it concerns this frame.
    #[must_use]
    pub fn frame(&self, gfn: Gfn) -> bool {
        self.frames(Frames { first: gfn, count: 1 })
    }

    fn effects(&self, concerns: impl Fn(&Effect) -> bool) -> bool {
        self.step.effects.list.iter().any(concerns)
    }

    /// Whether it concerns this vCPU.
    #[must_use]
    pub fn vcpu(&self, vcpu: u32) -> bool {
        self.about.vcpu == Some(vcpu)
            || self.effects(|effect| match effect {
                Effect::Wake(woken) => woken.0 == vcpu,
                Effect::Requested { request, .. } => row::vcpu_of(request) == Some(VcpuId(vcpu)),
                Effect::Answered { response, .. } => {
                    response.echo().and_then(|it| row::vcpu_of(&it)) == Some(VcpuId(vcpu))
                }
                _ => false,
            })
    }

    fn ring(&self, wanted: Ring) -> bool {
        self.about.ring == Some(wanted)
            || self.effects(|effect| match effect {
                Effect::Requested { ring, .. }
                | Effect::Answered { ring, .. }
                | Effect::Lost { ring, .. }
                | Effect::Notify(ring)
                | Effect::Closed(ring)
                | Effect::Broken(ring, _) => *ring == wanted,
                _ => false,
            })
    }

    fn frames(&self, frames: Frames) -> bool {
        let end = frames.first.0.saturating_add(frames.count);
        let meets = |first: Gfn, count: u64| first.0 < end && frames.first.0 < first.0.saturating_add(count);
        let inputs = match self.step.input {
            Input::Control(Control::SetAccess { first, count, .. } | Control::SetViewAccess { first, count, .. })
            | Input::Unpopulated { first, count } => meets(first, count),
            Input::Control(Control::Share { source, client, .. }) => meets(source, 1) || meets(client, 1),
            _ => self.about.gfn.is_some_and(|gfn| meets(gfn, 1)),
        };
        inputs
            || self.effects(|effect| match effect {
                Effect::Requested { request, .. } => request.frame().is_some_and(|gfn| meets(gfn, 1)),
                Effect::Answered { response, .. } => {
                    response.echo().and_then(|request| request.frame()).is_some_and(|gfn| meets(gfn, 1))
                }
                Effect::Unmap(gfn) | Effect::Map(gfn) | Effect::Punch(gfn) | Effect::Fill(gfn) | Effect::Zero(gfn) => {
                    meets(*gfn, 1)
                }
                _ => false,
            })
    }
}

fn ring(text: &str) -> Result<Ring, Refusal> {
    let names: Vec<String> = Ring::ALL.iter().map(Ring::to_string).collect();
    let known = names.iter().map(String::as_str);
    let none = || unknown("ring", text, known, "write paging, access or sharing");
    Ring::ALL.into_iter().find(|ring| ring.to_string() == text).ok_or_else(none)
}

fn kind(text: &str) -> Result<String, Refusal> {
    let text = text.trim();
    let known = Input::kinds();
    let all = || unknown("kind of step", text, known.iter().copied(), &format!("kinds are {}", known.join(", ")));
    known.contains(&text).then(|| text.to_owned()).ok_or_else(all)
}

/// What is none of those that are known, with the nearest of them.
fn unknown<'a>(what: &str, text: &str, known: impl Iterator<Item = &'a str>, forms: &str) -> Refusal {
    let near = nearest(text, known);
    let meant = near.first().map(|name| format!("did you mean {name}? ")).unwrap_or_default();
    Refusal::usage(format!("{text:?} is no {what}"), format!("{meant}{forms}"))
}

fn between(text: &str, tape: &mut Tape) -> anyhow::Result<(u64, u64)> {
    let forms = "write FROM..TO: steps (100..200), times (1ms..2.5ms), or one side only (..50)";
    let wrong = |why: String| Refusal::usage(format!("between {text:?}: {why}"), forms);
    let (from, to) = text.split_once("..").ok_or_else(|| wrong("there is no ..".into()))?;
    if let (Some(from), Some(to)) = (amount::number(from), amount::number(to))
        && to < from
    {
        return Err(wrong("it ends before it begins".into()).into());
    }
    let mut place = |part: &str| -> anyhow::Result<(u64, bool)> {
        if let Some(number) = amount::number(part) {
            return Ok((number, false));
        }
        let time = nanoseconds(part).ok_or_else(|| wrong(format!("{part:?} is neither a step nor a time")))?;
        Ok((tape.step_at(time)?, true))
    };
    let first = if from.is_empty() { 1 } else { place(from)?.0.max(1) };
    let last = match to {
        "" => u64::MAX,
        // The last step before that time.
        to => match place(to)? {
            (number, true) => number.saturating_sub(1),
            (number, false) => number,
        },
    };
    Ok((first, last.min(tape.len())))
}

fn waits(tape: &mut Tape) -> Result<HashMap<u64, u64>, End> {
    let (mut story, mut waits, mut last) = (Story::default(), HashMap::new(), 0);
    let progress = Progress::new("steps for their waits", tape.len());
    for number in 1..=tape.len() {
        progress.at(number);
        let step = tape.step(number)?;
        last = step.time;
        story.step(number, step);
        waits.extend(story.waits.drain(..).map(|wait| (wait.step, wait.length(last))));
    }
    progress.end();
    story.finish();
    waits.extend(story.waits.iter().map(|wait| (wait.step, wait.length(last))));
    Ok(waits)
}

#[cfg(test)]
mod tests {
    use super::{kind, ring};
    use mem_event::Ring;

    #[test]
    fn a_filter_that_is_written_wrongly_says_what_is_near() {
        assert_eq!(ring("paging").unwrap(), Ring::Paging);
        assert_eq!(kind(" set-access").unwrap(), "set-access");
        for (refusal, near) in [
            (ring("acces").unwrap_err(), "did you mean access? write paging"),
            (kind("set-acces").unwrap_err(), "did you mean set-access? kinds are abandon, "),
            (kind("singlestep").unwrap_err(), "did you mean single-step? kinds are "),
            (kind("foreing").unwrap_err(), "did you mean foreign? kinds are "),
        ] {
            assert!(refusal.remedy.starts_with(near), "{refusal}");
        }
        assert!(ring("zzz").unwrap_err().remedy.starts_with("write paging"));
    }
}
