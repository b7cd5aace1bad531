//! The list of steps around the one at hand, and the bookmarks.

use super::model::Model;
use super::style::Theme;
use crate::guest::symbols::Symbols;
use crate::trace::row::{self, About, Row};
use mem_event::trace::Step;
use mem_event::{Effect, Outcome, WaitReason};
use ratatui::text::Line;
use std::io::{Read, Seek};

/// So many lines with the step at hand in the middle; the number, then `>` for the step at hand, `m` for a bookmark, `!` for
/// a step that went wrong.
pub fn lines<R: Read + Seek>(model: &mut Model<R>, rows: u16, theme: Theme) -> Vec<Line<'static>> {
    let (at, rows) = (model.at(), u64::from(rows));
    // Before the first step there is a line too.
    let first = at.saturating_sub(rows / 2).min((model.len() + 1).saturating_sub(rows));
    let last = (first + rows).min(model.len() + 1);
    (first..last).map(|number| line(model, number, theme)).collect()
}

/// A line for each bookmark.
pub fn bookmarks<R: Read + Seek>(model: &mut Model<R>, theme: Theme) -> Vec<Line<'static>> {
    let marks: Vec<u64> = model.bookmarks().iter().copied().collect();
    if marks.is_empty() {
        return vec![Line::raw("none: m sets one on the step at hand, ' goes to the next, \" to the one before")];
    }
    marks.into_iter().map(|number| line(model, number, theme)).collect()
}

fn line<R: Read + Seek>(model: &mut Model<R>, number: u64, theme: Theme) -> Line<'static> {
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
    Line::styled(format!("{signs}{number:>width$} {text}"), style)
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
