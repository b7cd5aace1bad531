//! The pages as a table with a picture, as CSV, as JSON.

use super::grid::Grid;
use super::groups::{Group, groups};
use super::names::Names;
use super::touched::Pages;
use crate::guest::symbols::Symbols;
use crate::output;
use comfy_table::Table;
use mem_event::Rights;
use serde_json::json;
use std::fmt::Write;

/// Rows of the table; the rest is counted.
const SHOWN: usize = 60;
/// Rows and columns of the picture.
const ROWS: usize = 32;
const COLUMNS: u32 = 60;
/// From few of a cell's pages to all.
const SHADES: [char; 4] = ['.', 'o', 'O', '#'];

/// Seconds.
fn seconds(nanoseconds: u64) -> String {
    format!("{}.{:03}", nanoseconds / 1_000_000_000, nanoseconds / 1_000_000 % 1000)
}

fn count(pages: &Pages, right: Rights) -> usize {
    pages.pages.values().filter(|page| page.rights.contains(right)).count()
}

/// How many pages, in a window at the median and at most.
fn of_a_window(working_set: &[u64]) -> (u64, u64) {
    let mut sorted = working_set.to_vec();
    sorted.sort_unstable();
    (sorted.get(sorted.len() / 2).copied().unwrap_or(0), sorted.last().copied().unwrap_or(0))
}

/// The table and the picture, for people.
#[must_use]
pub fn text(pages: &Pages, symbols: &Symbols) -> String {
    let names = Names::new(pages, symbols);
    let groups = groups(pages, &names);
    let mut text = table(&groups);
    if groups.len() > SHOWN {
        let _ = writeln!(text, "… and {} rows more: --csv FILE has every page", groups.len() - SHOWN);
    }
    text + "\n" + &picture(pages) + "\n" + &totals(pages)
}

fn table(groups: &[Group]) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["frames", "pages", "what", "rwx", "first s", "by", "last s", "by", "windows"]);
    for group in groups.iter().take(SHOWN) {
        let last = group.gfn + group.count - 1;
        let frames = if group.count == 1 { format!("{last:#x}") } else { format!("{:#x}..{:#x}", group.gfn, last + 1) };
        table.add_row([
            frames,
            group.count.to_string(),
            group.what.clone(),
            group.rights.to_string(),
            seconds(group.first.at),
            group.first_by.clone(),
            seconds(group.last.at),
            group.last_by.clone(),
            group.windows.to_string(),
        ]);
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn picture(pages: &Pages) -> String {
    let grid = Grid::of(pages, ROWS, COLUMNS);
    let mut text = format!(
        "each row {} frames, each column {} s; . o O # from few of its pages to all\n",
        grid.frames,
        seconds(pages.window * u64::from(grid.windows))
    );
    for (row, cells) in &grid.rows {
        let shade = |column| {
            cells.get(&column).map_or(' ', |cell| {
                let quarter = (u64::from(cell.pages) * 4).div_ceil(grid.frames).clamp(1, 4) - 1;
                SHADES[usize::try_from(quarter).unwrap_or(0)]
            })
        };
        let line: String = (0..grid.columns).map(shade).collect();
        let _ = writeln!(text, "{:>10}  |{line}|", format!("{row:#x}"));
    }
    text
}

fn totals(pages: &Pages) -> String {
    let working_set = pages.working_set();
    let (median, most) = of_a_window(&working_set);
    format!(
        "{} pages touched: {} read, {} written, {} executed\nworking set: {median} pages at the median, {most} at most, in {} windows of {} s\n",
        pages.pages.len(),
        count(pages, Rights::R),
        count(pages, Rights::W),
        count(pages, Rights::X),
        working_set.len(),
        seconds(pages.window),
    )
}

/// A line for every page.
#[must_use]
pub fn csv(pages: &Pages, symbols: &Symbols) -> String {
    let names = Names::new(pages, symbols);
    let mut text = String::from("version,gfn,what,rights,first_ns,first_by,last_ns,last_by,windows\n");
    for (gfn, page) in &pages.pages {
        let windows: Vec<String> = page.windows.iter().map(|(window, _)| window.to_string()).collect();
        let cells = [
            output::VERSION.to_string(),
            format!("{gfn:#x}"),
            names.page(*gfn, page),
            page.rights.to_string(),
            page.first.at.to_string(),
            names.by(&page.first),
            page.last.at.to_string(),
            names.by(&page.last),
            windows.join(" "),
        ];
        let _ = writeln!(text, "{}", cells.map(output::quoted).join(","));
    }
    text
}

/// A line of JSON with all.
///
/// # Errors
/// None that is known of.
pub fn json(pages: &Pages, symbols: &Symbols) -> serde_json::Result<String> {
    let names = Names::new(pages, symbols);
    let each = pages.pages.iter().map(|(gfn, page)| {
        json!({
            "gfn": format!("{gfn:#x}"), "what": names.page(*gfn, page), "rights": page.rights.to_string(),
            "first_ns": page.first.at, "first_by": names.by(&page.first),
            "last_ns": page.last.at, "last_by": names.by(&page.last),
            "windows": page.windows.iter().map(|(window, _)| window).collect::<Vec<_>>(),
        })
    });
    output::json(&json!({
        "event": "pages",
        "window_ns": pages.window,
        "working_set": pages.working_set(),
        "pages": each.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::{csv, text};
    use crate::guest::symbols::Symbols;
    use crate::pages::touched::sample::pages;

    #[test]
    fn the_table_has_a_row_for_pages_that_are_alike_and_the_csv_a_line_for_each() {
        let symbols = Symbols::from_list(&[("a", 0x1000, 0x20)]);
        let table = text(&pages(), &symbols);
        assert!(
            table.contains("0x5..0x7") && table.contains("4 pages touched: 2 read, 3 written, 1 executed"),
            "{table}"
        );
        assert!(table.contains("working set: 2 pages at the median, 3 at most, in 3 windows of 1.000 s"), "{table}");
        let lines = csv(&pages(), &symbols);
        assert!(lines.contains("\n2,0x6,ram,rw-,3000000,a,2500000000,a,0 2\n"), "{lines}");
        assert_eq!(lines.lines().count(), 1 + 4);
    }
}
