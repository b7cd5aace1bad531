//! One page that opens from disk: a picture of the time line, who waited for whom, the longest waits. No script, nothing from elsewhere.

use super::timeline::Timeline;
use crate::trace::row::{disassembled, duration};
use crate::trace::story::{Wait, consumer};
use mem_event::{Gpa, Ring, WaitReason};
use std::collections::BTreeMap;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
/// Waits that are drawn at most; of more the longest.
const DRAWN: usize = 4000;
/// Waits in the table.
const LISTED: usize = 25;
/// The picture's measures.
const LEFT: f64 = 90.0;
const WIDTH: f64 = 1000.0;
const ROW: f64 = 22.0;
const TOP: f64 = 26.0;
const CHART: f64 = 46.0;
const GAP: f64 = 14.0;

/// The page.
#[must_use]
pub fn page(timeline: &Timeline) -> String {
    let header = &timeline.header;
    let title = format!("{}: which vCPU waited for what", escaped(&header.guest));
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>\n{STYLE}</style></head><body>\n<h1>{title}</h1>\n"
    );
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
    if timeline.story.waits.is_empty() {
        return text + "<p>No vCPU waited for anything.</p>\n</body></html>\n";
    }
    text += &verdict(timeline);
    text += &picture(timeline);
    text += &who(timeline);
    text += &longest(timeline);
    text + "</body></html>\n"
}

/// The page's sentence: the largest share of all waiting.
fn verdict(timeline: &Timeline) -> String {
    let sums = sums(timeline);
    let total: u64 = sums.iter().map(|(_, sum)| sum.total).sum();
    let mut of: BTreeMap<&str, u64> = BTreeMap::new();
    for ((_, whom), sum) in &sums {
        *of.entry(whom).or_default() += sum.total;
    }
    let Some((whom, most)) = of.into_iter().max_by_key(|(_, total)| *total) else { return String::new() };
    let share = most as f64 * 100.0 / total.max(1) as f64;
    let open = timeline.story.waits.iter().filter(|wait| wait.end.is_none()).count();
    let open = match open {
        0 => "Every wait ended.".to_owned(),
        1 => "<b>One wait never ended</b> before the trace did.".to_owned(),
        many => format!("<b>{many} waits never ended</b> before the trace did."),
    };
    format!("<p>All vCPUs together waited {}, {share:.0} % of it for {}. {open}</p>\n", duration(total), escaped(whom))
}

#[derive(Default)]
struct Sum {
    total: u64,
    count: u64,
    longest: u64,
    class: &'static str,
}

fn sums(timeline: &Timeline) -> Vec<((u32, String), Sum)> {
    let mut sums: BTreeMap<(u32, String), Sum> = BTreeMap::new();
    for wait in &timeline.story.waits {
        let sum = sums.entry((wait.vcpu, wait.whom())).or_default();
        let length = wait.length(timeline.span.1);
        (sum.total, sum.count) = (sum.total + length, sum.count + 1);
        (sum.longest, sum.class) = (sum.longest.max(length), class(wait.reason));
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.total));
    sums
}

fn class(reason: WaitReason) -> &'static str {
    match reason {
        WaitReason::Answer(Ring::Access) => "answer-access",
        WaitReason::Answer(Ring::Paging) => "answer-paging",
        WaitReason::Answer(Ring::Sharing) => "answer-sharing",
        WaitReason::Slot(_) => "slot",
        WaitReason::Consumer(_) => "consumer",
        WaitReason::Frame => "frame",
    }
}

/// From the first wait to the last moment, with a little room.
struct Scale {
    from: u64,
    span: u64,
}

impl Scale {
    fn new(timeline: &Timeline) -> Scale {
        let from = timeline.story.waits.iter().map(|wait| wait.begin).min().unwrap_or(timeline.span.0);
        let end = |wait: &Wait| wait.end.map_or(timeline.span.1, |(_, time)| time);
        let to = timeline.story.waits.iter().map(end).max().unwrap_or(timeline.span.1);
        let room = to.saturating_sub(from) / 50;
        let from = from.saturating_sub(room);
        Scale { from, span: (to + room).saturating_sub(from).max(1) }
    }

    fn x(&self, time: u64) -> f64 {
        let inside = time.saturating_sub(self.from).min(self.span);
        LEFT + inside as f64 / self.span as f64 * (WIDTH - LEFT)
    }
}

