//! Who shows whose page of the memory file.
//!
//! A group has one *keeper*, whose own page all show; the others, the *borrowers*, have given theirs back. So a frame that borrows
//! nothing lies at its own place in the file, and the page of a frame that borrows is a hole.

use mem_event::Gfn;
use std::collections::{BTreeMap, BTreeSet};

/// All groups.
#[derive(Debug, Default)]
pub struct Shares {
    keepers: BTreeMap<Gfn, Gfn>,
    borrowers: BTreeMap<Gfn, BTreeSet<Gfn>>,
}

/// What must happen before a frame can leave its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Nothing: it shares with nobody.
    Alone,
    /// It shows the page of this one.
    Borrows(Gfn),
    /// It keeps the page. One of those that borrow it must keep it from now on, and the others borrow it there.
    Keeps {
        /// Who.
        heir: Gfn,
        /// The others.
        others: Vec<Gfn>,
    },
}

impl Shares {
    /// The frame whose page this one shows: itself, unless it borrows.
    pub fn keeper(&self, gfn: Gfn) -> Gfn {
        self.keepers.get(&gfn).copied().unwrap_or(gfn)
    }

    /// Whether it shows another one's page.
    pub fn borrows(&self, gfn: Gfn) -> bool {
        self.keepers.contains_key(&gfn)
    }

    /// Whether others show its page.
    pub fn keeps(&self, gfn: Gfn) -> bool {
        self.borrowers.contains_key(&gfn)
    }

    /// How many borrow.
    pub fn borrowed(&self) -> u64 {
        self.keepers.len() as u64
    }

    /// The client shows from now on what the source shows. It must be alone.
    pub fn join(&mut self, source: Gfn, client: Gfn) {
        let keeper = self.keeper(source);
        self.keepers.insert(client, keeper);
        self.borrowers.entry(keeper).or_default().insert(client);
    }

    /// How this frame can leave.
    pub fn parting(&self, gfn: Gfn) -> Parting {
        if let Some(keeper) = self.keepers.get(&gfn) {
            return Parting::Borrows(*keeper);
        }
        let Some(borrowers) = self.borrowers.get(&gfn) else { return Parting::Alone };
        // The one in the middle: a guest that writes to all in order, up or down, then meets the keeper a few times and not each time.
        let mut others: Vec<Gfn> = borrowers.iter().copied().collect();
        let Some(heir) = others.get(others.len() / 2).copied() else { return Parting::Alone };
        others.retain(|other| *other != heir);
        Parting::Keeps { heir, others }
    }

    /// It has left, as [`Shares::parting`] said.
    pub fn leave(&mut self, gfn: Gfn) {
        match self.parting(gfn) {
            Parting::Alone => {}
            Parting::Borrows(keeper) => {
                self.keepers.remove(&gfn);
                if let Some(borrowers) = self.borrowers.get_mut(&keeper) {
                    borrowers.remove(&gfn);
                    if borrowers.is_empty() {
                        self.borrowers.remove(&keeper);
                    }
                }
            }
            Parting::Keeps { heir, others } => {
                self.borrowers.remove(&gfn);
                self.keepers.remove(&heir);
                others.into_iter().for_each(|other| {
                    self.keepers.remove(&other);
                    self.join(heir, other);
                });
            }
        }
    }

    /// The frames of a run that borrow nothing, as runs.
    pub fn unborrowed(&self, first: Gfn, count: u64) -> Vec<(Gfn, u64)> {
        let end = first.0.saturating_add(count);
        let mut runs = Vec::new();
        let mut from = first.0;
        for borrower in self.keepers.range(first..Gfn(end)).map(|(gfn, _)| gfn.0).chain([end]) {
            if borrower > from {
                runs.push((Gfn(from), borrower - from));
            }
            from = borrower + 1;
        }
        runs
    }
}
