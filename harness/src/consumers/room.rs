//! How many frames may come in before others must go, as far as a pager knows: the guest takes some without a word.

/// Room for frames; without a budget there is always some.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room(Option<u64>);

impl Room {
    /// What a budget leaves.
    #[must_use]
    pub fn of(budget: u64, resident: u64) -> Room {
        Room(Some(budget.saturating_sub(resident)))
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_none(self) -> bool {
        self.0 == Some(0)
    }

    /// A budget turned out to be used up.
    pub fn is_used_up(&mut self) {
        self.0 = Some(0);
    }

    /// A frame has come in.
    pub fn comes_in(&mut self) {
        self.0 = self.0.map(|room| room.saturating_sub(1));
    }

    /// So many frames have gone.
    pub fn go(&mut self, frames: usize) {
        self.0 = self.0.map(|room| room.saturating_add(frames as u64));
    }
}
