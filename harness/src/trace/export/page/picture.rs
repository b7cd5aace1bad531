//! The time line: a row a vCPU with its waits, a chart a ring with its slots in use.

use super::scale::{LEFT, Scale, WIDTH};
use super::words::{class, holders, sentence};
use crate::output::escaped;
use crate::trace::export::timeline::{Timeline, Waited};
use crate::trace::row::duration;
use crate::trace::story::consumer;
use mem_event::{Ring, WaitReason};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Waits that are drawn at most; of more those that did not end, and the longest.
pub(super) const DRAWN: usize = 4000;
/// The picture's measures.
const ROW: f64 = 22.0;
const TOP: f64 = 26.0;
const CHART: f64 = 46.0;
/// A slot is so high where that is more.
const SLOT: f64 = 1.5;
const GAP: f64 = 14.0;
/// A letter's width, about.
const LETTER: f64 = 6.5;

/// The picture of waits in the order in which they are to be drawn.
pub(super) fn picture(timeline: &Timeline, waits: &[&Waited]) -> String {
    let scale = Scale::new(timeline);
    let mut rows: Vec<u32> = waits.iter().map(|waited| waited.wait.vcpu).collect();
    rows.sort_unstable();
    rows.dedup();
    let rings: Vec<Ring> =
        Ring::ALL.into_iter().filter(|ring| timeline.levels.iter().any(|level| level.out[ring.index()] > 0)).collect();
    let charts = TOP + rows.len() as f64 * ROW + GAP;
    let height = rings.iter().fold(charts, |top, ring| top + chart_height(timeline, *ring) + GAP) + 8.0;
    let mut svg = format!("<h2>The time line</h2>\n{}\n", legend(timeline));
    let _ = writeln!(
        svg,
        "<div class=\"wide\"><svg id=\"line\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" data-from=\"{}\" data-span=\"{}\" \
         aria-label=\"Waits of each vCPU over time\"><clipPath id=\"plot\"><rect x=\"{LEFT}\" y=\"0\" width=\"{}\" height=\"{height}\"/></clipPath>",
        scale.from,
        scale.span,
        WIDTH - LEFT
    );
    let _ = writeln!(svg, "<g id=\"axis\">{}</g>", scale.axis(height));
    for (at, vcpu) in rows.iter().enumerate() {
        let y = TOP + at as f64 * ROW;
        let (text, middle) = (y + 15.0, y + 11.0);
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{text}\">vCPU {vcpu}</text><line class=\"run\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{middle}\" y2=\"{middle}\"/>"
        );
    }
    svg += "<g clip-path=\"url(#plot)\">\n";
    for (number, waited) in waits.iter().take(DRAWN).enumerate() {
        let row = rows.iter().position(|vcpu| *vcpu == waited.wait.vcpu).unwrap_or(0);
        svg += &bar(timeline, &scale, waited, number, TOP + row as f64 * ROW + 3.0);
    }
    svg += "</g>\n";
    let mut top = charts;
    for ring in rings {
        svg += &chart(timeline, &scale, ring, top);
        top += chart_height(timeline, ring) + GAP;
    }
    svg += "</svg></div>\n<div id=\"wait\" hidden></div>\n";
    let left_out = waits.len().saturating_sub(DRAWN);
    if left_out > 0 {
        let _ = writeln!(svg, "<p class=\"soft\">{left_out} shorter waits are not drawn; --between shows a part.</p>");
    }
    svg
}

/// A wait, and where it waits for a slot, who holds the slots.
fn bar(timeline: &Timeline, scale: &Scale, waited: &Waited, number: usize, y: f64) -> String {
    let wait = &waited.wait;
    let (begin, end) = (wait.begin, wait.end.map_or(timeline.last, |(_, time)| time));
    let (x, to) = (scale.x(begin), scale.x(end));
    let width = (to - x).max(0.8);
    let mut text = format!(
        "<rect class=\"{}\" x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\" data-b=\"{begin}\" data-e=\"{end}\" data-w=\"{number}\">\
         <title>{}</title></rect>\n",
        class(wait),
        ROW - 6.0,
        escaped(&sentence(wait, timeline))
    );
    if !wait.holders.is_empty() {
        let named = holders(wait);
        let room = named.len() as f64 * LETTER;
        let hidden = if room > width { " visibility=\"hidden\"" } else { "" };
        let _ = writeln!(
            text,
            "<text class=\"held\" x=\"{:.2}\" y=\"{}\" data-b=\"{begin}\" data-e=\"{end}\" data-room=\"{room:.0}\"{hidden}>{named}</text>",
            x + 3.0,
            y + 12.0
        );
    }
    text
}

