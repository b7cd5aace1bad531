//! Consumers killed at random moments, each succeeded at once: the guest ends as if nobody had died.
//!
//! `MEM_EVENT_KILLS` says how many kills each test is to see (`ci/soak`: a thousand), `MEM_EVENT_SEED` from which seed on.

use crate::support::Random;
use crate::support::domain::{Domain, how_often};
use harness::scenario::Size;
use harness::scenario::settings::{Consumer, ListenerSettings, PagerSettings, Policy, Treatment};
use std::time::{Duration, Instant};

/// What a run of kills came to.
#[derive(Default)]
struct Tally {
    /// How many kills there are to be in all.
    wanted: u64,
    guests: u64,
    kills: u64,
    /// Consumers that had not yet said that they are ready when their guest ended.
    too_late: u64,
}

/// How often the consumer of one guest is killed; then it has its peace, lest it never come to its work.
const OF_ONE: u64 = 100;

/// Runs the guest to its end, and kills its consumer again and again, each time after a random time up to `most`.
fn killed_until_the_end(
    mut domain: Domain,
    consumer: &Consumer,
    most: Duration,
    random: &mut Random,
    tally: &mut Tally,
) {
    let mut running = domain.join(consumer).expect("a consumer before the guest's first instruction");
    domain.qemu.qmp.execute("cont").unwrap();
    let most = u64::try_from(most.as_micros()).unwrap();
    let (limit, peace) = (tally.kills + OF_ONE.min(tally.wanted), Duration::from_secs(1));
    tally.guests += 1;
    while domain.go_on(if tally.kills < limit { Duration::from_micros(random.below(most)) } else { peace }) {
        if tally.kills == limit {
            continue;
        }
        running.kill();
        tally.kills += 1;
        let Some(next) = domain.join(consumer) else {
            tally.too_late += 1;
            break;
        };
        running = next;
    }
    domain.verdict();
}

/// Guests one after the other until so many consumers were killed.
fn many(name: &str, usual: u64, mut one: impl FnMut(&mut Random, &mut Tally)) {
    let (kills, seed) = (how_often("MEM_EVENT_KILLS", usual), how_often("MEM_EVENT_SEED", 1));
    let tally = Tally { wanted: kills, ..Tally::default() };
    let (mut random, mut tally, begun) = (Random(seed), tally, Instant::now());
    while tally.kills < kills {
        one(&mut random, &mut tally);
    }
    let Tally { guests, kills, too_late, .. } = tally;
    println!(
        "{name}, seed {seed}: {kills} kills in {guests} guests, {:.0?}; all succeeded, all traces replay; {too_late} consumers came \
         when their guest had ended",
        begun.elapsed()
    );
}

fn pager(target: u64, seed: u64) -> Consumer {
    let (policy, target) = (Policy::Random, Some(Size(target)));
    Consumer::Pager(PagerSettings { policy, target, seed, ..PagerSettings::default() })
}

fn listener(treatment: Treatment) -> Consumer {
    Consumer::Listener(ListenerSettings { treatment, ..ListenerSettings::default() })
}

#[test]
fn linux_keeps_its_memory_while_its_pager_is_killed() {
    // The long form has Linux work, too, and look at its checksums.
    let works = std::env::var_os("MEM_EVENT_KILLS").is_some();
    many("pager of Linux", 10, |random, tally| {
        let consumer = pager(40 << 20, random.below(u64::MAX));
        killed_until_the_end(Domain::linux(96 << 20, works), &consumer, Duration::from_millis(200), random, tally);
    });
}

#[test]
fn a_guest_keeps_its_pages_while_its_pager_is_killed() {
    many("pager of page_in", 10, |random, tally| {
        let consumer = pager(320 << 12, random.below(u64::MAX));
        killed_until_the_end(Domain::of("page_in", None), &consumer, Duration::from_millis(40), random, tally);
    });
}

#[test]
fn guests_go_on_while_their_listener_is_killed() {
    let guests = [
        ("page_fault", "WATCHED", Treatment::Grant),
        ("page_in", "PAGES", Treatment::Rearm),
        ("smp_storm", "STORM", Treatment::Grant),
        ("listener_back", "CROWD", Treatment::Relax),
        ("n2rwx_sweep", "0x800..0x1800", Treatment::Relax),
        ("read_write", "WATCHED", Treatment::Once),
    ];
    let mut number = 0;
    many("listener of the corpus", 12, |random, tally| {
        let (name, watched, treatment) = guests[number % guests.len()];
        number += 1;
        let domain = Domain::of(name, Some(watched));
        killed_until_the_end(domain, &listener(treatment), Duration::from_millis(10), random, tally);
    });
}
