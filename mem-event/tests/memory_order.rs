//! The shared page under every order of memory effects that the language allows, by loom: `ci/memory-order` runs it.
//!
//! What is proven is small and enough, because the protocol has only three meeting points: a request's body and `req_prod`, a
//! response's body and `rsp_prod`, and a slot's next use after its response. Each is an access to the same ring of one or two
//! slots, whatever its size. The other claims are about signals that one side may spare the other, about the mark that a vCPU's thread
//! takes in a signal's handler, the word that it waits on, and the seat of the one vCPU that sleeps on a ring's eventfd.
#![cfg(loom)]
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop, and cuts numbers on purpose"
)]

use loom::cell::Cell;
use loom::sync::atomic::{AtomicBool, AtomicU64 as Counter, fence};
use loom::sync::{Arc, Mutex};
use loom::thread;
use mem_event::mark::{self, Mark};
use mem_event::page::Index;
use mem_event::seat::Seat;
use mem_event::stopped::{Asleep, Stopped};
use mem_event::{
    Back, Event, Flags, Front, Gfn, Gla, Layout, Pollers, Request, Rights, Ring, RingPage, VcpuId, ViewId,
};
use std::sync::atomic::{AtomicU64, Ordering};

const RING: Ring = Ring::Access;

/// Every word of the slot depends on the number, so a torn slot is seen.
fn request(number: u64) -> Request {
    Request {
        flags: Flags(number as u32),
        vcpu: VcpuId(number as u32),
        event: Event::Violation {
            gfn: Gfn(number),
            offset: number as u16,
            gla: Some(Gla(number)),
            rights: Rights::from_bits(number as u8),
            in_gpt: false,
        },
        view: ViewId::HOST,
    }
}

/// Runs it in every order there is, or in those where the two sides are interrupted so often at most without having to wait.
fn explore(interruptions: Option<usize>, run: impl Fn() + Sync + Send + 'static) {
    let orders = std::sync::Arc::new(AtomicU64::new(0));
    let counter = std::sync::Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = interruptions;
    builder.max_branches = 20_000;
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        run();
    });
    println!("{} orders tried", orders.load(Ordering::Relaxed));
}

fn halves(slots: u32) -> (Front, Back) {
    let page = RingPage::heap();
    let back = Back::init(page.clone(), RING, Layout::Flags32, slots).unwrap();
    (Front::new(page, RING, Layout::Flags32, slots).unwrap(), back)
}

fn consume(back: &mut Back, from: u64, to: u64) {
    for number in from..to {
        let got = loop {
            match back.take() {
                Ok(Some(request)) => break request,
                Ok(None) => thread::yield_now(),
                Err(torn) => panic!("{torn}"),
            }
        };
        assert_eq!(got, request(number), "a torn, lost or repeated request");
        back.answer(&got.answer());
    }
}

fn exchange(slots: u32, events: u64, interruptions: Option<usize>) {
    explore(interruptions, move || {
        let (mut front, mut back) = halves(slots);
        let consumer = thread::spawn(move || consume(&mut back, 1, events + 1));
        let (mut put, mut answered, mut taken) = (1, 1, Vec::new());
        while answered <= events {
            while put <= events && front.free() > 0 {
                front.put(&request(put));
                put += 1;
            }
            if front.poll(None, &mut taken).unwrap() == 0 {
                thread::yield_now();
            }
            while let Some((_, response)) = front.take(&mut taken) {
                assert_eq!(response, request(answered).answer(), "a torn, lost or repeated response");
                answered += 1;
            }
        }
        consumer.join().unwrap();
        assert_eq!(front.free(), slots);
    });
}

#[test]
fn a_slot_is_whole_whenever_its_index_is_seen_and_when_it_is_used_again() {
    exchange(1, 2, None);
}

#[test]
fn two_slots_in_flight_keep_their_order() {
    exchange(2, 3, Some(3));
}

/// A consumer that looks at `rsp_event` before it signals (`RING_PUSH_RESPONSES_AND_CHECK_NOTIFY`) against an engine that is
/// signalled once, at any time. What the engine did not see then must have been signalled again.
fn spare_notifications(look: impl Fn(&mut Front) -> u32 + Sync + Send + Copy + 'static) {
    explore(None, move || {
        let (mut front, mut back) = halves(2);
        front.put(&request(1));
        front.put(&request(2));
        let signalled = Arc::new(AtomicBool::new(false));
        let signal = Arc::clone(&signalled);
        let consumer = thread::spawn(move || {
            for number in 1..=2 {
                let got = back.take().unwrap().unwrap();
                back.answer(&got.answer());
                fence(Ordering::SeqCst);
                if back.page().load(Index::RspEvent, Ordering::Relaxed) == number {
                    signal.store(true, Ordering::Release);
                }
            }
        });
        signalled.swap(false, Ordering::AcqRel);
        let seen = look(&mut front);
        consumer.join().unwrap();
        assert!(seen == 2 || signalled.load(Ordering::Acquire), "{seen} of 2 responses seen, and nobody is signalled");
    });
}

