//! What a rule finds: who did what wrong, shown by which steps, and what to do instead.

use crate::trace::story::{Story, consumer};
use mem_event::Ring;
use serde::Serialize;

/// Steps that a finding names at most.
const STEPS: usize = 6;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule's name.
    pub rule: &'static str,
    /// Who does it: the consumer of a ring, or a vCPU to which it happens.
    pub who: String,
    /// The connection of that consumer; none where it is not known.
    pub connection: Option<u32>,
    /// The name of that connection, with its number.
    pub by: Option<String>,
    /// What is wrong, the first time that it happened.
    pub says: String,
    /// What to do instead.
    pub remedy: &'static str,
    /// The steps that show it, the first time that it happened.
    pub steps: Vec<u64>,
    /// How often it happened.
    pub times: u64,
}

impl Finding {
    /// It in one line.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Finding { rule, says, remedy, times, .. } = self;
        let more = match times {
            0 | 1 => String::new(),
            2 => "; and once more".into(),
            times => format!("; and {} times more", times - 1),
        };
        let by = self.by.as_ref().map(|name| format!("; by {name}")).unwrap_or_default();
        format!("{says}{more}{by}; {remedy} [{rule}]")
    }
}

/// What one rule has found: of each consumer the first time, and how often.
#[derive(Debug)]
pub(super) struct Found {
    rule: &'static str,
    remedy: &'static str,
    findings: Vec<Finding>,
}

impl Found {
    /// Nothing yet. The remedy says what to do instead.
    pub fn new(rule: &'static str, remedy: &'static str) -> Found {
        Found { rule, remedy, findings: Vec::new() }
    }

    /// The consumer of a ring did it; `what` is called the first time only.
    pub fn consumer(&mut self, ring: Ring, story: &Story, what: impl FnOnce() -> (String, Vec<u64>)) {
        let connection = Some(story.owners[ring.index()]).filter(|it| *it != 0);
        self.add(consumer(ring).to_owned(), connection, story, what);
    }

    /// Somebody did it, or it happened to somebody.
    pub fn add(
        &mut self,
        who: String,
        connection: Option<u32>,
        story: &Story,
        what: impl FnOnce() -> (String, Vec<u64>),
    ) {
        let is_it = |finding: &&mut Finding| finding.who == who && finding.connection == connection;
        if let Some(before) = self.findings.iter_mut().find(is_it) {
            before.times += 1;
            return;
        }
        let (says, mut steps) = what();
        steps.dedup();
        steps.truncate(STEPS);
        let (by, rule, remedy) = (connection.map(|number| story.connections.name(number)), self.rule, self.remedy);
        self.findings.push(Finding { rule, who, connection, by, says, remedy, steps, times: 1 });
    }

    /// What was found.
    pub fn take(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }
}