fn picture(timeline: &Timeline) -> String {
    let scale = Scale::new(timeline);
    let mut rows: Vec<u32> = timeline.story.waits.iter().map(|wait| wait.vcpu).collect();
    rows.sort_unstable();
    rows.dedup();
    let rings: Vec<Ring> =
        Ring::ALL.into_iter().filter(|ring| timeline.levels.iter().any(|level| level.out[ring.index()] > 0)).collect();
    let charts = TOP + rows.len() as f64 * ROW + GAP;
    let height = charts + rings.len() as f64 * (CHART + GAP) + 8.0;
    let mut svg = format!("<h2>The time line</h2>\n{}\n", legend(timeline));
    let _ = writeln!(
        svg,
        "<div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Waits of each vCPU over time\">"
    );
    svg += &axis(&scale, height);
    for (at, vcpu) in rows.iter().enumerate() {
        let y = TOP + at as f64 * ROW;
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{}\">vCPU {vcpu}</text><line class=\"run\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{m}\" y2=\"{m}\"/>",
            y + 15.0,
            m = y + 11.0
        );
    }
    let mut waits: Vec<&Wait> = timeline.story.waits.iter().collect();
    waits.sort_by_key(|wait| std::cmp::Reverse(wait.length(timeline.span.1)));
    let left_out = waits.len().saturating_sub(DRAWN);
    for wait in waits.into_iter().take(DRAWN) {
        let y = TOP + rows.iter().position(|vcpu| *vcpu == wait.vcpu).unwrap_or(0) as f64 * ROW + 3.0;
        let (x, end) = (scale.x(wait.begin), scale.x(wait.end.map_or(timeline.span.1, |(_, time)| time)));
        let _ = writeln!(
            svg,
            "<rect class=\"{}\" x=\"{x:.2}\" y=\"{y}\" width=\"{:.2}\" height=\"{}\"><title>{}</title></rect>",
            class(wait.reason),
            (end - x).max(0.8),
            ROW - 6.0,
            escaped(&sentence(wait, timeline))
        );
    }
    for (at, ring) in rings.iter().enumerate() {
        svg += &chart(timeline, &scale, *ring, charts + at as f64 * (CHART + GAP));
    }
    svg += "</svg></div>\n";
    if left_out > 0 {
        let _ = writeln!(svg, "<p class=\"soft\">{left_out} shorter waits are not drawn; --between shows a part.</p>");
    }
    svg
}

fn legend(timeline: &Timeline) -> String {
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for wait in &timeline.story.waits {
        let what = match wait.reason {
            WaitReason::Answer(ring) => format!("waits for {}", consumer(ring)),
            WaitReason::Slot(_) => "waits for a free slot".into(),
            WaitReason::Consumer(_) => "waits for a consumer".into(),
            WaitReason::Frame => "waits for memory".into(),
        };
        seen.insert(class(wait.reason), what);
    }
    let entry = |(class, what): (&str, String)| format!("<span><i class=\"{class}\"></i>{what}</span>");
    let entries: String = seen.into_iter().map(entry).collect();
    format!("<p class=\"legend\">{entries}<span class=\"soft\">thin line: it runs</span></p>")
}

fn axis(scale: &Scale, height: f64) -> String {
    const PARTS: u64 = 8;
    let mut text = String::new();
    for part in 0..=PARTS {
        let time = scale.from + scale.span / PARTS * part;
        let x = scale.x(time);
        let anchor = if part == PARTS { "end" } else { "middle" };
        let _ = writeln!(
            text,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"18\" y2=\"{height}\"/>\
             <text class=\"soft\" x=\"{x:.1}\" y=\"12\" text-anchor=\"{anchor}\">{}</text>",
            duration(time)
        );
    }
    text
}