#[test]
fn a_spared_notification_loses_no_response() {
    spare_notifications(|front| front.poll(None, &mut Vec::new()).unwrap());
}

/// What the fence in `Front::poll` is for; and that this test would see it go.
#[test]
#[should_panic(expected = "nobody is signalled")]
fn without_a_second_look_a_notification_is_lost() {
    spare_notifications(|front| {
        let seen = front.page().load(Index::RspProd, Ordering::Acquire);
        front.page().store(Index::RspEvent, seen + 1, Ordering::Relaxed);
        seen
    });
}

/// That a weaker store of an index would be seen.
#[test]
#[should_panic(expected = "torn")]
fn an_index_stored_without_release_shows_a_torn_slot() {
    explore(None, || {
        let page = RingPage::heap();
        let mut back = Back::init(page.clone(), RING, Layout::Flags32, 1).unwrap();
        let consumer = thread::spawn(move || match back.take() {
            Ok(None) => {}
            got => assert_eq!(got, Ok(Some(request(1))), "a torn request"),
        });
        page.write(0, &mem_event::wire::flags32::request(&request(1)));
        page.store(Index::ReqProd, 1, Ordering::Relaxed);
        consumer.join().unwrap();
    });
}

/// Somebody who looks at the ring by himself and then sleeps, against a consumer that spares its signals meanwhile. Who holds
/// the engine takes what is there; in the end all responses are taken, or there is a signal for those that are not.
fn look_and_sleep(end: impl Fn(&Pollers) -> bool + Sync + Send + Copy + 'static) {
    explore(Some(3), move || {
        let (mut front, mut back) = halves(2);
        front.put(&request(1));
        front.put(&request(2));
        let pollers = Pollers::new(back.page().clone());
        front.poll(None, &mut Vec::new()).unwrap();
        pollers.begin_polling();
        let signalled = Arc::new(AtomicBool::new(false));
        let signal = Arc::clone(&signalled);
        let consumer = thread::spawn(move || {
            for _ in 1..=2 {
                let got = back.take().unwrap().unwrap();
                back.answer(&got.answer());
                if back.must_signal() {
                    signal.store(true, Ordering::Release);
                }
            }
        });
        let mut kick = || {
            while pollers.is_pending() {
                let responses = pollers.responses();
                front.poll(Some(responses), &mut Vec::new()).unwrap();
                while front.take(&mut Vec::new()).is_some() {}
                pollers.polled(responses);
            }
        };
        if pollers.is_pending() {
            kick();
            pollers.suppress_notify();
        }
        if end(&pollers) {
            kick();
        }
        consumer.join().unwrap();
        assert!(
            front.outstanding() == 0 || signalled.load(Ordering::Acquire),
            "a response waits, and nobody is signalled"
        );
    });
}

#[test]
fn who_looks_by_himself_and_then_sleeps_misses_no_response() {
    look_and_sleep(Pollers::end_polling);
}

/// What the second look in `Pollers::end_polling` is for.
#[test]
#[should_panic(expected = "nobody is signalled")]
fn who_sleeps_without_asking_to_be_signalled_and_looking_again_misses_one() {
    look_and_sleep(|pollers| {
        let pending = pollers.is_pending();
        let _ = pollers.end_polling();
        pending
    });
}

/// Two who look, one of whom ends while the other takes: the last to go leaves the ring asking for a signal.
#[test]
fn the_last_of_two_to_look_misses_no_response() {
    explore(Some(2), || {
        let (mut front, mut back) = halves(1);
        front.put(&request(1));
        let pollers = Arc::new(Pollers::new(back.page().clone()));
        pollers.begin_polling();
        pollers.begin_polling();
        let other = Arc::clone(&pollers);
        let first = thread::spawn(move || other.end_polling());
        let signalled = Arc::new(AtomicBool::new(false));
        let signal = Arc::clone(&signalled);
        let consumer = thread::spawn(move || {
            let got = back.take().unwrap().unwrap();
            back.answer(&got.answer());
            if back.must_signal() {
                signal.store(true, Ordering::Release);
            }
        });
        let must_look = pollers.end_polling();
        if first.join().unwrap() || must_look {
            front.poll(None, &mut Vec::new()).unwrap();
            while front.take(&mut Vec::new()).is_some() {}
        }
        consumer.join().unwrap();
        assert!(
            front.outstanding() == 0 || signalled.load(Ordering::Acquire),
            "a response waits, and nobody is signalled"
        );
    });
}

