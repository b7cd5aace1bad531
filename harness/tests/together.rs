//! Everything at once: Linux boots and works while a pager evicts frames at random as often as it can, a thousand frames are watched,
//! one of both consumers is killed again and again, and a trace is written. It powers off with its checksums right, and the trace
//! replays.
//!
//! `MEM_EVENT_TOGETHER` says for how many microseconds nothing is evicted at most (`ci/soak`: 10); with it Linux has 512 MiB and works
//! on 192, without it boots and powers off. `MEM_EVENT_SEED` is the seed.

use crate::support::Random;
use crate::support::domain::{Domain, how_often};
use harness::scenario::settings::{Consumer, ListenerSettings, PagerSettings, Policy};
use mem_event::Gfn;
use std::time::{Duration, Instant};

/// How many frames are watched anew each time.
const WATCHED: usize = 1000;
/// From one kill to the next.
const EVERY: Duration = Duration::from_secs(1);

/// Frames of RAM at random, without the window below one mebibyte.
fn some_frames(random: &mut Random, memory: u64) -> Vec<Gfn> {
    (0..WATCHED).map(|_| Gfn(0x100 + random.below((memory >> 12) - 0x100))).collect()
}

#[test]
fn linux_works_under_evictions_watches_and_kills_with_a_trace() {
    let seed = how_often("MEM_EVENT_SEED", 1);
    let long = std::env::var_os("MEM_EVENT_TOGETHER").is_some();
    let (memory, every) = (if long { 512 << 20 } else { 256 << 20 }, how_often("MEM_EVENT_TOGETHER", 200));
    let mut random = Random(seed);
    let pager = PagerSettings { policy: Policy::Random, seed, evict_every: Some(every), ..PagerSettings::default() };
    let consumers = [Consumer::Pager(pager), Consumer::Listener(ListenerSettings::default())];
    let mut domain = Domain::linux(memory, long);
    if long {
        domain.patience = Duration::from_secs(3600);
    }
    let mut running = consumers.each_ref().map(|consumer| domain.join(consumer).unwrap());
    let begun = Instant::now();
    domain.qemu.qmp.execute("cont").unwrap();
    let mut kills = 0;
    while domain.go_on(EVERY) {
        let frames = some_frames(&mut random, memory);
        domain.watch_now(&frames);
        let victim = kills % 2;
        running[victim].kill();
        kills += 1;
        let Some(next) = domain.join(&consumers[victim]) else { break };
        running[victim] = next;
    }
    let took = begun.elapsed();
    let (said, steps) = domain.verdict();
    println!("{said}; {took:.1?}, {kills} kills, seed {seed}; a trace of {steps} steps replays");
}
