//! How long waits took: how many of each length, and the lengths that half, nine of ten and ninety-nine of a hundred do not exceed.

use super::words::class;
use crate::output::escaped;
use crate::trace::export::timeline::{Timeline, Waited};
use crate::trace::row::duration;
use std::collections::BTreeMap;
use std::fmt::Write;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 160.0;
const BASE: f64 = 128.0;
const TOP: f64 = 40.0;
/// Buckets for each doubling of the length.
const PARTS: f64 = 2.0;

/// A picture for each thing that was waited for.
pub(super) fn histograms(timeline: &Timeline) -> String {
    let mut kinds: BTreeMap<String, (&'static str, Vec<u64>)> = BTreeMap::new();
    for Waited { wait, .. } in timeline.waits.iter().filter(|waited| waited.wait.end.is_some()) {
        let kind = kinds.entry(wait.whom()).or_insert((class(wait), Vec::new()));
        kind.1.push(wait.length(timeline.last).max(1));
    }
    if kinds.is_empty() {
        return String::new();
    }
    let mut text = "<h2>How long the waits took</h2>\n<div class=\"charts\">\n".to_owned();
    for (whom, (class, mut lengths)) in kinds {
        lengths.sort_unstable();
        text += &histogram(&whom, class, &lengths);
    }
    text + "</div>\n"
}

/// The length that this share of the sorted lengths does not exceed.
fn percentile(lengths: &[u64], share: f64) -> u64 {
    let at = (lengths.len() as f64 * share).ceil().max(1.0);
    // A share of a count that fits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and the number of lengths")]
    let at = at as usize;
    lengths.get(at - 1).or(lengths.last()).copied().unwrap_or(0)
}

fn histogram(whom: &str, class: &str, lengths: &[u64]) -> String {
    let bucket = |length: u64| ((length as f64).log2() * PARTS).floor();
    let (first, last) = (bucket(lengths[0]), bucket(lengths[lengths.len() - 1]) + 1.0);
    let x = |place: f64| 6.0 + (place - first) / (last - first) * (WIDTH - 12.0);
    let mut counts: BTreeMap<i64, u64> = BTreeMap::new();
    for length in lengths {
        #[allow(clippy::cast_possible_truncation, reason = "the logarithm of 64 bits")]
        let at = bucket(*length) as i64;
        *counts.entry(at).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(1) as f64;
    let mut svg = format!(
        "<figure><figcaption>{} <span class=\"soft\">{} waits</span></figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"Lengths of waits for {}\">\n",
        escaped(whom),
        lengths.len(),
        escaped(whom)
    );
    for (at, count) in counts {
        let (from, to) = (x(at as f64), x(at as f64 + 1.0));
        let height = (count as f64 / most * (BASE - TOP)).max(1.0);
        let _ = writeln!(
            svg,
            "<rect class=\"{class} bucket\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\"><title>{count} of {} to {}</title></rect>",
            BASE - height,
            (to - from - 1.0).max(0.8),
            duration(edge(at)),
            duration(edge(at + 1))
        );
    }
    let _ = writeln!(svg, "<line class=\"run\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{BASE}\" y2=\"{BASE}\"/>");
    for (row, (name, share)) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)].into_iter().enumerate() {
        let length = percentile(lengths, share);
        let at = x((length as f64).log2() * PARTS);
        let anchor = if at > WIDTH * 0.6 { "end" } else { "start" };
        let (top, label) = (2.0 + row as f64 * 11.0, 11.0 + row as f64 * 11.0);
        let shift = if anchor == "end" { at - 3.0 } else { at + 3.0 };
        let _ = writeln!(
            svg,
            "<line class=\"mark\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{top}\" y2=\"{BASE}\"/>\
             <text class=\"small\" x=\"{shift:.1}\" y=\"{label}\" text-anchor=\"{anchor}\">{name} {}</text>",
            duration(length)
        );
    }
    let ends = [("start", 6.0, lengths[0]), ("end", WIDTH - 6.0, lengths[lengths.len() - 1])];
    for (anchor, x, length) in ends {
        let _ = writeln!(
            svg,
            "<text class=\"small soft\" x=\"{x}\" y=\"{}\" text-anchor=\"{anchor}\">{}</text>",
            BASE + 14.0,
            duration(length)
        );
    }
    svg + "</svg></figure>\n"
}

/// Where a bucket begins.
fn edge(at: i64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a length in nanoseconds, which it was made of"
    )]
    let edge = (at as f64 / PARTS).exp2() as u64;
    edge
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_a_length_that_so_many_do_not_exceed() {
        let lengths: Vec<u64> = (1..=100).collect();
        assert_eq!([0.5, 0.9, 0.99, 1.0].map(|share| percentile(&lengths, share)), [50, 90, 99, 100]);
        assert_eq!((percentile(&[7], 0.5), percentile(&[7], 0.99), percentile(&[], 0.5)), (7, 7, 0));
    }
}