/// A consumer that looks by itself and then sleeps, against an engine that spares its signals meanwhile.
fn consumer_sleeps(sleeps: impl Fn(&mut Back) -> bool + Sync + Send + Copy + 'static) {
    explore(None, move || {
        let (mut front, mut back) = halves(2);
        back.begin_polling();
        let pollers = Pollers::new(back.page().clone());
        let engine = thread::spawn(move || {
            let mut signals = false;
            for number in 1..=2 {
                front.put(&request(number));
                signals |= pollers.must_signal();
            }
            signals
        });
        let mut taken = 0;
        if back.pending() > 0 {
            taken += u32::from(back.take().unwrap().is_some());
        }
        if sleeps(&mut back) {
            while back.take().unwrap().is_some() {
                taken += 1;
            }
        }
        let signals = engine.join().unwrap();
        assert!(taken == 2 || signals, "{taken} of 2 requests taken, and nobody is signalled");
    });
}

#[test]
fn a_consumer_that_looks_by_itself_and_then_sleeps_misses_no_request() {
    consumer_sleeps(Back::end_polling);
}

/// What the second look in `Back::end_polling` is for.
#[test]
#[should_panic(expected = "nobody is signalled")]
fn a_consumer_that_sleeps_without_looking_again_misses_a_request() {
    consumer_sleeps(|back| {
        let _ = back.end_polling();
        false
    });
}

fn words(place: u64) -> [u64; mark::WORDS] {
    [place; mark::WORDS]
}

/// A vCPU stops at a page, is told to leave, and is let go on, twice; it looks for a mark whenever a signal might come. `lets_go`: what the
/// service does before the page is there.
fn tells_twice(lets_go: impl Fn(&Mark) + Sync + Send + Copy + 'static) {
    explore(Some(3), move || {
        let shared = Arc::new((Mark::new(), Counter::new(0), Counter::new(0)));
        let other = Arc::clone(&shared);
        let vcpu = thread::spawn(move || {
            let (mark, stops, page) = &*other;
            for place in 1..=2 {
                stops.store(place, Ordering::Release);
                while page.load(Ordering::Acquire) < place {
                    if let Some(found) = mark.take() {
                        assert_eq!(found, words(place), "another mark than that of where it stands");
                    }
                    thread::yield_now();
                }
                assert_eq!(mark.take(), None, "a late signal leads somewhere");
            }
        });
        let (mark, stops, page) = &*shared;
        for place in 1..=2 {
            while stops.load(Ordering::Acquire) < place {
                thread::yield_now();
            }
            mark.set(words(place));
            lets_go(mark);
            page.store(place, Ordering::Release);
        }
        vcpu.join().unwrap();
    });
}

#[test]
fn a_mark_is_taken_whole_where_the_vcpu_stands_and_never_after_it_was_let_go_on() {
    tells_twice(Mark::take_back);
}

/// That this test would see it missing.
#[test]
#[should_panic(expected = "a late signal leads somewhere")]
fn a_mark_that_is_not_taken_back_leads_a_late_signal_astray() {
    tells_twice(|_| {});
}

/// A vCPU hears that it is to leave, and does; who told it looks whether it has. `decides`: how it counts that and says that it has decided.
fn hears(decides: impl Fn(&Mark, &Counter) + Sync + Send + Copy + 'static) {
    explore(Some(3), move || {
        let shared = Arc::new((Mark::new(), Counter::new(0)));
        shared.0.set(words(1));
        let other = Arc::clone(&shared);
        let vcpu = thread::spawn(move || {
            let (mark, left) = &*other;
            assert_eq!(mark.take(), Some(words(1)));
            decides(mark, left);
        });
        let (mark, left) = &*shared;
        while mark.is_pending() {
            thread::yield_now();
        }
        assert_eq!(left.load(Ordering::Relaxed), 1, "one that leaves is taken for one that does not");
        vcpu.join().unwrap();
    });
}

#[test]
fn a_vcpu_that_has_decided_to_leave_has_counted_it() {
    hears(|mark, left| {
        left.store(1, Ordering::Relaxed);
        mark.decided();
    });
}

/// That this test would see it missing.
#[test]
#[should_panic(expected = "one that leaves is taken for one that does not")]
fn a_vcpu_that_counts_after_it_has_decided_is_misjudged() {
    hears(|mark, left| {
        mark.decided();
        left.store(1, Ordering::Relaxed);
    });
}

