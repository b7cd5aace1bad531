//! From times to places on the picture.

use crate::trace::export::timeline::Timeline;
use std::fmt::Write;

/// Where the plot begins.
pub(super) const LEFT: f64 = 90.0;
/// Where it ends.
pub(super) const WIDTH: f64 = 1000.0;
/// Parts of the axis.
const PARTS: u64 = 8;

/// The time that the plot shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    pub from: u64,
    pub span: u64,
}

impl Scale {
    /// The part that was asked for; else from the first wait to the last moment, with a little room.
    pub fn new(timeline: &Timeline) -> Scale {
        if timeline.is_part {
            return Scale { from: timeline.span.0, span: (timeline.span.1 - timeline.span.0).max(1) };
        }
        let waits = || timeline.waits.iter().map(|waited| &waited.wait);
        let from = waits().map(|wait| wait.begin).min().unwrap_or(timeline.span.0);
        let to = waits().map(|wait| wait.end.map_or(timeline.last, |(_, time)| time)).max().unwrap_or(timeline.span.1);
        let room = to.saturating_sub(from) / 50;
        let from = from.saturating_sub(room);
        Scale { from, span: (to + room).saturating_sub(from).max(1) }
    }

    /// The part that was asked for; else the time in which frames moved.
    pub fn of_moves(timeline: &Timeline) -> Scale {
        let moves = &timeline.frames.moves;
        match (moves.first(), moves.last()) {
            (Some((from, ..)), Some((to, ..))) if !timeline.is_part => {
                let room = to.saturating_sub(*from) / 50;
                let from = from.saturating_sub(room);
                Scale { from, span: (to + room).saturating_sub(from).max(1) }
            }
            _ => Scale::new(timeline),
        }
    }

    /// Where a time lies; what is outside at the edge.
    pub fn x(&self, time: u64) -> f64 {
        let inside = time.saturating_sub(self.from).min(self.span);
        LEFT + inside as f64 / self.span as f64 * (WIDTH - LEFT)
    }

    /// Lines and times.
    pub fn axis(&self, height: f64) -> String {
        let mut text = String::new();
        for part in 0..=PARTS {
            let time = self.from + self.span / PARTS * part;
            let x = LEFT + part as f64 / PARTS as f64 * (WIDTH - LEFT);
            let anchor = if part == PARTS { "end" } else { "middle" };
            let _ = writeln!(
                text,
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"18\" y2=\"{height}\"/>\
                 <text class=\"soft\" x=\"{x:.1}\" y=\"12\" text-anchor=\"{anchor}\">{}</text>",
                instant(time, self.span / PARTS)
            );
        }
        text
    }
}

/// A time on the axis, with as many digits as tell it from the next one, which comes so much later. `page.js` has the same.
fn instant(time: u64, step: u64) -> String {
    let (unit, name) = match time {
        0..1_000 => (1e0, "ns"),
        1_000..1_000_000 => (1e3, "µs"),
        1_000_000..1_000_000_000 => (1e6, "ms"),
        _ => (1e9, "s"),
    };
    let (mut digits, mut least) = (0, unit);
    while least > step.max(1) as f64 {
        (digits, least) = (digits + 1, least / 10.0);
    }
    format!("{:.*} {name}", digits, time as f64 / unit)
}

#[cfg(test)]
mod tests {
    use super::instant;

    #[test]
    fn times_on_an_axis_differ_and_have_no_more_digits_than_that_takes() {
        let axis = |from: u64, step: u64| [0, 1, 2].map(|part| instant(from + part * step, step));
        assert_eq!(axis(1_041_000_000, 5_500_000), ["1.041 s", "1.046 s", "1.052 s"]);
        assert_eq!(axis(285_870_000, 101_000_000), ["286 ms", "387 ms", "488 ms"]);
        assert_eq!(axis(998, 1), ["998 ns", "999 ns", "1.000 µs"]);
        assert_eq!(axis(0, 0)[0], "0 ns");
    }
}
