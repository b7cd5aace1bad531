//! What came of a simulation.

use super::lane::Use;
use super::settings::{Dispatch, Settings};
use super::tally::{Counts, Waits};
use super::vcpu::{At, Vcpu};
use super::world::World;
use mem_event::flow::FlowKind;
use serde::Serialize;
use std::collections::BTreeMap;

/// Times in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Times {
    /// How many.
    pub count: u64,
    /// Their mean.
    pub mean: f64,
    /// What half of them do not exceed.
    pub p50: u64,
    /// Nine of ten.
    pub p90: u64,
    /// Ninety-nine of a hundred.
    pub p99: u64,
    /// Nine hundred and ninety-nine of a thousand.
    pub p999: u64,
    /// The longest.
    pub max: u64,
}

impl From<&Waits> for Times {
    fn from(waits: &Waits) -> Times {
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|share| waits.quantile(share));
        Times { count: waits.count(), mean: waits.mean(), p50, p90, p99, p999, max: waits.longest() }
    }
}

/// One run in figures. Counts are of the whole run; rates, times and shares of its measured part, without the first tenth of the events
/// and without the end, when no more are made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The policy.
    pub policy: String,
    /// The seed.
    pub seed: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// Rings.
    pub rings: u32,
    /// Slots a ring.
    pub slots: u32,
    /// Consumers a ring.
    pub consumers: u32,
    /// Which of them takes a request.
    pub dispatch: Dispatch,
    /// Requests taken at a time.
    pub batch: u32,
    /// The part that no consumer answers.
    pub loss: f64,
    /// Foreign producers.
    pub foreign: u32,
    /// Mean time between a vCPU's events, in nanoseconds.
    pub think_ns: f64,
    /// Mean time of a service.
    pub service_ns: f64,
    /// Mean time from being woken to running.
    pub wake_ns: f64,
    /// From a claim to its put.
    pub prepare_ns: f64,
    /// From a signal to the consumer's look.
    pub signal_ns: f64,
    /// The part of the events that stop no vCPU.
    pub notices: f64,
    /// The part that tells of frames given back.
    pub drops: f64,
    /// Tries of foreign producers.
    pub tries: u32,
    /// Mean time between a foreign producer's events.
    pub foreign_think_ns: f64,
    /// Virtual time that was measured.
    pub time_ns: u64,
    /// Events that were made.
    pub made: u64,
    /// And answered.
    pub answered: u64,
    /// And lost by the policy.
    pub lost: u64,
    /// And given up by foreign producers.
    pub refused: u64,
    /// And waiting when nothing more happened: for ever.
    pub waiting: u64,
    /// vCPUs that stand still for ever.
    pub hung: u32,
    /// Answers a second.
    pub per_second: f64,
    /// How long a vCPU stood still for an event.
    pub stopped: Times,
    /// How much of it until the request was put.
    pub slot: Times,
    /// And from then on.
    pub answer: Times,
    /// Jain's index of the answers of the vCPUs: 1 where all got as many, one over their number where one got all.
    pub fairness: f64,
    /// The part of the slots in use, on the average.
    pub slots_used: f64,
    /// The part of the time in which a ring was full.
    pub full: f64,
    /// vCPUs woken an answer.
    pub wakes: f64,
    /// And woken in vain.
    pub in_vain: f64,
    /// Tries of foreign producers that were refused.
    pub refusals: u64,
    /// What went against the protocol's rules, and how often.
    pub broken: BTreeMap<&'static str, u64>,
}

/// Simulates.
#[must_use]
pub fn simulate(settings: &Settings, kind: FlowKind) -> Figures {
    let mut world = World::new(settings, kind);
    world.run();
    figures(&mut world)
}

fn figures(world: &mut World) -> Figures {
    let settings = world.settings;
    let (from, to) = world.measured;
    let counts = world.tally.counts;
    let (before, after) = (world.tally.before, world.tally.after.unwrap_or(counts));
    let seconds = (to - from) as f64 / 1e9;
    let answered = after.answered - before.answered;
    let over = |count: fn(&Counts) -> u64| part(count(&after) - count(&before), answered);
    let usage = usage(world);
    Figures {
        policy: world.kind.to_string(),
        seed: settings.seed,
        vcpus: settings.vcpus,
        rings: settings.rings,
        slots: settings.slots,
        consumers: settings.consumers,
        dispatch: settings.dispatch,
        batch: settings.batch,
        loss: settings.loss,
        foreign: settings.foreign,
        think_ns: settings.think.mean(),
        service_ns: settings.service.mean(),
        wake_ns: settings.wake.mean(),
        prepare_ns: settings.prepare.mean(),
        signal_ns: settings.signal.mean(),
        notices: settings.notices,
        drops: settings.drops,
        tries: settings.tries,
        foreign_think_ns: settings.foreign_think.mean(),
        time_ns: to - from,
        made: counts.made,
        answered: counts.answered,
        lost: counts.lost,
        refused: counts.refused,
        waiting: waiting(world),
        hung: hung(&world.vcpus),
        per_second: if seconds > 0.0 { answered as f64 / seconds } else { 0.0 },
        stopped: Times::from(&world.tally.stopped()),
        slot: Times::from(&world.tally.slot),
        answer: Times::from(&world.tally.answer()),
        fairness: jain(world.vcpus.iter().map(|vcpu| vcpu.answered)),
        slots_used: usage.used,
        full: usage.full,
        wakes: over(|counts| counts.wakes),
        in_vain: over(|counts| counts.in_vain),
        refusals: counts.refusals,
        broken: std::mem::take(&mut world.tally.broken),
    }
}

fn part(count: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { count as f64 / of as f64 }
}

/// Of all rings, on the average.
fn usage(world: &World) -> Use {
    let rings = world.usage.len() as f64;
    let sum = world
        .usage
        .iter()
        .fold(Use::default(), |sum, ring| Use { used: sum.used + ring.used, full: sum.full + ring.full });
    Use { used: sum.used / rings, full: sum.full / rings }
}

/// Events on a ring, and those whose vCPU holds or repeats them.
fn waiting(world: &World) -> u64 {
    let out: u64 = world.lanes.iter().map(|lane| u64::from(lane.out())).sum();
    let holds = |vcpu: &&Vcpu| match vcpu.at {
        At::Asleep(_) | At::InPut | At::Claimed | At::Woken(_) => true,
        At::Work | At::Stopped | At::Done => false,
    };
    out + world.vcpus.iter().filter(holds).count() as u64
}

fn hung(vcpus: &[Vcpu]) -> u32 {
    u32::try_from(vcpus.iter().filter(|vcpu| vcpu.at != At::Work).count()).unwrap_or(u32::MAX)
}

/// Jain's index: the square of the sum over the sum of the squares and the number; 1 where nobody got anything.
pub fn jain(counts: impl ExactSizeIterator<Item = u64>) -> f64 {
    let number = counts.len() as f64;
    let add = |(sum, squares), it: f64| (sum + it, squares + it * it);
    let (sum, squares) = counts.map(|count| count as f64).fold((0.0, 0.0), add);
    if squares == 0.0 { 1.0 } else { sum * sum / (number * squares) }
}
