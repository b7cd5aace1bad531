//! Sustained load: eight vCPUs are stopped again by the same access as soon as they are answered. As many events are taken as the
//! engine put, each vCPU's memory is right in the end, and QEMU holds no more memory after it than early in it.
//!
//! `MEM_EVENT_LOAD_SECONDS` says how long (`ci/soak`: ten minutes); without it so many events.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::folder::RunFolder;
use harness::run::Job;
use harness::verdict::{Kind, Verdict};
use mem_event::message::{Call, Notice};
use mem_event::page::Index;
use mem_event::spin::{Spin, Window};
use mem_event::{AccessType, Control, Gfn, Ring};
use mem_event_client::look::look;
use mem_event_client::{Channel, Client, RingSettings};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use support::{own_memory, scenario, wait_for};

const EVENTS: u64 = 50_000;
const VCPUS: usize = 8;
/// What QEMU's own memory may grow by: its heap comes in pieces of 64 MiB a thread, of which a page is taken now and then.
const GROWTH: u64 = 8 << 20;
/// Of so many waits one is kept.
const SAMPLE: u64 = 64;

/// When it is over.
enum Until {
    Events(u64),
    Time(Instant),
}

impl Until {
    fn is_over(&self, events: u64) -> bool {
        match *self {
            Until::Events(limit) => events >= limit,
            Until::Time(end) => events.is_multiple_of(1024) && Instant::now() >= end,
        }
    }
}

struct Load {
    channel: Channel,
    window: Window,
    taken: u64,
    of_vcpu: [u64; VCPUS],
    last: [Option<Instant>; VCPUS],
    /// From a vCPU's event to its next, in microseconds; a sample.
    waits: Vec<f64>,
}

impl Load {
    /// Takes and answers one after the other, without a change of rights.
    fn serve(&mut self, until: &Until) {
        while !until.is_over(self.taken) {
            let Some(request) = self.channel.take() else {
                self.wait();
                continue;
            };
            let vcpu = request.vcpu.0 as usize;
            self.taken += 1;
            self.of_vcpu[vcpu] += 1;
            if self.of_vcpu[vcpu].is_multiple_of(SAMPLE) {
                self.last[vcpu] = Some(Instant::now());
            } else if let Some(last) = self.last[vcpu].take() {
                self.waits.push(last.elapsed().as_secs_f64() * 1e6);
            }
            self.channel.answer(&request.answer());
            self.channel.kick().unwrap();
        }
    }

    fn wait(&mut self) {
        self.channel.looks();
        let seen = look(&mut self.window, || self.channel.is_pending());
        if self.channel.sleeps() || seen {
            return;
        }
        wait_for("an event", &self.channel);
        self.channel.clear_signal();
    }

    /// So many of a thousand waits are not longer.
    fn quantile(&self, of_thousand: usize) -> f64 {
        self.waits[(self.waits.len() - 1) * of_thousand / 1000]
    }
}

#[test]
fn under_sustained_load_both_ends_count_the_same_and_memory_stays_flat() {
    let seconds: Option<u64> = std::env::var("MEM_EVENT_LOAD_SECONDS").ok().map(|text| text.parse().unwrap());
    let mut scenario = scenario("smp_storm");
    // So that the gate is there; who listens is this test.
    scenario.consumers.listener.get_or_insert_default();
    let job = Job::new(scenario, None).unwrap();
    let folder = RunFolder::create().unwrap();
    let mut qemu = job.machine().unwrap().start(&folder).unwrap();
    let socket = folder.file("socket");
    let mut toolstack = Client::connect(&socket).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let channel = Channel::enable(&socket, Ring::Access, RingSettings { slots: 4, ..RingSettings::default() }).unwrap();
    let stormed = job.symbols().find("STORM").unwrap().clone();
    let set = |client: &mut Client, access| {
        let (first, count) = (stormed.gpa.gfn(), stormed.size / 4096);
        client.values(&Call::Control(Control::SetAccess { first: Gfn(first.0), count, access })).unwrap();
    };
    qemu.qmp.execute("cont").unwrap();
    release(&mut toolstack, |toolstack| set(toolstack, AccessType::N));

    let begun = Instant::now();
    let window = Window::new(Spin::default());
    let mut load = Load { channel, window, taken: 0, of_vcpu: [0; VCPUS], last: [None; VCPUS], waits: Vec::new() };
    let part = |n: u64| match seconds {
        None => Until::Events(EVENTS * n / 4),
        Some(seconds) => Until::Time(begun + Duration::from_secs(seconds) * u32::try_from(n).unwrap() / 4),
    };
    load.serve(&part(1));
    let memory = || [qemu.pid(), std::process::id()].map(own_memory);
    let early = memory();
    load.serve(&part(4));
    let late = memory();
    let took = begun.elapsed();
    // From the reply on no access makes an event; those that were made before are on the ring.
    set(&mut toolstack, AccessType::Rwx);
    let rest = load.taken + u64::from(load.channel.unanswered());
    load.serve(&Until::Events(rest));
    // Those who found no slot were woken, look again, and find the page open.
    let put = load.channel.back().page().load(Index::ReqProd, Ordering::Acquire);
    // The ring's indices have 32 bits.
    assert_eq!(u64::from(put), load.taken & 0xffff_ffff, "events that the engine put, and events that were taken");
    assert!(load.of_vcpu.iter().all(|count| *count > 0), "each vCPU was heard: {:?}", load.of_vcpu);

    release(&mut toolstack, |_| ());
    wait_for("the guest's end", &qemu);
    qemu.wait().unwrap();
    let verdict = Verdict::on_console(&qemu.console()).expect("a verdict");
    assert_eq!(verdict.kind, Kind::Success, "{verdict}");
    let flat = early.iter().zip(late).all(|(early, late)| late <= early + GROWTH);
    assert!(flat, "the memory of QEMU and of this process grew from {early:?} to {late:?} bytes");

    load.waits.sort_by(f64::total_cmp);
    let [half, ninety, ninety_nine, last] = [500, 900, 990, 1000].map(|part| load.quantile(part));
    println!(
        "{} events in {took:.1?}, {:?} by vCPU; from an event to the vCPU's next {half:.1} µs, 90 % {ninety:.1}, \
         99 % {ninety_nine:.1}, at most {last:.1}; own memory of QEMU and of this process {early:?} bytes after a quarter, {late:?} at the end",
        load.taken, load.of_vcpu
    );
}

/// Waits for the next checkpoint, and lets the vCPU go on after this.
fn release(toolstack: &mut Client, then: impl FnOnce(&mut Client)) {
    let vcpu = loop {
        if let Some(Notice::Checkpoint { vcpu, .. }) = toolstack.notice().unwrap() {
            break vcpu;
        }
        wait_for("the checkpoint", &*toolstack);
    };
    then(toolstack);
    toolstack.values(&Call::Release { vcpu }).unwrap();
}
