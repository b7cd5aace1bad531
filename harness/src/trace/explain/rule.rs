//! What a rule is told of each step.

use super::finding::Finding;
use crate::guest::symbols::Symbols;
use crate::trace::story::{Exchange, Story, Wait};
use mem_event::DomainConfig;
use mem_event::trace::{Remarked, Step};
use std::fmt::Debug;

/// A step, and how things stand after it.
#[derive(Debug)]
pub struct Moment<'a> {
    /// The step's number.
    pub number: u64,
    /// The step.
    pub step: &'a Step,
    /// What stands between the step before and this one.
    pub remarks: &'a [Remarked],
    /// The answers that it took, in their order, each with the request whose slot it gave back.
    pub exchanges: &'a [Exchange],
    /// The waits that it ended.
    pub waits: &'a [Wait],
    /// Who waits after it, and which requests are out.
    pub story: &'a Story,
    /// The domain.
    pub config: &'a DomainConfig,
    /// Its symbols.
    pub symbols: &'a Symbols,
}

/// The end of the trace.
#[derive(Debug)]
pub struct End<'a> {
    /// How many steps there were.
    pub steps: u64,
    /// When the last was; nanoseconds.
    pub time: u64,
    /// What stands after the last step.
    pub remarks: &'a [Remarked],
    /// Who waits, and which requests are out.
    pub story: &'a Story,
    /// The domain's symbols.
    pub symbols: &'a Symbols,
}

/// A rule: something that a consumer may do wrong.
pub trait Rule: Debug {
    /// The next step.
    fn step(&mut self, moment: &Moment<'_>);

    /// The trace has ended; what was found.
    fn end(&mut self, end: &End<'_>) -> Vec<Finding>;
}
