//! What a person or a program sees of a suite: a line a verdict, the difference of what changed.

use super::case::{Case, Judged};
use crate::output;
use crate::verdict::Kind;
use mem_event::Ring;
use serde_json::json;
use similar::{ChangeTag, TextDiff};

/// A verdict in one line, without its time: that may differ.
#[must_use]
pub fn line(case: &Case, judged: &Judged) -> String {
    format!("{:<9} {}{}", judged.verdict.kind.to_string(), case.scenario.name, reason(judged))
}

fn reason(judged: &Judged) -> String {
    let mut text =
        if judged.verdict.reason.is_empty() { String::new() } else { format!(": {}", judged.verdict.reason) };
    if let Some(first) = judged.failures.first().filter(|_| judged.is_flaky()) {
        text += &format!(
            " (flaky: {} of {} tries failed; the first: {first})",
            judged.failures.len(),
            judged.failures.len() + 1
        );
    }
    for sentence in &judged.explained {
        text += &format!("\n          explain: {sentence}");
    }
    if let Some(folder) = &judged.evidence {
        text += &format!("\n          evidence: {}", folder.display());
    }
    text
}

/// The difference of two sequences, event by event: three events around each change; `-` was due, `+` came.
#[must_use]
pub fn difference(judged: &Judged, colours: bool) -> String {
    let (Some(due), Some(came)) = (&judged.differs_from, &judged.sequence) else { return String::new() };
    let diff = TextDiff::from_lines(due.trim_end(), came.trim_end());
    let mut text = String::new();
    for (number, group) in diff.grouped_ops(3).iter().enumerate() {
        if number > 0 {
            text += "    ...\n";
        }
        for change in group.iter().flat_map(|operation| diff.iter_changes(operation)) {
            let (sign, colour) = match change.tag() {
                ChangeTag::Delete => ("-", "\u{1b}[31m"),
                ChangeTag::Insert => ("+", "\u{1b}[32m"),
                ChangeTag::Equal => (" ", ""),
            };
            let event = change.value().trim_end_matches('\n');
            text += &match colours && !colour.is_empty() {
                true => format!("  {colour}{sign} {event}\u{1b}[0m\n"),
                false => format!("  {sign} {event}\n"),
            };
        }
    }
    text
}

/// A verdict as a line of JSON.
#[must_use]
pub fn json(case: &Case, judged: &Judged) -> String {
    let line = json!({
        "event": "scenario",
        "name": case.scenario.name,
        "verdict": judged.verdict.kind,
        "reason": judged.verdict.reason,
        "difference": difference(judged, false),
        "flaky": judged.is_flaky(),
        "failures": judged.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "explained": judged.explained,
        "evidence": judged.evidence,
        "seconds": judged.took.as_secs_f64(),
    });
    output::json(&line).unwrap_or_default()
}

/// How many of which verdict, in words; of so many that were to run.
#[must_use]
pub fn summary(all: &[(Case, Judged)], due: usize) -> String {
    let kinds = [Kind::Success, Kind::Skip, Kind::Error, Kind::Failure, Kind::Crash];
    let count = |kind| all.iter().filter(|(_, judged)| judged.verdict.kind == kind).count();
    let parts = kinds.into_iter().map(|kind| (kind, count(kind))).filter(|(_, count)| *count > 0);
    let mut parts: Vec<String> = parts.map(|(kind, count)| format!("{count} {kind}")).collect();
    let flaky = all.iter().filter(|(_, judged)| judged.is_flaky()).count();
    parts.extend((flaky > 0).then(|| format!("{flaky} of them flaky")));
    parts.extend((all.len() < due).then(|| format!("{} not run", due - all.len())));
    if all.is_empty() { "0 scenarios".into() } else { format!("{} scenarios: {}", all.len(), parts.join(", ")) }
}

/// Whether a sequence has a request of any ring: one without shows only that nothing came.
#[must_use]
pub fn has_event(sequence: &str) -> bool {
    let is_event = |line: &str| Ring::ALL.iter().any(|ring| line.trim_start().starts_with(&format!("{ring}  ")));
    sequence.lines().any(is_event)
}

#[cfg(test)]
mod tests {
    use super::has_event;

    #[test]
    fn checkpoints_and_verdicts_are_no_events() {
        assert!(!has_event("") && !has_event("checkpoint 1  vcpu 0  -> nothing\nverdict: success\n"));
        assert!(has_event("checkpoint 1  vcpu 0  -> nothing\npaging  vcpu 0  gfn 0x500\n"));
        assert!(has_event("vcpu 1:\n  access  vcpu 1  gfn 0x200\n"), "with several vCPUs lines are indented");
    }
}
