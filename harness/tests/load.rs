//! Sustained load: eight vCPUs are stopped again by the same access as soon as they are answered. As many events are taken as the
//! engine put, each vCPU's memory is right in the end, and QEMU holds no more memory after it than early in it.
//!
//! `MEM_EVENT_LOAD_SECONDS` says how long (`ci/soak`: ten minutes); without it so many events.

use crate::support::storm::Storm;
use crate::support::{own_memory, wait_for};
use mem_event::AccessType;
use mem_event::page::Index;
use mem_event::spin::{Spin, Window};
use mem_event_client::poll::poll_until;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

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

struct Load<'a> {
    storm: &'a mut Storm,
    window: Window,
    taken: u64,
    of_vcpu: [u64; VCPUS],
    last: [Option<Instant>; VCPUS],
    /// From a vCPU's event to its next, in microseconds; a sample.
    waits: Vec<f64>,
}

impl Load<'_> {
    /// Takes and answers one after the other, without a change of rights.
    fn serve(&mut self, until: &Until) {
        while !until.is_over(self.taken) {
            let Some(request) = self.storm.listener.take() else {
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
            self.storm.listener.answer(&request.answer());
            self.storm.listener.kick().unwrap();
        }
    }

    fn wait(&mut self) {
        self.storm.listener.begin_polling();
        let seen = poll_until(&mut self.window, || self.storm.listener.is_pending());
        if self.storm.listener.end_polling() || seen {
            return;
        }
        wait_for("an event", &self.storm.listener);
        self.storm.listener.clear_signal();
    }

    /// So many of a thousand waits are not longer.
    fn quantile(&self, of_thousand: usize) -> f64 {
        self.waits[(self.waits.len() - 1) * of_thousand / 1000]
    }
}

#[test]
fn under_sustained_load_both_ends_count_the_same_and_memory_stays_flat() {
    let seconds: Option<u64> = std::env::var("MEM_EVENT_LOAD_SECONDS").ok().map(|text| text.parse().unwrap());
    let mut storm = Storm::start();
    let processes = [storm.qemu.pid(), std::process::id()];
    let memory = || processes.map(own_memory);

    let begun = Instant::now();
    let window = Window::new(Spin::default());
    let mut load =
        Load { storm: &mut storm, window, taken: 0, of_vcpu: [0; VCPUS], last: [None; VCPUS], waits: Vec::new() };
    let part = |n: u64| match seconds {
        None => Until::Events(EVENTS * n / 4),
        Some(seconds) => Until::Time(begun + Duration::from_secs(seconds) * u32::try_from(n).unwrap() / 4),
    };
    load.serve(&part(1));
    let early = memory();
    load.serve(&part(4));
    let late = memory();
    let took = begun.elapsed();
    // From the reply on no access makes an event; those that were made before are on the ring.
    load.storm.set(AccessType::Rwx);
    let rest = load.taken + u64::from(load.storm.listener.unanswered());
    load.serve(&Until::Events(rest));
    // The vCPUs that found no slot were woken, retry, and find the page open.
    let put = load.storm.listener.back().page().load(Index::ReqProd, Ordering::Acquire);
    // The ring's indices have 32 bits.
    assert_eq!(u64::from(put), load.taken & 0xffff_ffff, "events that the engine put, and events that were taken");
    assert!(load.of_vcpu.iter().all(|count| *count > 0), "each vCPU was heard: {:?}", load.of_vcpu);

    load.waits.sort_by(f64::total_cmp);
    let [half, ninety, ninety_nine, last] = [500, 900, 990, 1000].map(|part| load.quantile(part));
    println!(
        "{} events in {took:.1?}, {:?} by vCPU; from an event to the vCPU's next {half:.1} µs, 90 % {ninety:.1}, \
         99 % {ninety_nine:.1}, at most {last:.1}; own memory of QEMU and of this process {early:?} bytes after a quarter, {late:?} at the end",
        load.taken, load.of_vcpu
    );
    storm.ends();
    let flat = early.iter().zip(late).all(|(early, late)| late <= early + GROWTH);
    assert!(flat, "the memory of QEMU and of this process grew from {early:?} to {late:?} bytes");
}
