//! What effects act on, without QEMU: words, event channels, subscribers, the gate in force.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use mem_event::message::Notice;
use mem_event::multicall::Multicall;
use mem_event::spin::Spin;
use mem_event::stopped::Asleep;
use mem_event::{Gfn, Rights, Ring};
use mem_event_plugin::arguments::{Arguments, Gate};
use mem_event_plugin::host::gate_in_force::GateInForce;
use mem_event_plugin::host::waiter::{self, wait_alone};
use mem_event_plugin::host::waiting::{Retry, Waiting};
use mem_event_plugin::host::word::Word;
use mem_event_server::{EventChannel, Subscribers};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::sync::Arc;
use std::time::Duration;

/// Only the limit of what can be called a hang.
const LIMIT: Duration = Duration::from_secs(60);

fn sockets() -> (Arc<OwnedFd>, OwnedFd) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    (Arc::new(one), other)
}

fn packets(socket: &OwnedFd) -> usize {
    let mut packet = [0; 4096];
    std::iter::from_fn(|| rustix::io::read(socket, &mut packet).ok().filter(|length| *length > 0)).count()
}

fn channel() -> (EventChannel, [OwnedFd; 2]) {
    let (_, page, calls) = Multicall::create(Ring::Access).unwrap();
    page.init();
    let (channel, ends) = EventChannel::new(Ring::Access, (0, 0), page, calls).unwrap();
    waiter::begin(&channel).unwrap();
    (channel, ends)
}

fn is_readable(descriptor: impl AsFd) -> bool {
    let mut watched = [PollFd::new(&descriptor, PollFlags::IN)];
    poll(&mut watched, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
}

#[test]
fn a_word_that_was_released_before_its_sleep_lets_no_thread_sleep() {
    let word = Word::default();
    word.stop();
    assert_eq!(word.release_quietly(), None, "no thread sleeps, so none is to be notified");
    word.sleep(LIMIT);
    assert!(!word.is_stopped());
}

/// A thread waits on the word; says how it slept when it was released, if it slept by then.
fn released_while(word: &Word, at_bell: bool) -> Option<Asleep> {
    let (_kept, readable) = sockets();
    word.stop();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while word.is_stopped() {
                if at_bell { word.sleep_or(readable.as_fd(), LIMIT) } else { word.sleep(LIMIT) }
            }
        });
        // The thread's turn.
        std::thread::yield_now();
        word.release_quietly().inspect(|asleep| word.notify(*asleep))
    })
}

#[test]
fn a_sleeper_is_notified_the_way_it_sleeps() {
    for (at_bell, expected) in [(false, Asleep::OnWord), (true, Asleep::AtBell)] {
        let word = Word::default();
        // Until it once sleeps before it is released; each time, the scope ends only if the thread was woken.
        let asleep = loop {
            if let Some(asleep) = released_while(&word, at_bell) {
                break asleep;
            }
        };
        assert_eq!(asleep, expected);
    }
}

#[test]
fn one_vcpu_at_a_time_sleeps_on_a_ring() {
    let (channel, _ends) = channel();
    let first = wait_alone(&channel);
    assert!(first.is_some());
    assert!(wait_alone(&channel).is_none(), "the others sleep on their words");
    drop(first);
    assert!(wait_alone(&channel).is_some());
}

#[test]
fn a_signal_is_forgotten_once_and_reaches_the_other_end() {
    let (channel, [to_consumer, to_engine]) = channel();
    assert!(!channel.clear());
    rustix::io::write(&to_engine, &1u64.to_ne_bytes()).unwrap();
    assert!(is_readable(channel.signalled()));
    assert!(channel.clear());
    assert!(!channel.clear());
    assert!(!is_readable(&to_consumer));
    channel.signal();
    assert!(is_readable(&to_consumer));
}

#[test]
fn a_client_that_subscribes_twice_hears_each_notice_once() {
    let subscribers = Subscribers::default();
    let (client, other) = sockets();
    subscribers.add(Arc::clone(&client));
    subscribers.add(Arc::clone(&client));
    assert_eq!(subscribers.notify(&Notice::Crashed("why".to_owned())), 1);
    assert_eq!(packets(&other), 1);
}

#[test]
fn only_the_last_subscriber_that_goes_leaves_nobody_behind() {
    let subscribers = Subscribers::default();
    let ((one, _one), (two, _two), (stranger, _stranger)) = (sockets(), sockets(), sockets());
    assert!(!subscribers.remove(&stranger), "there was none to begin with");
    subscribers.add(Arc::clone(&one));
    subscribers.add(Arc::clone(&two));
    assert!(!subscribers.remove(&one));
    assert!(!subscribers.remove(&stranger));
    assert!(subscribers.remove(&two));
}

#[test]
fn only_a_gate_that_was_chosen_here_gives_way() {
    let arguments = |gives_way| Arguments { gate: Gate::Mmu, gives_way, ..Arguments::default() };
    let (named, chosen) = (GateInForce::new(&arguments(false)), GateInForce::new(&arguments(true)));
    assert_eq!((named.give_way(), named.now()), (false, Gate::Mmu));
    assert_eq!(chosen.now(), Gate::Mmu);
    assert_eq!((chosen.give_way(), chosen.now()), (true, Gate::Callback));
}

#[test]
fn a_retry_is_the_access_that_waits_or_any_of_another_instruction() {
    let retry = Retry { rip: 0x10, access: Some((Gfn(1), Rights::R)) };
    assert!(retry.is_due(0x10, (Gfn(1), Rights::R)));
    assert!(!retry.is_due(0x10, (Gfn(2), Rights::R)), "another operand gives back nothing");
    assert!(!retry.is_due(0x10, (Gfn(1), Rights::X)), "nor does the fetch");
    assert!(retry.is_due(0x20, (Gfn(2), Rights::X)), "an interrupt's handler came in between");
}

#[test]
fn a_wait_is_over_for_the_vcpu_when_the_engine_released_it() {
    let waiting = Waiting::new(Spin::Off);
    assert!(!waiting.is_stopped());
    waiting.stop();
    waiting.set_ring(Some(Ring::Paging));
    assert_eq!((waiting.is_stopped(), waiting.ring()), (true, Some(Ring::Paging)));
    assert_eq!(waiting.release(), None);
    assert!(!waiting.is_stopped());
    waiting.set_ring(None);
    assert_eq!(waiting.ring(), None);
}
