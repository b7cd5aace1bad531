//! How many events of vCPUs `simulate` has behind it in a second of one core.

use crate::figure::median;
use harness::simulate::figures::simulate;
use harness::simulate::law::Law;
use harness::simulate::settings::Settings;
use mem_event::flow::FlowKind;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// The row.
pub const NAME: &str = "simulated-events-per-second";
const EVENTS: u64 = 2_000_000;
const ROUNDS: usize = 7;

/// An event is all that happens from a vCPU's access to its running again: claim, put, service, answer, wake.
pub fn row() -> Value {
    let value = rate(8, FlowKind::Queue);
    let others = [FlowKind::CheckRing, FlowKind::WaitQueueV5, FlowKind::Blocked2012];
    let others = others.map(|kind| format!("{kind} {:.1}", rate(8, kind) / 1e6));
    let detail = format!(
        "8 vCPUs, 64 slots, queue, one core; with 1024 vCPUs on 64 slots {:.1} M/s; 8 vCPUs by {}",
        rate(1024, FlowKind::Queue) / 1e6,
        others.join(", ")
    );
    json!({ "name": NAME, "value": value.round(), "unit": "1/s", "goal": ">= 5000000", "detail": detail })
}

fn rate(vcpus: u32, kind: FlowKind) -> f64 {
    let settings = Settings {
        wake: Law::Exponential(2_000.0),
        events: EVENTS,
        ..Settings::plain(vcpus, Law::Exponential(100_000.0), Law::Exponential(2_000.0))
    };
    let once = || {
        let start = busy();
        let made = simulate(&settings, kind).made;
        made as f64 / (busy() - start)
    };
    median((0..ROUNDS).map(|_| once()).collect())
}

/// Seconds of processor time of this thread: what one core does is measured without what else runs on the machine.
fn busy() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
