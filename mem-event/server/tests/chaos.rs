//! What a plan of faults promises, for every seed.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

use mem_event::Ring;
use mem_event_server::chaos::plan::ROW;
use mem_event_server::chaos::{Fault, Kind, Plan, Refusable};
use std::time::Duration;

const SEEDS: std::ops::Range<u64> = 0..200;

fn of(seed: u64) -> Plan {
    Plan { seed: Some(seed), ..Plan::none() }
}

/// What a plan does at the first so many moments of each place.
fn faults(plan: &Plan, moments: u64) -> Vec<Fault> {
    let calls = Refusable::ALL.into_iter().flat_map(|call| {
        let refusal = move |nth| Some(Fault::Refuse { call, nth, times: 1, errno: plan.refusal(call, nth)? });
        (1..=moments).filter_map(refusal)
    });
    let rings = Ring::ALL.into_iter().flat_map(|ring| {
        let requests = (1..=moments).filter_map(move |nth| plan.at_request(ring, nth));
        let late = move |nth| Some(Fault::LateResponse { ring, nth, by: plan.at_response(ring, nth)? });
        requests.chain((1..=moments).filter_map(late))
    });
    calls.chain(rings).collect()
}

fn kind(fault: &Fault) -> Kind {
    match fault {
        Fault::Refuse { .. } => Kind::Refuse,
        Fault::LateNotification { .. } => Kind::LateNotification,
        Fault::SpuriousNotification { .. } => Kind::SpuriousNotification,
        Fault::LateResponse { .. } => Kind::LateResponse,
        Fault::Kill { .. } => Kind::Kill,
    }
}

#[test]
fn the_same_seed_gives_the_same_faults_and_another_gives_others() {
    for seed in SEEDS {
        assert_eq!(faults(&of(seed), 100), faults(&of(seed), 100));
    }
    let mut all: Vec<String> = SEEDS.map(|seed| format!("{:?}", faults(&of(seed), 100))).collect();
    all.sort();
    all.dedup();
    // Some seeds make next to none.
    assert!(all.len() > 190, "{} different of 200", all.len());
}

#[test]
fn a_call_is_refused_at_most_three_times_in_a_row_and_with_an_error_that_xen_gives_for_it() {
    for seed in SEEDS {
        for call in Refusable::ALL {
            let mut row = 0;
            for nth in 1..=2000 {
                match of(seed).refusal(call, nth) {
                    Some(errno) => {
                        row += 1;
                        assert!(call.errors().contains(&errno), "seed {seed}: {} with {errno}", call.name());
                    }
                    None => row = 0,
                }
                assert!(row <= ROW, "seed {seed}: {} {nth}", call.name());
            }
        }
    }
}

#[test]
fn every_kind_is_made_by_some_seeds_and_left_out_by_others() {
    for wanted in Kind::ALL {
        let makes = |seed: &u64| faults(&of(*seed), 2000).iter().any(|fault| kind(fault) == wanted);
        let seeds = SEEDS.take(60).filter(makes).count();
        assert!((20..60).contains(&seeds), "{seeds} of 60 seeds make {}", wanted.name());
        let plan = Plan { without: vec![wanted], ..of(1) };
        assert!(faults(&plan, 2000).iter().all(|fault| kind(fault) != wanted), "without {}", wanted.name());
    }
}

#[test]
fn a_long_run_has_few_faults_late_and_each_is_short() {
    for seed in SEEDS.take(20) {
        for fault in faults(&of(seed), 100_000) {
            if let Fault::LateNotification { by, .. } | Fault::LateResponse { by, .. } = fault {
                assert!(by <= Duration::from_millis(20), "{fault}");
            }
        }
        let all = faults(&of(seed), 100_000).len();
        // Sixteen places: each with some ten early, some fifteen until the thousandth, some fifty in all that follow.
        assert!(all < 16 * 150, "seed {seed}: {all}");
        let kills = faults(&of(seed), 100_000).iter().filter(|fault| kind(fault) == Kind::Kill).count();
        assert!(kills <= 3 * 3, "seed {seed}: {kills} kills of three rings");
    }
}

#[test]
fn a_fault_by_name_comes_at_its_moment_and_at_no_other() {
    let plan: Plan = "refuse evict 3 EBUSY 2;kill access 4;late-response paging 5 700us".parse().unwrap();
    let by = Duration::from_micros(700);
    let errno = Refusable::Evict.errors()[0];
    let call = Refusable::Evict;
    let due = [
        Fault::Refuse { call, nth: 3, times: 1, errno },
        Fault::Refuse { call, nth: 4, times: 1, errno },
        Fault::LateResponse { ring: Ring::Paging, nth: 5, by },
        Fault::Kill { ring: Ring::Access, nth: 4 },
    ];
    assert_eq!(faults(&plan, 50), due);
}

#[test]
fn a_plan_reads_back_as_it_was_written() {
    let text = "seed 18446744073709551615;without kill;without refuse;refuse nominate 1 EAGAIN 4;late-notification access 2 10us;\
                spurious-notification sharing 3 20000us;late-response paging 4 1us;kill access 5";
    let plan: Plan = text.parse().unwrap();
    assert_eq!(plan.to_string(), text);
    assert!("".parse::<Plan>().unwrap().is_none());
}

#[test]
fn what_is_no_plan_is_refused_with_what_is() {
    for (text, hint) in [
        ("seed x", "write a number"),
        ("without everything", "no kind of fault"),
        ("refuse evict 3 ENOMEM 1", "write refuse CALL NTH ERRNO TIMES"),
        ("refuse info 3 EBUSY 1", "write refuse CALL"),
        ("kill everything 3", "kill RING NTH"),
        ("late-notification access 3 10", "MICROSECONDSus"),
        ("7", "is no fault"),
    ] {
        let error = text.parse::<Plan>().unwrap_err();
        assert!(error.contains(hint), "{text}: {error}");
    }
}
