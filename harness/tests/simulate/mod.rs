//! Flow control in virtual time: closed forms of queueing theory, conservation, what each policy does to many vCPUs, and repetition.

mod command;
mod laws;
mod policies;
mod theory;

use harness::simulate::law::Law;

const MICROSECOND: u64 = 1_000;

fn exponential(microseconds: f64) -> Law {
    Law::Exponential(microseconds * 1e3)
}
