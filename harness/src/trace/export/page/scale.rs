//! From times to places on the picture.

use crate::trace::export::timeline::Timeline;
use crate::trace::row::duration;
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
                duration(time)
            );
        }
        text
    }
}
