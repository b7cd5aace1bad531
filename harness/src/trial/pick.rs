//! The inputs among which a seed may choose: those of different vCPUs up to the next one that is neither's.

use super::script::{Entry, Item};
use mem_event::VcpuId;
use std::collections::{BTreeMap, VecDeque};

/// Inputs by whose they are, none for devices; by their places in the recording.
#[derive(Debug, Default)]
pub struct Window {
    queues: BTreeMap<Option<VcpuId>, VecDeque<usize>>,
    /// The place of the next input that is nobody's: all before it come first.
    pub end: usize,
}

impl Window {
    /// Takes up the items from this place on, up to the next that is neither a vCPU's nor a device's.
    pub fn extend(&mut self, items: &[Item], from: usize) {
        self.end = items.len();
        for (place, item) in items.iter().enumerate().skip(from) {
            let whose = match &item.entry {
                Entry::Guest { vcpu, .. } | Entry::Stopped { vcpu, .. } | Entry::Released { vcpu, .. } => Some(*vcpu),
                Entry::Foreign(_) => None,
                // In which order the consumer does what it does is its own matter here.
                Entry::Answer { .. } | Entry::Call(_) => continue,
                Entry::Given(_) | Entry::Ordered(_) | Entry::Others { .. } => {
                    self.end = place;
                    return;
                }
            };
            self.queues.entry(whose).or_default().push_back(place);
        }
    }

    /// Whose next inputs may come, as far as `may` says so of the place.
    pub fn ready(&self, may: impl Fn(usize) -> bool) -> Vec<Option<VcpuId>> {
        let fronts = self.queues.iter().filter_map(|(whose, queue)| Some((whose, queue.front()?)));
        fronts.filter(|(_, place)| may(**place)).map(|(whose, _)| *whose).collect()
    }

    /// The next input of one of them.
    pub fn take(&mut self, whose: Option<VcpuId>) -> Option<usize> {
        self.queues.get_mut(&whose)?.pop_front()
    }

    /// Whether all came.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queues.values().all(VecDeque::is_empty)
    }
}
