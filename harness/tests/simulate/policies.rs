//! What each policy does to many vCPUs, and what holds under all of them.

use super::{MICROSECOND, exponential};
use harness::simulate::figures::simulate;
use harness::simulate::law::Law;
use harness::simulate::settings::{Dispatch, Settings};
use mem_event::flow::FlowKind;
use mem_event_fuzz::random::Random;

/// More vCPUs than slots, and a consumer that cannot keep up.
fn storm(vcpus: u32, slots: u32) -> Settings {
    let wake = exponential(2.0);
    Settings { slots, wake, events: 40_000, ..Settings::plain(vcpus, exponential(20.0), exponential(2.0)) }
}

fn anything(random: &mut Random) -> Settings {
    let mut part = |parts: &[f64]| parts[random.below(parts.len())];
    let (loss, notices, drops) = (part(&[0.0, 0.0, 0.001, 0.1]), part(&[0.0, 0.3, 0.5]), part(&[0.0, 0.1, 0.5]));
    let mut number = |numbers: &[u32]| numbers[random.below(numbers.len())];
    let vcpus = number(&[0, 1, 3, 17, 64, 200]);
    let think = exponential(f64::from(number(&[1, 10, 100])));
    let (rings, slots, consumers, batch) =
        (number(&[1, 2, 3]), number(&[1, 2, 8, 64, 1000]), number(&[1, 2, 5]), number(&[1, 4]));
    let foreign = number(&[0, 1, 7]).max(u32::from(vcpus == 0));
    let latency = |which: u32| match which {
        0 => Law::Constant(0),
        1 => Law::Constant(300),
        _ => exponential(2.0),
    };
    let [prepare, wake, signal] = std::array::from_fn(|_| latency(number(&[0, 1, 2])));
    let dispatch = if number(&[0, 1]) == 0 { Dispatch::Any } else { Dispatch::Vcpu };
    Settings {
        rings,
        slots,
        consumers,
        batch,
        foreign,
        tries: number(&[1, 3]),
        dispatch,
        loss,
        notices,
        drops,
        prepare,
        wake,
        signal,
        events: 3_000,
        seed: random.next(),
        ..Settings::plain(vcpus, think, exponential(2.0))
    }
}

#[test]
fn what_is_made_is_answered_lost_refused_or_waits_whatever_is_asked_for() {
    let mut random = Random(2011);
    for round in 0..300 {
        let settings = anything(&mut random);
        for kind in FlowKind::ALL {
            let figures = simulate(&settings, kind);
            let became = figures.answered + figures.lost + figures.refused + figures.waiting;
            assert_eq!(figures.made, became, "round {round} under {kind}: {settings:?}\n{figures:?}");
            assert!(
                figures.made == settings.events || figures.hung > 0,
                "round {round} under {kind} ended early: {figures:?}"
            );
        }
    }
}

#[test]
fn queue_breaks_no_rule_and_lets_nobody_hang_whatever_is_asked_for() {
    let mut random = Random(2026);
    for round in 0..300 {
        let settings = Settings { loss: 0.0, ..anything(&mut random) };
        let figures = simulate(&settings, FlowKind::Queue);
        assert!(figures.broken.is_empty(), "round {round}: {settings:?}\n{figures:?}");
        assert_eq!((figures.hung, figures.waiting, figures.in_vain), (0, 0, 0.0), "round {round}: {settings:?}");
        // A drop that a foreign caller makes on a full ring has nobody to wait.
        assert!(
            figures.lost == 0 || settings.foreign > 0 && settings.drops > 0.0,
            "round {round}: {settings:?}\n{figures:?}"
        );
    }
}

#[test]
fn under_v5_every_vcpu_that_meets_a_full_ring_hangs_until_the_rest_fit() {
    let figures = simulate(&storm(100, 8), FlowKind::WaitQueueV5);
    assert_eq!(figures.hung, 92);
    assert_eq!(figures.broken["a vCPU was paused twice"], 92);
    assert_eq!(figures.made, figures.answered + 92, "the 92 hold an event each; the other eight go on");
}

#[test]
fn under_v5_one_drop_by_a_foreign_caller_stops_the_guest_for_ever() {
    // The first drop by a foreign caller takes the count of foreigners to 0xffff; no vCPU's put finds room any more.
    let settings = Settings { foreign: 1, drops: 0.5, vcpus: 2, ..storm(2, 64) };
    let figures = simulate(&settings, FlowKind::WaitQueueV5);
    assert_eq!(figures.hung, 2);
    let queue = simulate(&settings, FlowKind::Queue);
    assert_eq!((queue.hung, queue.lost), (0, 0));
}

