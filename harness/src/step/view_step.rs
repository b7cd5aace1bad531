//! The step at hand: what the engine was told, what it answered, what had to happen.

use super::model::Model;
use super::style::Theme;
use crate::trace::difference::{answer, diff};
use crate::trace::row::{Row, duration};
use mem_event::trace::{Failure, PlayerError, Step};
use ratatui::text::Line;
use std::io::{Read, Seek};

/// All there is to say about the step at hand.
pub fn lines<R: Read + Seek>(model: &Model<R>, theme: Theme) -> Vec<Line<'static>> {
    let moment = model.moment();
    let mut lines = Vec::new();
    if let Some(stop) = &moment.stop {
        lines.extend(trouble(stop, model.at(), moment.applied).into_iter().map(|line| Line::styled(line, theme.bad())));
    }
    match &moment.step {
        Ok(None) => lines.push(Line::raw("before the first step")),
        Err(end) => lines.push(Line::styled(format!("! {end}"), theme.bad())),
        Ok(Some(step)) => {
            let row = Row::new(model.at(), step, model.symbols());
            lines.extend(told(&row).into_iter().map(Line::raw));
            if !is_difference_here(moment.stop.as_ref(), model.at()) {
                lines.extend(answered(&row, step).into_iter().map(Line::raw));
            }
        }
    }
    if let Some(why) = &moment.after.ended {
        lines.push(Line::styled(format!("! the domain has ended: {why}"), theme.bad()));
    }
    lines
}

fn is_difference_here(stop: Option<&PlayerError>, at: u64) -> bool {
    matches!(stop, Some(PlayerError::Failure(Failure::Difference(difference))) if difference.step == at)
}

/// Why the engine is not where the step is. A difference at the step itself is shown as lines that went and lines that came.
fn trouble(stop: &PlayerError, at: u64, applied: u64) -> Vec<String> {
    match stop {
        PlayerError::Failure(Failure::Difference(difference)) if difference.step == at => {
            let then = answer(&difference.recorded.outcome, &difference.recorded.effects.list);
            let now = answer(&difference.outcome, &difference.effects.list);
            let mut lines = vec!["! the engine differs (- recorded, + now)".to_owned()];
            lines.extend(diff(&then, &now).lines().map(str::to_owned));
            if difference.recorded.effects.taken != difference.effects.taken {
                lines.push("! it takes something else from the ring's page".to_owned());
            }
            lines
        }
        PlayerError::Failure(failure) if failure.step() < at => {
            vec![format!("! the engine differs from step {} on (d goes there);", failure.step()), shown_after(applied)]
        }
        stop => {
            let text = stop.to_string();
            let mut lines: Vec<String> = text.lines().map(|line| format!("! {line}")).collect();
            lines.push(shown_after(applied));
            lines
        }
    }
}

fn shown_after(applied: u64) -> String {
    format!("! rings, vcpus and p2m are as after step {applied}")
}

fn told(row: &Row) -> Vec<String> {
    let who = row.vcpu.map(|vcpu| format!("vcpu {vcpu} ")).unwrap_or_default();
    let ring = row.ring.as_deref().map(|ring| format!(" {ring}")).unwrap_or_default();
    let rights = row.rights.as_deref().map(|rights| format!(" {rights}")).unwrap_or_default();
    let mut lines = vec![format!("told    {who}{}{ring}{rights}, {}", row.kind, duration(row.time))];
    if let Some(gfn) = row.gfn {
        let offset = row.offset.map(|offset| format!(" offset {offset:#x}")).unwrap_or_default();
        let place = row.place.as_deref().map(|place| format!("  {place}")).unwrap_or_default();
        lines.push(format!("frame   {gfn:#x}{offset}{place}"));
    }
    if row.rip != 0 {
        let at = row.at.as_deref().map(|at| format!("  {at}")).unwrap_or_default();
        lines.push(format!("rip     {:#x}{at}", row.rip));
        lines.extend(row.code.as_deref().map(|code| format!("code    {code}")));
    }
    lines
}

fn answered(row: &Row, step: &Step) -> Vec<String> {
    let mut lines = vec![format!("answer  {}", row.outcome)];
    for (number, effect) in row.effects.iter().enumerate() {
        lines.push(format!("effect  {} {effect}", number + 1));
    }
    if !step.effects.taken.is_empty() {
        lines.push(format!("taken   {} bytes from the ring's page", step.effects.taken.len()));
    }
    lines
}
