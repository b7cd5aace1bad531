//! The list of steps around the one at hand, and the bookmarks.

use super::model::Model;
use super::style::Theme;
use crate::guest::symbols::Symbols;
use crate::trace::row::{self, About, Row};
use mem_event::trace::Step;
use mem_event::{Effect, Outcome, WaitReason};
use ratatui::text::Line;
use std::io::{Read, Seek};

/// So many steps of one kind in a row are one line.
const FOLDED: u64 = 4;
/// A run is followed so far.
const RUN: u64 = 4096;

/// So many lines with the step at hand in the middle; the number, then `>` for the step at hand, `m` for a bookmark, `!` for
/// a step that went wrong. A run of steps of one kind is one line: the first of them, the last, and how many they are.
pub fn lines<R: Read + Seek>(model: &mut Model<R>, rows: u16, theme: Theme) -> Vec<Line<'static>> {
    let (at, rows) = (model.at(), usize::from(rows));
    let (mut above, mut below) = (Vec::new(), Vec::new());
    let mut next = at;
    // Before the first step there is a line too.
    while above.len() < rows && next > 0 {
        let first = run(model, next - 1, false);
        above.push(folded(model, first, next - 1, theme));
        next = first;
    }
    next = at + 1;
    while below.len() < rows && next <= model.len() {
        let last = run(model, next, true);
        below.push(folded(model, next, last, theme));
        next = last + 1;
    }
    let up = above.len().min((rows / 2).max((rows.max(1) - 1).saturating_sub(below.len())));
    let here = line(model, at, "", theme);
    above.into_iter().take(up).rev().chain([here]).chain(below).take(rows).collect()
}

/// The other end of the run of steps of one kind that begins here, on or back; the step itself where there are few. Neither the step
/// at hand nor a bookmark is hidden in one.
fn run<R: Read + Seek>(model: &mut Model<R>, from: u64, on: bool) -> u64 {
    let is_apart =
        |model: &Model<R>, number: u64| number == 0 || number == model.at() || model.bookmarks().contains(&number);
    let kind_of = |model: &mut Model<R>, number: u64| model.words(number, |step, _| kind(step)).ok();
    if is_apart(model, from) {
        return from;
    }
    let wanted = kind_of(model, from);
    let mut end = from;
    for _ in 0..RUN {
        let next = if on { end + 1 } else { end - 1 };
        if next > model.len() || is_apart(model, next) || wanted.is_none() || kind_of(model, next) != wanted {
            break;
        }
        end = next;
    }
    if end.abs_diff(from) + 1 >= FOLDED { end } else { from }
}

/// What makes steps alike: who was told what, and what came of it, whatever the frame.
#[derive(PartialEq, Eq)]
struct Kind {
    name: String,
    vcpu: Option<u32>,
    outcome: std::mem::Discriminant<Outcome>,
    effects: Vec<std::mem::Discriminant<Effect>>,
}

fn kind(step: &Step) -> Kind {
    Kind {
        name: row::kind(&step.input),
        vcpu: About::of(&step.input).vcpu,
        outcome: std::mem::discriminant(&step.outcome),
        effects: step.effects.list.iter().map(std::mem::discriminant).collect(),
    }
}

/// A line for a run.
fn folded<R: Read + Seek>(model: &mut Model<R>, first: u64, last: u64, theme: Theme) -> Line<'static> {
    let count = last - first + 1;
    let many = if count > 1 { format!("to {last}, {count} steps: ") } else { String::new() };
    line(model, first, &many, theme)
}

/// A line for each bookmark.
pub fn bookmarks<R: Read + Seek>(model: &mut Model<R>, theme: Theme) -> Vec<Line<'static>> {
    let marks: Vec<u64> = model.bookmarks().iter().copied().collect();
    if marks.is_empty() {
        return vec![Line::raw("none: m sets one on the step at hand, ' goes to the next, \" to the one before")];
    }
    marks.into_iter().map(|number| line(model, number, "", theme)).collect()
}