#[test]
fn under_check_ring_waits_in_vain_grow_with_the_vcpus_and_under_queue_nobody_wakes_in_vain() {
    let vain = |vcpus| simulate(&storm(vcpus, 8), FlowKind::CheckRing).in_vain;
    let (few, many) = (vain(16), vain(256));
    assert!(few > 0.0 && many > few * 4.0, "{few} with 16, {many} with 256");
    assert_eq!(simulate(&storm(256, 8), FlowKind::Queue).in_vain, 0.0);
}

#[test]
fn under_check_ring_a_write_that_is_told_of_is_lost_at_a_full_ring() {
    let settings = Settings { notices: 0.5, ..storm(64, 8) };
    assert!(simulate(&settings, FlowKind::CheckRing).lost > 0);
    for kind in [FlowKind::Queue, FlowKind::Blocked2012] {
        assert_eq!(simulate(&settings, kind).lost, 0, "{kind}");
    }
}

/// Each vCPU posts once, and all at the same moment. An answer wakes as many throttled vCPUs as slots are free then: one, two, … eight in all
/// while the last eight are answered, and after the last nothing wakes anybody.
#[test]
fn under_blocked_2012_posters_stay_throttled_at_an_empty_ring_where_nobody_posts_any_more() {
    let burst = |vcpus: u32| Settings {
        slots: 8,
        notices: 1.0,
        wake: Law::Constant(MICROSECOND),
        events: vcpus.into(),
        ..Settings::plain(vcpus, Law::Constant(1_000 * MICROSECOND), Law::Constant(2 * MICROSECOND))
    };
    for (vcpus, throttled) in [(9, 0), (32, 0), (64, 22), (100, 58)] {
        let figures = simulate(&burst(vcpus), FlowKind::Blocked2012);
        assert_eq!((figures.answered, figures.waiting, figures.hung), (vcpus.into(), 0, throttled), "{vcpus} vCPUs");
        assert_eq!(simulate(&burst(vcpus), FlowKind::Queue).hung, 0, "{vcpus} vCPUs");
    }
}

#[test]
fn a_request_that_no_consumer_answers_keeps_its_slot_and_its_vcpu() {
    let settings = Settings { loss: 1.0, ..storm(4, 8) };
    for kind in FlowKind::ALL {
        let figures = simulate(&settings, kind);
        assert_eq!((figures.made, figures.answered, figures.waiting, figures.hung), (4, 0, 4, 4), "{kind}");
    }
}

#[test]
fn more_consumers_answer_more_and_slower_ones_let_vcpus_wait_longer() {
    let with = |consumers, service: f64| {
        let settings = Settings { consumers, service: exponential(service), ..storm(64, 16) };
        simulate(&settings, FlowKind::Queue)
    };
    let by_consumers: Vec<f64> = [1, 2, 4, 8].map(|consumers| with(consumers, 4.0).per_second).to_vec();
    assert!(by_consumers.is_sorted_by(|fewer, more| fewer < more), "{by_consumers:?}");
    let by_service: Vec<f64> = [1.0, 2.0, 4.0, 8.0].map(|service| with(1, service).stopped.mean).to_vec();
    assert!(by_service.is_sorted_by(|faster, slower| faster < slower), "{by_service:?}");
}

#[test]
fn the_same_seed_gives_the_same_figures_and_another_seed_others() {
    for kind in FlowKind::ALL {
        let settings = Settings { loss: 0.001, notices: 0.2, foreign: 2, ..storm(50, 8) };
        let figures = simulate(&settings, kind);
        assert_eq!(figures, simulate(&settings, kind), "{kind}");
        assert_ne!(figures, simulate(&Settings { seed: 2, ..settings }, kind), "{kind}");
    }
}

#[test]
fn a_thousand_vcpus_on_a_ring_of_several_pages_are_all_served_alike() {
    let settings = Settings { events: 200_000, service: Law::Constant(MICROSECOND), ..storm(1024, 1024) };
    let figures = simulate(&settings, FlowKind::Queue);
    assert_eq!(figures.hung, 0);
    assert!(figures.fairness > 0.95, "{}", figures.fairness);
}
