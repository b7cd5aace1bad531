//! Memory and time as one page that needs nothing else: a heat map, the working set below it on the same axis, and the table.

use super::grid::{Cell, Grid};
use super::groups::{Group, groups};
use super::names::Names;
use super::touched::Pages;
use crate::guest::symbols::Symbols;
use crate::output::{escaped, page_head};
use crate::trace::row::duration;
use mem_event::Rights;
use std::fmt::Write;

const STYLE: &str = concat!(include_str!("../trace/export/page/page.css"), include_str!("page.css"));
const ROWS: usize = 160;
const COLUMNS: u32 = 240;
const LEFT: u32 = 90;
const WIDTH: u32 = 1000;
const ROW: u32 = 6;
/// Between rows whose frames do not follow each other.
const GAP: u32 = 3;
/// Between two names of frames: a line of text.
const NAMED: u32 = 12;
const BARS: u32 = 90;
const MARKS: u32 = 6;
/// Rows of the table; a page with very many is slow to show.
const TABLE: usize = 2000;

/// The page.
#[must_use]
pub fn page(name: &str, pages: &Pages, symbols: &Symbols) -> String {
    let names = Names::new(pages, symbols);
    let grid = Grid::of(pages, ROWS, COLUMNS);
    let name = escaped(name);
    let mut text = page_head(&format!("Pages of {name}"), STYLE);
    let _ = writeln!(
        text,
        "<h1>Which pages {name} touches</h1>\n\
         <p class=\"soft\">{} pages. A row is {} frames from the one named, memory without a touch has none; a column is {}. \
         A full colour is a row all of whose pages were touched.</p>\n\
         <p class=\"legend\"><span><i class=\"x\"></i>executed</span><span><i class=\"w\"></i>written</span>\
         <span><i class=\"r\"></i>read alone</span></p>",
        pages.pages.len(),
        grid.frames,
        duration(pages.window.saturating_mul(grid.windows.into())),
    );
    heat(&mut text, &grid, pages);
    table(&mut text, &groups(pages, &names));
    text + "</body></html>\n"
}

/// Where a column begins.
fn x(column: u32, columns: u32) -> f64 {
    f64::from(LEFT) + f64::from(WIDTH) * f64::from(column) / f64::from(columns.max(1))
}

fn heat(text: &mut String, grid: &Grid, pages: &Pages) {
    let mut rows = Vec::new();
    let (mut y, mut before, mut named) = (10, None, None);
    for (row, cells) in &grid.rows {
        if before.is_some_and(|before| before + grid.frames != *row) {
            y += GAP;
        }
        rows.push((y, *row, cells));
        y += ROW;
        before = Some(*row);
    }
    let height = y + 30 + BARS + 30;
    let _ = write!(
        text,
        "<div class=\"wide\"><svg viewBox=\"0 0 {} {height}\" role=\"img\" aria-label=\"frames by time\">",
        LEFT + WIDTH + 40
    );
    for (y, row, cells) in rows {
        if named.is_none_or(|named| y >= named + NAMED) {
            named = Some(y);
            let _ = write!(text, "<text class=\"small\" x=\"0\" y=\"{}\">{row:#x}</text>", y + ROW);
        }
        let _ = write!(text, "<rect class=\"row\" x=\"{LEFT}\" y=\"{y}\" width=\"{WIDTH}\" height=\"{ROW}\"/>");
        for (column, cell) in cells {
            square(text, grid, (*column, y), cell);
        }
    }
    bars(text, pages, grid, y + 30);
    *text += "</svg></div>\n";
}

fn square(text: &mut String, grid: &Grid, (column, y): (u32, u32), cell: &Cell) {
    let class = if cell.rights.contains(Rights::X) {
        "x"
    } else if cell.rights.contains(Rights::W) {
        "w"
    } else {
        "r"
    };
    // One page among many is to be seen, too.
    let share = (f64::from(cell.pages) / grid.frames as f64).sqrt().clamp(0.25, 1.0);
    let (from, to) = (x(column, grid.columns), x(column + 1, grid.columns));
    let _ = write!(
        text,
        "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{ROW}\" opacity=\"{share:.2}\"/>",
        (to - from).max(1.0)
    );
}

/// The working set of each column, and the axis.
fn bars(text: &mut String, pages: &Pages, grid: &Grid, top: u32) {
    let working_set = pages.working_set();
    let most = working_set.iter().copied().max().unwrap_or(0).max(1);
    let bottom = top + BARS;
    for (column, windows) in (0..).zip(working_set.chunks(grid.windows as usize)) {
        let count = windows.iter().copied().max().unwrap_or(0);
        let tall = f64::from(BARS) * count as f64 / most as f64;
        let (from, to) = (x(column, grid.columns), x(column + 1, grid.columns));
        let _ = write!(
            text,
            "<rect class=\"count\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\"><title>{count} pages</title></rect>",
            f64::from(bottom) - tall,
            (to - from - 0.5).max(0.5)
        );
    }
    let window = duration(pages.window);
    let _ = write!(
        text,
        "<text class=\"small\" x=\"0\" y=\"{}\">{most} pages</text><text class=\"small soft\" x=\"0\" y=\"{}\">in {window}</text>",
        top + 8,
        top + 20
    );
    let all = pages.window.saturating_mul(u64::from(grid.windows) * u64::from(grid.columns));
    for mark in 0..=MARKS {
        let at = LEFT + WIDTH * mark / MARKS;
        let time = duration(all / u64::from(MARKS) * u64::from(mark));
        let _ = write!(
            text,
            "<line class=\"grid\" x1=\"{at}\" x2=\"{at}\" y1=\"{top}\" y2=\"{bottom}\"/>\
             <text class=\"small soft\" x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{time}</text>",
            bottom + 14
        );
    }
}

fn table(text: &mut String, groups: &[Group]) {
    *text += "<h2>Pages in a row that are alike</h2>\n<div class=\"wide\"><table><tr><th>frames</th><th class=\"number\">pages</th>\
              <th>what</th><th>rights</th><th class=\"number\">first</th><th>by</th><th class=\"number\">last</th><th>by</th>\
              <th class=\"number\">windows</th></tr>\n";
    for group in groups.iter().take(TABLE) {
        let _ = writeln!(
            text,
            "<tr><td><code>{:#x}</code></td><td class=\"number\">{}</td><td>{}</td><td><code>{}</code></td>\
             <td class=\"number\">{}</td><td>{}</td><td class=\"number\">{}</td><td>{}</td><td class=\"number\">{}</td></tr>",
            group.gfn,
            group.count,
            escaped(&group.what),
            group.rights,
            duration(group.first.at),
            escaped(&group.first_by),
            duration(group.last.at),
            escaped(&group.last_by),
            group.windows,
        );
    }
    *text += "</table></div>\n";
    if groups.len() > TABLE {
        let _ = writeln!(text, "<p>The first {TABLE} rows of {}.</p>", groups.len());
    }
}

#[cfg(test)]
mod tests {
    use super::page;
    use crate::guest::symbols::Symbols;
    use crate::pages::touched::sample::pages;

    #[test]
    fn the_page_has_a_square_for_each_cell_and_loads_nothing() {
        let text = page("<a>", &pages(), &Symbols::default());
        assert!(text.contains("Which pages &lt;a&gt; touches") && !text.contains("http") && !text.contains("<script"));
        let squares = |class: &str| text.matches(&format!("<rect class=\"{class}\"")).count();
        assert_eq!((squares("x"), squares("w"), squares("r"), squares("row")), (1, 3, 1, 4));
    }
}
