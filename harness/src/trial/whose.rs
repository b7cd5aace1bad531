//! Which of a recording's control operations were the consumer's under test, and which somebody else's.

use mem_event::trace::{Remark, Step};
use mem_event::{Control, Input, Outcome, Ring};
use std::collections::{BTreeSet, HashMap};

/// Tells them apart: by connection, and where the recording does not say whose a step was, by kind.
#[derive(Clone, Debug)]
pub struct Whose {
    rings: Vec<Ring>,
    /// The connections that enabled the rings under test.
    consumers: BTreeSet<u32>,
    /// The connections of processes.
    processes: HashMap<u32, u32>,
    /// Processes that hold a ring which is not under test, or act as the toolstack.
    others: BTreeSet<u32>,
}

impl Whose {
    /// For a consumer of these rings.
    #[must_use]
    pub fn new(rings: &[Ring]) -> Whose {
        let (consumers, processes, others) = (BTreeSet::new(), HashMap::new(), BTreeSet::new());
        Whose { rings: rings.to_vec(), consumers, processes, others }
    }

    /// What stood between the steps.
    pub fn heard(&mut self, remark: &Remark) {
        if let Remark::Came { connection, process, .. } = remark {
            if self.processes.is_empty() {
                // Whoever is there first starts the others.
                self.others.insert(*process);
            }
            self.processes.insert(*connection, *process);
        }
    }

    /// Whether a connection is the consumer's under test.
    #[must_use]
    pub fn is_of(&self, connection: u32) -> bool {
        let strange = |process: &u32| *process != 0 && !self.others.contains(process);
        self.consumers.contains(&connection) || self.processes.get(&connection).is_some_and(strange)
    }

    /// Whether this step is a call of the consumer under test; `asked` is whether one of its requests is out.
    pub fn is_consumers(&mut self, step: &Step, asked: bool) -> bool {
        let Input::Control(control) = &step.input else { return false };
        if let Control::Enable { ring, .. } = control
            && !matches!(step.outcome, Outcome::Refused(..))
        {
            if self.rings.contains(ring) {
                self.consumers.insert(step.connection);
            } else {
                self.others.extend(self.processes.get(&step.connection));
            }
        }
        if step.connection == 0 { self.is_call(control, asked) } else { self.is_of(step.connection) }
    }

    /// Whether a consumer of these rings makes such a call, as far as its kind tells.
    #[must_use]
    pub fn is_call(&self, control: &Control, asked: bool) -> bool {
        let has = |ring| self.rings.contains(&ring);
        match control {
            Control::Nominate { .. } | Control::Evict { .. } | Control::Prep { .. } => has(Ring::Paging),
            Control::SetAccess { .. }
            | Control::SetViewAccess { .. }
            | Control::SwitchView { .. }
            | Control::SwitchVcpuView { .. }
            | Control::SetDefaultAccess { .. }
            | Control::Monitor { .. }
            | Control::SingleStep { .. }
            | Control::Inject { .. } => has(Ring::Access) && asked,
            Control::Disable { ring, .. } => has(*ring),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Whose;
    use mem_event::trace::{Remark, Step};
    use mem_event::{Control, Effects, Gfn, Input, Layout, Outcome, Ring};

    fn step(connection: u32, control: Control) -> Step {
        let (input, outcome, effects) = (Input::Control(control), Outcome::Proceed, Effects::default());
        Step { time: 0, code: Vec::new(), connection, input, outcome, effects }
    }

    #[test]
    fn a_call_is_the_consumers_by_its_connection_and_by_the_process_that_it_runs_in() {
        let mut whose = Whose::new(&[Ring::Access]);
        for (connection, process) in [(1, 10), (2, 10), (3, 11), (4, 10)] {
            whose.heard(&Remark::Came { connection, process, user: 0, program: String::new() });
        }
        let enable = |ring| Control::Enable { ring, layout: Layout::Flags32, slots: 0 };
        whose.is_consumers(&step(2, enable(Ring::Access)), false);
        whose.is_consumers(&step(4, enable(Ring::Paging)), false);
        let called = |whose: &mut Whose, connection| {
            whose.is_consumers(&step(connection, Control::Nominate { gfn: Gfn(1) }), false)
        };
        assert_eq!([1, 2, 3, 4].map(|connection| called(&mut whose, connection)), [false, true, true, false]);
    }
}
