//! The list of rules.

use super::rule::Rule;
use super::{
    answer_for_nobody, broken_ring, changed_contents, endless_wait, evict_fail_storm, ignored_answer, left_monitor,
    never_signalled, not_paused, refused_calls, same_event, slot_kept,
};

/// A rule that has seen nothing yet.
type Make = fn() -> Box<dyn Rule>;

/// All rules: causes first, what follows from them at the end.
pub const RULES: [Make; 12] = [
    not_paused::rule,
    answer_for_nobody::rule,
    ignored_answer::rule,
    broken_ring::rule,
    changed_contents::rule,
    never_signalled::rule,
    same_event::rule,
    slot_kept::rule,
    refused_calls::rule,
    evict_fail_storm::rule,
    left_monitor::rule,
    endless_wait::rule,
];
