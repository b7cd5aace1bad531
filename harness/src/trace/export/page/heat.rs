//! What the pager did: which frames went out, came in, came in again, and when; how many the domain held, and how many it might.

use super::scale::{LEFT, Scale, WIDTH};
use crate::trace::export::frames::Move;
use crate::trace::export::timeline::Timeline;
use mem_event::Gfn;
use std::collections::BTreeMap;
use std::fmt::Write;

const COLUMNS: u64 = 120;
const ROWS: usize = 32;
const CELL: f64 = 7.0;
const TOP: f64 = 26.0;
const CHART: f64 = 90.0;

/// How often a part of the frames moved in a part of the time.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    out: u32,
    came: u32,
    again: u32,
}

/// Both pictures; nothing where no frame moved.
pub(super) fn heat(timeline: &Timeline) -> String {
    let moves = &timeline.frames.moves;
    if moves.is_empty() {
        return String::new();
    }
    let count = |wanted: Move| moves.iter().filter(|(_, _, what)| *what == wanted).count();
    let scale = Scale::of_moves(timeline);
    format!(
        "<h2>What the pager did</h2>\n<p class=\"legend\"><span><i class=\"out\"></i>{} out</span><span><i class=\"in\"></i>{} in</span>\
         <span><i class=\"again\"></i>{} in again</span><span class=\"soft\">darker: more often</span></p>\n<div class=\"wide\">{}{}</div>\n",
        count(Move::Out),
        count(Move::In),
        count(Move::Again),
        map(timeline, &scale),
        resident(timeline, &scale)
    )
}

/// Frame against time. Frames that did not move have no row.
fn map(timeline: &Timeline, scale: &Scale) -> String {
    let mut frames: Vec<Gfn> = timeline.frames.moves.iter().map(|(_, gfn, _)| *gfn).collect();
    frames.sort_unstable();
    frames.dedup();
    let a_row = frames.len().div_ceil(ROWS);
    let rows = frames.len().div_ceil(a_row);
    let mut cells: BTreeMap<(usize, u64), Cell> = BTreeMap::new();
    for (time, gfn, what) in &timeline.frames.moves {
        let row = frames.binary_search(gfn).unwrap_or(0) / a_row;
        let inside = time.saturating_sub(scale.from).min(scale.span);
        let column = u64::try_from(u128::from(inside) * u128::from(COLUMNS) / u128::from(scale.span)).unwrap_or(0);
        let cell = cells.entry((row, column.min(COLUMNS - 1))).or_default();
        match what {
            Move::Out => cell.out += 1,
            Move::In => cell.came += 1,
            Move::Again => cell.again += 1,
        }
    }
    let most = cells.values().map(|cell| cell.out.max(cell.came).max(cell.again)).max().unwrap_or(1);
    let height = TOP + rows as f64 * CELL + 8.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Frames that went out and came in, over time\">{}",
        scale.axis(height)
    );
    let width = (WIDTH - LEFT) / COLUMNS as f64;
    for ((row, column), cell) in &cells {
        // What came again is what a pager chose wrongly: it is shown before the rest.
        let (class, times) = match cell {
            Cell { again: 1.., .. } => ("again", cell.again),
            Cell { came: 1.., .. } => ("in", cell.came),
            Cell { out, .. } => ("out", *out),
        };
        let opacity = 0.35 + 0.65 * f64::from(times).ln_1p() / f64::from(most).ln_1p();
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"{CELL}\" fill-opacity=\"{opacity:.2}\">\
             <title>{} out, {} in, {} again: frames {} to {}</title></rect>",
            LEFT + *column as f64 * width,
            TOP + *row as f64 * CELL,
            cell.out,
            cell.came,
            cell.again,
            frames[row * a_row],
            frames[((row + 1) * a_row - 1).min(frames.len() - 1)]
        );
    }
    let ends = [(TOP + 9.0, frames[0]), (height - 9.0, frames[frames.len() - 1])];
    for (y, gfn) in ends.into_iter().take(rows.min(2)) {
        let _ = write!(svg, "<text x=\"0\" y=\"{y}\">{gfn}</text>");
    }
    svg + "</svg>\n"
}

/// Frames that the domain held, against its budget.
fn resident(timeline: &Timeline, scale: &Scale) -> String {
    // What held before the time that is shown counts only as it was then.
    let shown = |points: &[(u64, u64)]| {
        let first = points.partition_point(|(time, _)| *time <= scale.from).saturating_sub(1);
        points[first..].to_vec()
    };
    let (held, budgets) = (shown(&timeline.frames.resident), shown(&timeline.frames.budget));
    let all = held.iter().chain(&budgets).map(|(_, count)| *count);
    let (most, least) = (all.clone().max().unwrap_or(1), all.min().unwrap_or(0));
    // From nothing, unless that would flatten the line.
    let floor = if least * 2 > most { least - (most - least).min(least) } else { 0 };
    let y = |count: u64| TOP + CHART - (count - floor) as f64 / (most - floor).max(1) as f64 * CHART;
    let line = |points: &[(u64, u64)]| {
        let mut path = String::new();
        let mut last = None;
        for (time, count) in points {
            let x = scale.x(*time);
            match last {
                None => drop(write!(path, "M{LEFT} {:.1}L{x:.1} {:.1}", y(*count), y(*count))),
                Some(before) => drop(write!(path, "L{x:.1} {:.1}L{x:.1} {:.1}", y(before), y(*count))),
            }
            last = Some(*count);
        }
        last.map_or(path.clone(), |count| path + &format!("L{WIDTH} {:.1}", y(count)))
    };
    let height = TOP + CHART + 8.0;
    let budget = match budgets.last() {
        Some((_, frames)) => {
            format!("<text class=\"budget-name\" x=\"0\" y=\"{:.1}\">budget {frames}</text>", TOP + 40.0)
        }
        None => format!("<text class=\"soft\" x=\"0\" y=\"{:.1}\">no budget</text>", TOP + 40.0),
    };
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Frames held and the budget, over time\">\
         <rect class=\"row\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{}\" height=\"{CHART}\"/>\
         <path class=\"resident\" d=\"{}\"/><path class=\"budget\" d=\"{}\"/>\
         <text x=\"0\" y=\"{:.1}\">resident</text><text class=\"soft\" x=\"0\" y=\"{:.1}\">{floor} to {most}</text>{budget}</svg>\n",
        WIDTH - LEFT,
        line(&held),
        line(&budgets),
        TOP + 10.0,
        TOP + 25.0
    )
}
