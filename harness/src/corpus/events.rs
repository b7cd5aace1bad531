//! The scenarios that go through the kinds of events, each with a guest of its own.

use super::{described, set, step, with_slots};
use crate::scenario::{Rule, Scenario, Then};
use mem_event::AccessType;

/// Each case begins with no right on either symbol's pages and takes what it needs, access by access.
pub(super) fn operands() -> Scenario {
    Scenario {
        cpu: Some("max".into()),
        access: with_slots(0),
        steps: vec![
            step(1, vec![set("SOURCE", AccessType::N), set("WATCHED", AccessType::N)]),
            step(2, vec![set("SOURCE", AccessType::Rwx), set("WATCHED", AccessType::Rwx)]),
        ],
        rules: vec![Rule { then: Then::Grant, ..Rule::default() }],
        ..described("operands", "every kind of memory operand: which addresses, which rights, in which order")
    }
}