/// Slots in use over time.
fn chart(timeline: &Timeline, scale: &Scale, ring: Ring, top: f64) -> String {
    let most = timeline.levels.iter().map(|level| level.out[ring.index()]).max().unwrap_or(1);
    let slots = timeline.levels.iter().map(|level| level.slots[ring.index()]).max().unwrap_or(0);
    let y = |out: u32| top + CHART - f64::from(out) / f64::from(most.max(1)) * CHART;
    let mut path = format!("M{:.2} {:.2}", LEFT, y(0));
    let mut out = 0;
    for level in &timeline.levels {
        let now = level.out[ring.index()];
        if now != out {
            let x = scale.x(level.time);
            let _ = write!(path, "L{x:.2} {:.2}L{x:.2} {:.2}", y(out), y(now));
            out = now;
        }
    }
    let _ = write!(path, "L{WIDTH} {:.2}L{WIDTH} {:.2}Z", y(out), y(0));
    format!(
        "<rect class=\"row\" x=\"{LEFT}\" y=\"{top}\" width=\"{}\" height=\"{CHART}\"/>\
         <path class=\"answer-{ring}\" d=\"{path}\"/>\n\
         <text x=\"0\" y=\"{:.1}\">{ring} ring</text><text class=\"soft\" x=\"0\" y=\"{:.1}\">{most} of {slots} slots</text>\n",
        WIDTH - LEFT,
        top + 18.0,
        top + 33.0
    )
}

fn who(timeline: &Timeline) -> String {
    let sums = sums(timeline);
    let most = sums.iter().map(|(_, sum)| sum.total).max().unwrap_or(1).max(1);
    let mut text = "<h2>Which vCPU waited, for what, how long</h2>\n<div class=\"wide\"><table><tr><th>vCPU<th>for<th class=\"number\">times\
                    <th class=\"number\">in all<th class=\"number\">longest<th style=\"width:30%\"></tr>\n"
        .to_owned();
    for ((vcpu, whom), sum) in &sums {
        let _ = writeln!(
            text,
            "<tr><td>vCPU {vcpu}<td>{}<td class=\"number\">{}<td class=\"number\">{}<td class=\"number\">{}\
             <td><span class=\"bar {}\" style=\"width:{:.1}%\"></span></tr>",
            escaped(whom),
            sum.count,
            duration(sum.total),
            duration(sum.longest),
            sum.class,
            sum.total as f64 * 100.0 / most as f64
        );
    }
    text + "</table></div>\n"
}

fn longest(timeline: &Timeline) -> String {
    let mut waits: Vec<&Wait> = timeline.story.waits.iter().collect();
    waits.sort_by_key(|wait| std::cmp::Reverse(wait.length(timeline.span.1)));
    let mut text = "<h2>The longest waits</h2>\n<div class=\"wide\"><table><tr><th class=\"number\">how long<th class=\"number\">at<th>who\
                    <th>for<th>frame<th>instruction<th class=\"number\">steps</tr>\n"
        .to_owned();
    for wait in waits.into_iter().take(LISTED) {
        let end = wait.end.map_or_else(|| "not ended".to_owned(), |(step, _)| step.to_string());
        let _ = writeln!(
            text,
            "<tr><td class=\"number\">{}<td class=\"number\">{}<td>vCPU {}<td>{}<td>{}<td>{}\
             <td class=\"number\">{} – {end}</tr>",
            duration(wait.length(timeline.span.1)),
            duration(wait.begin),
            wait.vcpu,
            escaped(&whom(wait)),
            escaped(&place(wait, timeline)),
            instruction(wait, timeline),
            wait.step
        );
    }
    text + "</table></div>\n"
}

fn whom(wait: &Wait) -> String {
    let holders: Vec<String> = wait.holders.iter().map(u32::to_string).collect();
    match holders.is_empty() {
        true => wait.whom(),
        false => format!("{}, held by vCPUs {}", wait.whom(), holders.join(", ")),
    }
}

fn place(wait: &Wait, timeline: &Timeline) -> String {
    let Some(gfn) = wait.gfn else { return String::new() };
    let name = timeline.symbols.name(Gpa(gfn.gpa().0)).map(|name| format!(" {name}")).unwrap_or_default();
    format!("{gfn}{name}")
}

fn instruction(wait: &Wait, timeline: &Timeline) -> String {
    if wait.rip == 0 {
        return String::new();
    }
    let at = timeline.symbols.name(Gpa(wait.rip)).unwrap_or_else(|| format!("{:#x}", wait.rip));
    let code = disassembled(&wait.code, wait.rip).unwrap_or_default();
    format!("<code>{}</code> <span class=\"soft\">in {}</span>", escaped(&code), escaped(&at))
}

fn sentence(wait: &Wait, timeline: &Timeline) -> String {
    let length = duration(wait.length(timeline.span.1));
    format!("vCPU {} waits {length} for {}; frame {}; step {}", wait.vcpu, whom(wait), place(wait, timeline), wait.step)
}

/// Text as HTML shows it.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
