//! Four time lines on one axis, as one page that needs nothing else.

use super::told::{For, Span, Told};
use crate::output::{escaped, page_head};
use std::fmt::Write;

const STYLE: &str = concat!(include_str!("../trace/export/page/page.css"), include_str!("page.css"));
const WIDTH: u64 = 1000;
const LEFT: u64 = 64;
const ROW: usize = 14;
/// Spans that are drawn of one run; a page with more of them is slow to read and slow to show.
const SPANS: usize = 20_000;
/// Marks on the axis.
const MARKS: u64 = 5;

/// The page.
pub fn page(name: &str, runs: &[Told], vcpus: usize) -> String {
    let end = end_of(runs);
    let unit = runs.first().map_or("", |told| told.unit);
    let name = escaped(name);
    let mut text = page_head(&format!("Flow of {name}"), STYLE);
    let _ = writeln!(
        text,
        "<h1>{name} under four flow controls</h1>\n<p class=\"soft\">One axis, from 0 to {}. A vCPU that waits longer than that is drawn to the edge.</p>\n\
         <p class=\"legend\"><span><i class=\"answer-access\"></i>waits for its answer</span>\
         <span><i class=\"slot\"></i>waits for room on the ring</span><span><i class=\"endless\"></i>never gets room</span>\
         <span><i class=\"lost\"></i>a request is lost</span></p>",
        amount(end, unit),
    );
    for told in runs {
        one(&mut text, told, vcpus, end);
    }
    text + "</body></html>\n"
}

/// Where the axis ends: shortly after the runs that came to an end, since one that hung lasts for as long as it was waited for.
fn end_of(runs: &[Told]) -> u64 {
    let finished = runs.iter().filter(|told| told.hung.is_empty()).map(|told| told.end).max();
    let end = finished.map_or_else(|| runs.iter().map(|told| told.end).max().unwrap_or(0), |end| end + end / 10);
    end.max(1)
}

fn one(text: &mut String, told: &Told, vcpus: usize, end: u64) {
    let hung = if told.hung.is_empty() { String::new() } else { format!(", hung: vCPU {}", list(&told.hung)) };
    let height = (vcpus + 2) * ROW;
    let _ = write!(
        text,
        "<h2>{}</h2><p>{} events, {} lost, {} refused, {} woken in vain, longest wait for room {}, fairness {:.3}{hung}; {}</p>\n\
         <div class=\"wide\"><svg viewBox=\"0 0 {} {height}\" role=\"img\" aria-label=\"time line under {}\">",
        told.flow,
        told.events,
        told.lost,
        told.refused,
        told.in_vain,
        amount(told.longest, told.unit),
        told.fairness,
        escaped(&told.ended),
        LEFT + WIDTH + 40,
        told.flow,
    );
    for vcpu in 0..vcpus {
        let y = vcpu * ROW;
        let _ = write!(
            text,
            "<rect class=\"row\" x=\"{LEFT}\" y=\"{}\" width=\"{WIDTH}\" height=\"{}\"/><text x=\"0\" y=\"{}\">vCPU {vcpu}</text>",
            y + 1,
            ROW - 2,
            y + ROW - 3
        );
    }
    axis(text, vcpus, end, told.unit);
    for span in told.spans.iter().take(SPANS).filter(|span| span.from < end) {
        bar(text, span, told, end);
    }
    for (vcpu, time) in told.losses.iter().filter(|(_, time)| *time < end) {
        let (at, top) = (x(*time, end), *vcpu as usize * ROW);
        let _ = write!(text, "<line class=\"lost\" x1=\"{at}\" x2=\"{at}\" y1=\"{top}\" y2=\"{}\"/>", top + ROW);
    }
    *text += "</svg></div>\n";
    if told.spans.len() > SPANS {
        let _ = writeln!(text, "<p>The first {SPANS} waits of {} are drawn.</p>", told.spans.len());
    }
}

fn axis(text: &mut String, vcpus: usize, end: u64, unit: &str) {
    for mark in 0..=MARKS {
        let (at, y) = (LEFT + WIDTH * mark / MARKS, vcpus * ROW);
        let time = amount(end * mark / MARKS, unit);
        let _ = write!(
            text,
            "<line class=\"grid\" x1=\"{at}\" x2=\"{at}\" y1=\"0\" y2=\"{y}\"/>\
             <text class=\"small soft\" x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{time}</text>",
            y + ROW,
        );
    }
}

fn bar(text: &mut String, span: &Span, told: &Told, end: u64) {
    let endless = span.what == For::Room && span.to >= told.end && told.hung.contains(&span.vcpu);
    let class = match span.what {
        _ if endless => "endless",
        For::Room => "slot",
        For::Answer => "answer-access",
    };
    let until = if endless { end } else { span.to };
    let (from, to) = (x(span.from, end), x(until, end));
    let _ = write!(
        text,
        "<rect class=\"{class}\" x=\"{from}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
        span.vcpu as usize * ROW + 2,
        (to - from).max(1),
        ROW - 4,
    );
}

fn x(time: u64, end: u64) -> u64 {
    LEFT + u64::try_from(u128::from(time.min(end)) * u128::from(WIDTH) / u128::from(end)).unwrap_or(WIDTH)
}

/// vCPUs in words.
pub fn list(vcpus: &[u32]) -> String {
    vcpus.iter().map(u32::to_string).collect::<Vec<_>>().join(", ")
}

/// A time as people read it.
pub fn amount(value: u64, unit: &str) -> String {
    if unit == "ns" { crate::trace::row::duration(value) } else { format!("{value} {unit}") }
}
