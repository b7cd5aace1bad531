//! One page that opens from disk: what is wrong, a picture of the time line, what the pager did, who waited for whom, the longest waits. It
//! needs nothing from elsewhere. Its script zooms the picture and shows a wait's steps; without it the page is the same and stands still.

mod heat;
mod histogram;
mod picture;
mod scale;
mod tables;
mod words;

use self::picture::DRAWN;
use super::timeline::{Timeline, Waited};
use crate::output::{escaped, page_head};
use crate::trace::explain::finding::Finding;
use crate::trace::row::{Row, duration};
use crate::trace::show::what;
use mem_event::trace::Tape;
use std::collections::BTreeMap;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
/// Waits whose steps are on the page at most.
const DETAILED: usize = 1000;

/// The page. The tape is asked once more for the steps of the waits.
#[must_use]
pub(super) fn page(timeline: &Timeline, findings: &[Finding], tape: &mut Tape) -> String {
    let header = &timeline.header;
    let title = format!("{}: which vCPU waited for what", escaped(&header.guest));
    let mut text = page_head(&title, STYLE);
    let _ = writeln!(text, "<h1>{title}</h1>");
    let scenario = header.scenario.lines().next().unwrap_or_default();
    let _ = writeln!(
        text,
        "<p class=\"soft\">{} vCPU{}, scenario {}, QEMU {}; {} steps of the engine in {}.</p>",
        header.config.vcpus,
        if header.config.vcpus == 1 { "" } else { "s" },
        escaped(scenario),
        escaped(&header.qemu),
        timeline.steps,
        duration(timeline.span.1.saturating_sub(timeline.span.0))
    );
    text += &wrong(findings);
    if timeline.waits.is_empty() {
        return text + "<p>No vCPU waited for anything.</p>\n" + &heat::heat(timeline) + "</body></html>\n";
    }
    let mut waits: Vec<&Waited> = timeline.waits.iter().collect();
    // What never ended comes first, however short it looks.
    waits.sort_by_key(|waited| (waited.wait.end.is_some(), std::cmp::Reverse(waited.wait.length(timeline.last))));
    text += &picture::verdict(timeline);
    text += &picture::picture(timeline, &waits);
    text += &heat::heat(timeline);
    text += &histogram::histograms(timeline);
    text += &tables::who(timeline);
    text += &tables::longest(timeline, &waits);
    text += &details(&waits, timeline, tape);
    let _ = writeln!(text, "<script>\n{SCRIPT}</script>");
    text + "</body></html>\n"
}

/// What `explain` says.
fn wrong(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let item = |finding: &Finding| {
        let steps: Vec<String> = finding.steps.iter().map(u64::to_string).collect();
        format!("<li>{} <span class=\"soft\">(steps {})</span>\n", escaped(&finding.sentence()), steps.join(", "))
    };
    format!(
        "<h2 class=\"bad\">What is wrong</h2>\n<ul class=\"wrong\">\n{}</ul>\n",
        findings.iter().map(item).collect::<String>()
    )
}

/// The steps of the waits that are drawn, for the script: of each wait their numbers, of each step a line.
fn details(waits: &[&Waited], timeline: &Timeline, tape: &mut Tape) -> String {
    let detailed = &waits[..waits.len().min(DRAWN).min(DETAILED)];
    let numbers: Vec<&[u64]> = detailed.iter().map(|waited| waited.steps.as_slice()).collect();
    let mut lines = BTreeMap::new();
    let mut wanted: Vec<u64> = numbers.iter().flat_map(|steps| steps.iter().copied()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    for number in wanted {
        let Ok(step) = tape.step(number) else { break };
        let row = Row::new(number, step, &timeline.symbols);
        let effects = if row.effects.is_empty() { String::new() } else { format!("; {}", row.effects.join("; ")) };
        let line = format!("{}  {} {} → {}{effects}", duration(row.time), row.kind, what(&row), row.outcome);
        lines.insert(number, line);
    }
    let json = serde_json::json!({ "waits": numbers, "steps": lines });
    // In a script element only this would end it.
    let json = json.to_string().replace("</", "<\\/");
    format!("<script type=\"application/json\" id=\"steps\">{json}</script>\n")
}
