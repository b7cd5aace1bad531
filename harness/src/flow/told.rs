//! What a run came to.

use crate::simulate::figures::jain;
use mem_event::flow::FlowKind;
use serde::Serialize;

/// What a vCPU waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum For {
    /// An answer.
    Answer,
    /// Room on the ring.
    Room,
}

/// A vCPU that waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Span {
    pub vcpu: u32,
    pub what: For,
    pub from: u64,
    pub to: u64,
}

/// The figures of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Told {
    #[serde(serialize_with = "name")]
    pub flow: FlowKind,
    /// How the run ended, in words.
    pub ended: String,
    /// Requests that went onto a ring.
    pub events: u64,
    /// Requests that came to nothing.
    pub lost: u64,
    /// Callers that were told to come back.
    pub refused: u64,
    /// Wakes after which the vCPU slept again.
    pub in_vain: u64,
    /// The longest wait for room, in `unit`.
    pub longest: u64,
    /// Jain's index over the vCPUs' events; 1 where all have as many.
    pub fairness: f64,
    /// vCPUs that never got room.
    pub hung: Vec<u32>,
    /// "ns", or "steps" of a schedule.
    pub unit: &'static str,
    /// When it ended.
    pub end: u64,
    #[serde(skip)]
    pub spans: Vec<Span>,
    /// Losses, as vCPU and time.
    #[serde(skip)]
    pub losses: Vec<(u32, u64)>,
}

fn name<S: serde::Serializer>(flow: &FlowKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(flow.name())
}

/// What is known while a run goes on.
#[derive(Debug)]
pub struct Watch {
    told: Told,
    events: Vec<u64>,
    /// Who waits for what, and since when.
    since: Vec<Option<(For, u64)>>,
    /// Woken for room, and has not shown yet whether there was any.
    woken: Vec<bool>,
}

impl Watch {
    pub fn new(flow: FlowKind, vcpus: usize, unit: &'static str) -> Watch {
        let told = Told {
            flow,
            ended: String::new(),
            events: 0,
            lost: 0,
            refused: 0,
            in_vain: 0,
            longest: 0,
            fairness: 1.0,
            hung: Vec::new(),
            unit,
            end: 0,
            spans: Vec::new(),
            losses: Vec::new(),
        };
        Watch { told, events: vec![0; vcpus], since: vec![None; vcpus], woken: vec![false; vcpus] }
    }

    pub fn put(&mut self, vcpu: Option<u32>) {
        self.told.events += 1;
        if let Some(count) = vcpu.and_then(|vcpu| self.events.get_mut(vcpu as usize)) {
            *count += 1;
        }
    }

    pub fn lost(&mut self, vcpu: u32, now: u64) {
        self.told.lost += 1;
        self.told.losses.push((vcpu, now));
    }

    pub fn refused(&mut self) {
        self.told.refused += 1;
    }

    pub fn wakes(&mut self, vcpu: u32) {
        let at = vcpu as usize;
        if let (Some(woken), Some(Some((For::Room, _)))) = (self.woken.get_mut(at), self.since.get(at)) {
            *woken = true;
        }
    }

    /// A vCPU waits for this now, or for nothing.
    pub fn waits(&mut self, vcpu: u32, what: Option<For>, now: u64) {
        let at = vcpu as usize;
        let Some(since) = self.since.get_mut(at) else { return };
        let woken = std::mem::take(&mut self.woken[at]);
        if woken && what == Some(For::Room) {
            self.told.in_vain += 1;
        }
        if since.map(|(was, _)| was) == what {
            return;
        }
        if let Some((was, from)) = std::mem::replace(since, what.map(|what| (what, now))) {
            self.close(vcpu, was, from, now);
        }
    }

    fn close(&mut self, vcpu: u32, what: For, from: u64, to: u64) {
        if what == For::Room {
            self.told.longest = self.told.longest.max(to - from);
        }
        self.told.spans.push(Span { vcpu, what, from, to });
    }

    /// The run ends: who still waits for room has hung.
    pub fn end(mut self, ended: String, now: u64) -> Told {
        for vcpu in 0..self.since.len() {
            if let Some((what, from)) = self.since[vcpu].take() {
                let number = u32::try_from(vcpu).unwrap_or(u32::MAX);
                if what == For::Room {
                    self.told.hung.push(number);
                }
                self.close(number, what, from, now);
            }
        }
        self.told.fairness = jain(self.events.iter().copied());
        Told { ended, end: now, ..self.told }
    }
}

#[cfg(test)]
mod tests {
    use super::{For, Watch};
    use crate::simulate::figures::jain;
    use mem_event::flow::FlowKind;

    #[test]
    fn one_of_four_that_has_everything_has_a_quarter_of_fairness() {
        assert_eq!((jain([8, 0, 0, 0].into_iter()), jain([2, 2, 2, 2].into_iter())), (0.25, 1.0));
    }

    #[test]
    fn a_wake_is_in_vain_where_the_vcpu_sleeps_again_and_a_sleeper_at_the_end_has_hung() {
        let mut watch = Watch::new(FlowKind::CheckRing, 2, "steps");
        watch.waits(1, Some(For::Room), 3);
        watch.wakes(1);
        watch.waits(1, Some(For::Room), 5);
        let told = watch.end(String::new(), 9);
        assert_eq!((told.in_vain, told.longest, told.hung), (1, 6, vec![1]));
    }
}
