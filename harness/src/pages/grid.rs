//! Memory and time in cells. Memory that nobody touched takes no row.

use super::touched::Pages;
use mem_event::Rights;
use std::collections::BTreeMap;

/// What was touched of some frames in some windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Pages, each counted once a window; of several windows the most.
    pub pages: u32,
    /// All that was done to them.
    pub rights: Rights,
}

/// The cells.
#[derive(Clone, Debug)]
pub struct Grid {
    /// How many frames a row has.
    pub frames: u64,
    /// How many windows a column has.
    pub windows: u32,
    /// How many columns.
    pub columns: u32,
    /// By the first frame of each row that has any, the cells by their columns.
    pub rows: BTreeMap<u64, BTreeMap<u32, Cell>>,
}

impl Grid {
    /// Of so many rows and columns at most.
    #[must_use]
    pub fn of(pages: &Pages, rows: usize, columns: u32) -> Grid {
        let frames = frames_of_a_row(pages, rows);
        let all = u32::try_from(pages.working_set().len()).unwrap_or(u32::MAX);
        let windows = all.div_ceil(columns).max(1);
        let mut counts: BTreeMap<(u64, u32), Cell> = BTreeMap::new();
        for (gfn, page) in &pages.pages {
            for (window, rights) in &page.windows {
                let cell = counts.entry((gfn / frames * frames, *window)).or_insert(Cell { pages: 0, rights: *rights });
                *cell = Cell { pages: cell.pages + 1, rights: cell.rights.union(*rights) };
            }
        }
        let mut grid = Grid { frames, windows, columns: all.div_ceil(windows), rows: BTreeMap::new() };
        for ((row, window), cell) in counts {
            let column = grid.rows.entry(row).or_default().entry(window / windows).or_insert(cell);
            *column = Cell { pages: column.pages.max(cell.pages), rights: column.rights.union(cell.rights) };
        }
        grid
    }
}

/// The smallest power of two with which the rows suffice.
fn frames_of_a_row(pages: &Pages, rows: usize) -> u64 {
    let count = |frames: u64| {
        let mut rows: Vec<u64> = pages.pages.keys().map(|gfn| gfn / frames).collect();
        rows.dedup();
        rows.len()
    };
    (0..40).map(|power| 1 << power).find(|frames| count(*frames) <= rows.max(1)).unwrap_or(1 << 40)
}

#[cfg(test)]
mod tests {
    use super::{Cell, Grid};
    use crate::pages::touched::sample::pages;
    use mem_event::Rights;

    #[test]
    fn rows_are_as_small_as_fits_and_those_without_a_touch_are_left_out() {
        let whole = Grid::of(&pages(), 8, 8);
        assert_eq!((whole.frames, whole.windows, whole.columns), (1, 1, 3));
        assert_eq!(whole.rows.keys().copied().collect::<Vec<_>>(), [1, 5, 6, 9]);
        assert_eq!(whole.rows[&6][&2], Cell { pages: 1, rights: Rights::W });
        let small = Grid::of(&pages(), 2, 1);
        assert_eq!((small.frames, small.windows, small.columns), (8, 3, 1));
        assert_eq!(small.rows[&0][&0], Cell { pages: 3, rights: Rights::RWX }, "three in the fullest window");
        assert_eq!(small.rows[&8][&0], Cell { pages: 1, rights: Rights::W });
    }

    #[test]
    fn without_a_touch_there_is_no_cell() {
        let empty = Grid::of(&crate::pages::touched::Pages::new(std::time::Duration::from_secs(1)), 8, 8);
        assert!(empty.rows.is_empty() && empty.columns == 0);
    }
}