/// What a thread sleeps on in the kernel: whether it sleeps there.
#[derive(Default)]
struct Futex(Mutex<bool>);

impl Futex {
    /// Sleeps only while the word is what the thread expects; says whether it sleeps.
    fn sleep(&self, stopped: &Stopped, expected: u32) -> bool {
        let mut sleeps = self.0.lock().unwrap();
        *sleeps = stopped.word().load(Ordering::Relaxed) == expected;
        *sleeps
    }

    fn wake(&self) {
        *self.0.lock().unwrap() = false;
    }
}

/// The engine has stopped a vCPU, which waits on its word; another thread writes what it waits for and releases it.
fn waits(
    falls_asleep: impl Fn(&Stopped) -> bool + Sync + Send + Copy + 'static,
    release: impl Fn(&Stopped) -> Option<Asleep> + Sync + Send + Copy + 'static,
) {
    explore(None, move || {
        let shared = Arc::new((Stopped::default(), Futex::default(), Cell::new(0)));
        shared.0.stop();
        let other = Arc::clone(&shared);
        let vcpu = thread::spawn(move || {
            let (stopped, futex, answer) = &*other;
            // Its time to sleep is over, and it sleeps again.
            if falls_asleep(stopped) {
                stopped.wakes();
            }
            if falls_asleep(stopped) && futex.sleep(stopped, Asleep::OnWord.word()) {
                return;
            }
            stopped.wakes();
            while stopped.is_stopped() {
                thread::yield_now();
            }
            assert_eq!(answer.get(), 1, "goes on without its answer");
        });
        let (stopped, futex, answer) = &*shared;
        answer.set(1);
        if release(stopped) == Some(Asleep::OnWord) {
            futex.wake();
        }
        vcpu.join().unwrap();
        assert!(!*futex.0.lock().unwrap(), "it was released, sleeps, and is not woken");
    });
}

#[test]
fn a_stopped_vcpu_misses_no_release_and_sees_what_came_before_it() {
    waits(|stopped| stopped.falls_asleep(Asleep::OnWord), Stopped::release);
}

/// That this test would see a sleeper that looks and then says how it sleeps, in two steps.
#[test]
#[should_panic(expected = "is not woken")]
fn a_vcpu_that_falls_asleep_in_two_steps_is_never_woken() {
    let in_two_steps = |stopped: &Stopped| {
        let is_stopped = stopped.is_stopped();
        if is_stopped {
            stopped.word().store(Asleep::OnWord.word(), Ordering::SeqCst);
        }
        is_stopped
    };
    waits(in_two_steps, Stopped::release);
}

/// That a weaker release would be seen.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_release_without_order_shows_the_vcpu_no_answer() {
    let without_order = |stopped: &Stopped| match stopped.word().swap(0, Ordering::Relaxed) {
        asleep if asleep == Asleep::OnWord.word() => Some(Asleep::OnWord),
        _ => None,
    };
    waits(|stopped| stopped.falls_asleep(Asleep::OnWord), without_order);
}

/// Two vCPUs want to sleep on one ring's eventfd. Who has the seat takes the eventfd out of the service's set, and puts it back.
fn takes_the_seat(leave: impl Fn(&Seat, &Cell<bool>) + Sync + Send + Copy + 'static) {
    explore(None, move || {
        let shared = Arc::new((Seat::default(), Cell::new(true)));
        let sits = move |(seat, service_listens): &(Seat, Cell<bool>)| {
            if seat.take(|| service_listens.set(false)) {
                assert!(!service_listens.get(), "the service takes what the vCPU is to take");
                leave(seat, service_listens);
            }
        };
        let other = Arc::clone(&shared);
        let vcpu = thread::spawn(move || sits(&other));
        sits(&shared);
        vcpu.join().unwrap();
        assert!(shared.1.get(), "nobody listens");
    });
}

#[test]
fn one_vcpu_at_a_time_listens_in_the_services_stead() {
    takes_the_seat(|seat, service_listens| seat.leave(|| service_listens.set(true)));
}

/// What the order within `Seat::leave` is for.
#[test]
#[should_panic(expected = "Causality violation")]
fn who_gets_up_before_it_puts_things_back_meets_the_next_one() {
    takes_the_seat(|seat, service_listens| {
        seat.leave(|| {});
        service_listens.set(true);
    });
}

/// That a weaker store would be seen.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_seat_left_without_order_is_arranged_by_two() {
    takes_the_seat(|seat, service_listens| {
        service_listens.set(true);
        seat.word().store(0, Ordering::Relaxed);
    });
}