/// The line of a step, with what comes before its words.
fn line<R: Read + Seek>(model: &mut Model<R>, number: u64, many: &str, theme: Theme) -> Line<'static> {
    let is_at = model.at() == number;
    let stopped = is_at && model.moment().stop.is_some();
    let width = model.len().to_string().len();
    let (text, bad) = match number {
        0 => ("before the first step".to_owned(), false),
        _ => {
            let said = model.words(number, |step, symbols| (brief(step, symbols), is_bad(step)));
            said.unwrap_or_else(|end| (end.to_string(), true))
        }
    };
    let bad = bad || stopped;
    let mark = if model.bookmarks().contains(&number) { 'm' } else { ' ' };
    let signs = format!("{}{mark}{}", if is_at { '>' } else { ' ' }, if bad { '!' } else { ' ' });
    let style = if bad { theme.bad() } else { ratatui::style::Style::new() };
    let style = if is_at { style.patch(theme.cursor()) } else { style };
    Line::styled(format!("{signs}{number:>width$} {many}{text}"), style)
}

fn is_bad(step: &Step) -> bool {
    let crash = |effect: &Effect| matches!(effect, Effect::Crash(_) | Effect::Broken(..));
    step.outcome == Outcome::Crashed || step.effects.list.iter().any(crash)
}

/// A step in few words: who, what, where; what came of it.
fn brief(step: &Step, symbols: &Symbols) -> String {
    let about = About::of(&step.input);
    let mut parts = Vec::new();
    parts.extend(about.vcpu.map(|vcpu| format!("v{vcpu}")));
    parts.push(row::kind(&step.input));
    parts.extend(about.ring.map(|ring| ring.to_string()));
    parts.extend(about.gfn.map(|gfn| gfn.to_string()));
    parts.extend(about.rights.map(|rights| rights.to_string()));
    let came = came(step);
    parts.extend(came);
    let Row { place, code, .. } = Row::new(0, step, symbols);
    parts.extend(place.map(|place| format!(" {place}")));
    parts.extend(code.filter(|_| about.rip != 0).map(|code| format!(" {code}")));
    parts.join(" ")
}

fn came(step: &Step) -> Vec<String> {
    let outcome = match &step.outcome {
        Outcome::Proceed => None,
        Outcome::Value(value) => Some(format!("= {value:#x}")),
        Outcome::Wait(WaitReason::Answer(_)) => Some("waits: answer".to_owned()),
        Outcome::Wait(WaitReason::Slot(_)) => Some("waits: slot".to_owned()),
        Outcome::Wait(WaitReason::Consumer(_)) => Some("waits: consumer".to_owned()),
        Outcome::Wait(WaitReason::Frame) => Some("waits: frame".to_owned()),
        Outcome::Retry(errno) => Some(format!("retry {errno}")),
        Outcome::Refused(errno, _) => Some(errno.to_string()),
        Outcome::Crashed => Some("crashed".to_owned()),
        Outcome::Skip => Some("denied".to_owned()),
        Outcome::Alone => Some("alone".to_owned()),
    };
    let effects: Vec<String> = step.effects.list.iter().filter_map(effect).collect();
    let none = outcome.is_none() && effects.is_empty();
    let outcome = outcome.or_else(|| none.then(|| "ok".to_owned()));
    outcome.into_iter().chain((!effects.is_empty()).then(|| effects.join(", "))).collect()
}

/// An effect in few words; none where the outcome has said it.
fn effect(effect: &Effect) -> Option<String> {
    match effect {
        Effect::Requested { .. } | Effect::Notify(_) => None,
        Effect::Answered { response, .. } => Some(format!("answers v{} {:#x}", response.vcpu, response.subject())),
        Effect::Wake(vcpu) => Some(format!("wakes v{vcpu}")),
        Effect::Tighten { .. } => Some("tighten".to_owned()),
        Effect::Crash(_) => Some("CRASH".to_owned()),
        Effect::Broken(ring, _) => Some(format!("{ring} BROKEN")),
        other => Some(row::effect(other)),
    }
}
