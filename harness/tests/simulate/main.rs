//! Flow control in virtual time: closed forms of queueing theory, conservation, what each policy does to many vCPUs, and repetition.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod command;
mod laws;
mod policies;
mod theory;

use harness::simulate::arrival::Arrival;
use harness::simulate::law::Law;
use harness::simulate::settings::{Dispatch, Settings};
use mem_event::flow::FlowKind;

/// The policies.
const ALL: [FlowKind; 4] = [FlowKind::Queue, FlowKind::CheckRing, FlowKind::WaitQueueV5, FlowKind::Blocked2012];
const MICROSECOND: u64 = 1_000;

fn exponential(microseconds: f64) -> Law {
    Law::Exponential(microseconds * 1e3)
}

/// One ring and one consumer, in a world where nothing else takes time.
fn plain(vcpus: u32, think: Law, service: Law) -> Settings {
    Settings {
        vcpus,
        rings: 1,
        slots: 64,
        foreign: 0,
        consumers: 1,
        dispatch: Dispatch::Any,
        batch: 1,
        loss: 0.0,
        tries: 1,
        think: Arrival::Law(think.clone()),
        foreign_think: think,
        notices: 0.0,
        drops: 0.0,
        prepare: Law::Constant(0),
        service,
        wake: Law::Constant(0),
        signal: Law::Constant(0),
        events: 400_000,
        seed: 1,
    }
}
