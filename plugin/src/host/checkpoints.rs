//! The checkpoints and breakpoints that a vCPU has reached and not passed.
//!
//! While a vCPU stands at one it leaves its block now and then, and may take an interrupt whose handler reaches another one, or the
//! same one again. So there are several, told apart by place and nesting: the instruction, and the stack and page tables that the
//! vCPU reached it with. One that it comes back to is not announced again, and one that it meets on the way is.
//!
//! Clients hear of arrivals in their order, and let vCPUs go on by their number alone. So each release is for the oldest arrival that
//! has none, wherever the vCPU stands by then.

use crate::host::word::Word;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Passed over beyond these: released ones that the guest never came back to, the oldest first.
const MOST_RELEASED: usize = 64;

/// One arrival: place and nesting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The linear address of the instruction.
    pub rip: u64,
    /// The linear address of the stack's top.
    pub stack: u64,
    /// CR3.
    pub tables: u64,
}

/// All arrivals that were not passed, the oldest first.
#[derive(Debug, Default)]
pub struct Arrivals(Vec<(Arrival, Release)>);

/// Whether a vCPU may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// A client is to let it go on.
    Awaited,
    /// A client did.
    Given,
}

impl Arrivals {
    /// The vCPU is there. `None`: for the first time, which is to be announced; else whether it may pass.
    pub fn arrive(&mut self, arrival: Arrival) -> Option<Release> {
        let known = self.0.iter().find(|(known, _)| *known == arrival).map(|(_, release)| *release);
        if known.is_none() {
            self.0.push((arrival, Release::Awaited));
            let given = |(_, release): &(Arrival, Release)| *release == Release::Given;
            if self.0.iter().filter(|it| given(it)).count() > MOST_RELEASED
                && let Some(oldest) = self.0.iter().position(given)
            {
                self.0.remove(oldest);
            }
        }
        known
    }

    /// The oldest arrival that awaits its release has it now; says which.
    pub fn release_oldest(&mut self) -> Option<Arrival> {
        let (arrival, release) = self.0.iter_mut().find(|(_, release)| *release == Release::Awaited)?;
        *release = Release::Given;
        Some(*arrival)
    }

    /// This arrival has its release.
    pub fn release(&mut self, arrival: Arrival) {
        self.0.iter_mut().filter(|(known, _)| *known == arrival).for_each(|(_, release)| *release = Release::Given);
    }

    /// The vCPU executes the instruction.
    pub fn pass(&mut self, arrival: Arrival) {
        self.0.retain(|(known, _)| *known != arrival);
    }

    /// The vCPU is gone.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether one awaits its release.
    pub fn is_waiting(&self) -> bool {
        self.waiting() > 0
    }

    /// How many await their release.
    pub fn waiting(&self) -> usize {
        self.0.iter().filter(|(_, release)| *release == Release::Awaited).count()
    }
}

/// A vCPU's arrivals, and what it sleeps on at the one where it stands.
#[derive(Debug, Default)]
pub struct Checkpoints {
    /// Stopped while the arrival at which the vCPU stands has no release. Changed under the lock of the arrivals.
    pub word: Word,
    arrivals: Mutex<Arrivals>,
}

impl Checkpoints {
    /// The arrivals. The state of the vCPU is locked after them, where both are.
    pub fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
