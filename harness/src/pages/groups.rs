//! Pages in a row that hold the same, were touched in the same ways, first by the same.

use super::names::Names;
use super::touched::{Pages, Touch};
use mem_event::Rights;

/// Some pages in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The first frame.
    pub gfn: u64,
    /// How many.
    pub count: u64,
    /// What lies there.
    pub what: String,
    /// What was done to each of them.
    pub rights: Rights,
    /// The first touch of any.
    pub first: Touch,
    /// The last touch of any that was seen.
    pub last: Touch,
    /// Who made each one's first touch.
    pub first_by: String,
    /// Who made the last touch of any.
    pub last_by: String,
    /// In how many windows one of them was touched, at most.
    pub windows: usize,
}

/// The groups, in order of their frames.
#[must_use]
pub fn groups(pages: &Pages, names: &Names<'_>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (gfn, page) in &pages.pages {
        let (what, first_by) = (names.page(*gfn, page), names.by(&page.first));
        let windows = page.windows.len();
        if let Some(last) = groups.last_mut()
            && last.gfn + last.count == *gfn
            && (last.rights, &last.what, &last.first_by) == (page.rights, &what, &first_by)
        {
            last.count += 1;
            last.windows = last.windows.max(windows);
            if page.first.at < last.first.at {
                last.first = page.first;
            }
            if page.last.at >= last.last.at {
                (last.last, last.last_by) = (page.last, names.by(&page.last));
            }
            continue;
        }
        let (first, last, last_by) = (page.first, page.last, names.by(&page.last));
        groups.push(Group { gfn: *gfn, count: 1, what, rights: page.rights, first, last, first_by, last_by, windows });
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::groups;
    use crate::guest::symbols::Symbols;
    use crate::pages::names::Names;
    use crate::pages::touched::sample::pages;
    use mem_event::Rights;

    #[test]
    fn pages_in_a_row_that_are_alike_are_one_group() {
        let (pages, symbols) = (pages(), Symbols::from_list(&[("a", 0x1000, 0x20)]));
        let groups = groups(&pages, &Names::new(&pages, &symbols));
        let told: Vec<_> = groups
            .iter()
            .map(|it| (it.gfn, it.count, it.what.as_str(), it.rights, it.first_by.as_str(), it.windows))
            .collect();
        let expected = [
            (1, 1, "a", Rights::X, "a", 1),
            (5, 2, "ram", Rights::RW, "a", 2),
            (9, 1, "ram", Rights::W, "a device", 1),
        ];
        assert_eq!(told, expected);
        assert_eq!((groups[1].first.at, groups[1].last.at), (1_000_000, 2_500_000_000));
    }
}