fn legend(timeline: &Timeline) -> String {
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for waited in &timeline.waits {
        let what = match waited.wait.reason {
            _ if waited.wait.end.is_none() => "never ended".into(),
            WaitReason::Answer(ring) => format!("waits for {}", consumer(ring)),
            WaitReason::Slot(_) => "waits for a free slot, with the vCPUs whose requests hold them".into(),
            WaitReason::Consumer(_) => "waits for a consumer".into(),
            WaitReason::Frame => "waits for memory".into(),
        };
        seen.insert(class(&waited.wait), what);
    }
    let entry = |(class, what): (&str, String)| format!("<span><i class=\"{class}\"></i>{what}</span>");
    let entries: String = seen.into_iter().map(entry).collect();
    format!(
        "<p class=\"legend\">{entries}<span class=\"soft\">thin line: it runs</span></p>\n<p class=\"soft script\" hidden>Zoom: wheel, two \
         fingers, + and −. Move: drag, arrows. A wait: click it. <button id=\"whole\">all (0)</button></p>"
    )
}

/// The slots of a ring, and how many were in use at most.
fn slots(timeline: &Timeline, ring: Ring) -> (u32, u32) {
    let at = ring.index();
    let most = timeline.levels.iter().map(|level| level.out[at]).max().unwrap_or(0);
    let slots = timeline.levels.iter().map(|level| level.slots[at]).max().unwrap_or(0);
    (slots.max(most).max(1), most)
}

fn chart_height(timeline: &Timeline, ring: Ring) -> f64 {
    (f64::from(slots(timeline, ring).0) * SLOT).max(CHART)
}

/// Slots in use over time: the chart is as high as the ring has slots.
fn chart(timeline: &Timeline, scale: &Scale, ring: Ring, top: f64) -> String {
    let (slots, most) = slots(timeline, ring);
    let height = chart_height(timeline, ring);
    let y = |out: u32| top + height - f64::from(out) / f64::from(slots) * height;
    let mut out = 0;
    let mut path = format!("M{LEFT:.2} {:.2}", y(0));
    for level in &timeline.levels {
        let now = level.out[ring.index()];
        if now != out {
            let x = scale.x(level.time);
            let _ = write!(path, "L{x:.2} {:.2}L{x:.2} {:.2}", y(out), y(now));
            out = now;
        }
    }
    let _ = write!(path, "L{WIDTH} {:.2}L{WIDTH} {:.2}Z", y(out), y(0));
    let lines: String = (1..slots)
        .filter(|_| slots <= 16)
        .map(|slot| {
            format!("<line class=\"grid\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>", y = y(slot))
        })
        .collect();
    format!(
        "<rect class=\"row\" x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"{height}\"/>\
         <g clip-path=\"url(#plot)\"><path class=\"zoom ring-{ring}\" d=\"{path}\"/></g>{lines}\n\
         <text x=\"0\" y=\"{:.1}\">{ring} ring</text><text class=\"soft\" x=\"0\" y=\"{:.1}\">{most} of {slots} slots</text>\n",
        WIDTH - LEFT,
        top + 18.0,
        top + 33.0
    )
}

/// How long all waits took together, and what share of it for whom.
pub(super) fn verdict(timeline: &Timeline) -> String {
    let mut of: BTreeMap<String, u64> = BTreeMap::new();
    for waited in &timeline.waits {
        *of.entry(waited.wait.whom()).or_default() += waited.wait.length(timeline.last);
    }
    let total: u64 = of.values().sum();
    let Some((whom, most)) = of.into_iter().max_by_key(|(_, total)| *total) else { return String::new() };
    let share = most as f64 * 100.0 / total.max(1) as f64;
    let open = timeline.waits.iter().filter(|waited| waited.wait.end.is_none()).count();
    let open = match open {
        0 => "Every wait ended.".to_owned(),
        1 => "<b class=\"bad\">One wait never ended</b> before the trace did.".to_owned(),
        many => format!("<b class=\"bad\">{many} waits never ended</b> before the trace did."),
    };
    format!("<p>All vCPUs together waited {}, {share:.0} % of it for {}. {open}</p>\n", duration(total), escaped(&whom))
}
