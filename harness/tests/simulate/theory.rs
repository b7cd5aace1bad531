//! What queueing theory says in closed form. The bounds are several times what chance makes of so many events, and the seed is fixed.

use super::exponential;
use harness::simulate::figures::{Figures, simulate};
use harness::simulate::law::Law;
use harness::simulate::settings::Settings;
use mem_event::flow::FlowKind;

fn near(what: &str, found: f64, due: f64, part: f64) {
    assert!((found - due).abs() <= due * part, "{what}: {found}, where {due} is due");
}

/// Requests on the ring, on the average.
fn on_the_ring(settings: &Settings, figures: &Figures) -> f64 {
    figures.slots_used * f64::from(settings.slots)
}

/// One foreign producer whose events come every so many microseconds, as a Poisson process: nothing holds it up.
fn poisson(every: f64, service: Law, slots: u32) -> Settings {
    Settings { foreign: 1, slots, ..Settings::plain(0, exponential(every), service) }
}

/// The machine repairman: N vCPUs that think and are served one at a time. A consumer is idle with
/// p0 = 1 / sum over n of N! / (N - n)! (s / t)^n.
fn repairman(vcpus: u32, think: f64, service: f64) -> f64 {
    let mut term = 1.0;
    let mut sum = 1.0;
    for n in 0..vcpus {
        term *= f64::from(vcpus - n) * service / think;
        sum += term;
    }
    (1.0 - 1.0 / sum) / service * 1e6
}

#[test]
fn vcpus_that_think_and_are_served_are_the_machine_repairmans() {
    for (vcpus, think) in [(1, 10.0), (4, 10.0), (16, 100.0), (64, 200.0)] {
        let figures = simulate(&Settings::plain(vcpus, exponential(think), exponential(5.0)), FlowKind::Queue);
        near(&format!("answers of {vcpus} vCPUs a second"), figures.per_second, repairman(vcpus, think, 5.0), 0.01);
    }
}

#[test]
fn under_queue_throughput_does_not_depend_on_the_slots() {
    for slots in [1, 2, 16] {
        let settings = Settings { slots, ..Settings::plain(16, exponential(50.0), exponential(5.0)) };
        let figures = simulate(&settings, FlowKind::Queue);
        near(&format!("answers a second with {slots} slots"), figures.per_second, repairman(16, 50.0, 5.0), 0.01);
    }
}

#[test]
fn a_poisson_stream_on_a_ring_is_refused_as_often_as_erlang_says() {
    let (slots, load) = (8, 0.9);
    for kind in FlowKind::ALL {
        // Two leave the last slot to the guest, two take it.
        let room = if matches!(kind, FlowKind::Queue | FlowKind::WaitQueueV5) { slots - 1 } else { slots };
        let figures = simulate(&poisson(10.0, exponential(10.0 * load), slots), kind);
        let places = i32::try_from(room).unwrap();
        let blocked = (1.0 - load) * load.powi(places) / (1.0 - load.powi(places + 1));
        near(&format!("refused under {kind}"), figures.refused as f64 / figures.made as f64, blocked, 0.05);
    }
}

#[test]
fn requests_on_a_ring_that_is_never_full_are_as_many_as_pollaczek_and_khinchine_say() {
    let service = 8.0;
    let laws = [
        (Law::Constant(8_000), 0.0),
        (Law::Uniform(4_000, 12_000), 1.0 / 12.0),
        (exponential(service), 1.0),
        ("lognormal:8us,1.5".parse().unwrap(), 1.5 * 1.5),
    ];
    for (law, variation) in laws {
        let settings = Settings { events: 2_000_000, ..poisson(10.0, law.clone(), 4096) };
        let figures = simulate(&settings, FlowKind::Queue);
        let load: f64 = service / 10.0;
        let due = load + load * load * (1.0 + variation) / (2.0 * (1.0 - load));
        near(&format!("requests on the ring, {law}"), on_the_ring(&settings, &figures), due, 0.05);
    }
}

#[test]
fn requests_before_several_consumers_are_as_many_as_erlang_c_says() {
    let (consumers, load) = (4, 3.2);
    let settings = Settings { consumers, events: 1_000_000, ..poisson(10.0, exponential(10.0 * load), 4096) };
    let figures = simulate(&settings, FlowKind::Queue);
    let c = f64::from(consumers);
    let term = |n: u32| (1..=n).fold(1.0, |term, k| term * load / f64::from(k));
    let last = term(consumers) * c / (c - load);
    let waits = last / ((0..consumers).map(term).sum::<f64>() + last);
    near("requests on the ring", on_the_ring(&settings, &figures), load + waits * load / (c - load), 0.05);
}

#[test]
fn a_dispatcher_by_vcpu_makes_as_many_rings_of_one() {
    let settings = |vcpus, consumers| Settings {
        consumers,
        dispatch: harness::simulate::settings::Dispatch::Vcpu,
        ..Settings::plain(vcpus, exponential(40.0), exponential(5.0))
    };
    let figures = simulate(&settings(32, 4), FlowKind::Queue);
    near("answers a second", figures.per_second, 4.0 * repairman(8, 40.0, 5.0), 0.01);
}

#[test]
fn what_stands_still_and_what_works_is_all_the_time_there_is() {
    // Little's law: answers a second times (work + standstill) is the number of vCPUs.
    for kind in [FlowKind::Queue, FlowKind::CheckRing, FlowKind::Blocked2012] {
        let settings =
            Settings { slots: 8, wake: exponential(3.0), ..Settings::plain(24, exponential(60.0), exponential(4.0)) };
        let figures = simulate(&settings, kind);
        let cycle = 60_000.0 + figures.stopped.mean;
        near(&format!("vCPUs under {kind}"), figures.per_second / 1e9 * cycle, 24.0, 0.01);
    }
}
