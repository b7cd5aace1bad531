//! How long vCPUs are waited for that the machine may keep from coming.

use crate::host::vcpu::Vcpu;
use mem_event::VcpuId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A wait that is over when none of those who are waited for has been on its way for so long.
#[derive(Debug)]
pub struct Patience {
    most: Duration,
    since: Instant,
    /// How long each had run when the time had passed for the first time.
    had_run: BTreeMap<VcpuId, Duration>,
}

impl Patience {
    /// It begins now.
    pub fn of(most: Duration) -> Patience {
        Patience { most, since: Instant::now(), had_run: BTreeMap::new() }
    }

    /// Whether it is over. Who is waited for is asked when the time has passed, which begins anew while one of them only wants a core.
    pub fn is_over<'a>(&mut self, waited_for: impl FnOnce() -> Vec<&'a Vcpu>) -> bool {
        if self.since.elapsed() <= self.most {
            return false;
        }
        let is_on_its_way = waited_for().into_iter().any(|vcpu| {
            let had_run = *self.had_run.entry(vcpu.id).or_insert_with(|| vcpu.has_run());
            vcpu.wants_a_core(had_run, self.most)
        });
        if is_on_its_way {
            self.since = Instant::now();
        }
        !is_on_its_way
    }
}
