//! How a stopped vCPU waits, in its own thread: spinning, then asleep, then out of its block and back.
//!
//! While it spins it looks at its ring by itself and takes responses in its own thread: no other thread is woken on the way.
//! Asleep, one parked vCPU of each ring sleeps on the ring's eventfd and takes responses for all; the others sleep on their words.
//! Whoever takes a response wakes just the vCPU that it is for.

use crate::engine::hypervisor::Hypervisor;
use crate::host::event_channel::{EventChannel, Waiter};
use crate::host::instrumentation;
use crate::host::vcpu::{Go, Vcpu};
use crate::host::word::Word;
use std::time::{Duration, Instant};

/// How long a vCPU stays in its block before it leaves: QEMU's own requests wait at most this long.
const STAY: Duration = Duration::from_millis(5);
/// Looks between two looks at the clock, some hundreds of nanoseconds.
const LOOKS: u32 = 16;

impl Vcpu {
    /// Waits, in this vCPU's callback, until the engine woke it: `Run` means look again.
    pub fn park(&self, hypervisor: &Hypervisor) -> Go {
        self.wait_until_it_goes(&self.event, |limit| {
            // Looked up anew each time: the ring may have got a new consumer meanwhile.
            match self.awaited().and_then(|ring| hypervisor.host.channel(ring)) {
                Some(channel) => self.sleep_on(hypervisor, &channel, limit),
                None => {
                    self.rests();
                    self.event.sleep(limit);
                }
            }
        })
    }

    /// Waits, in this vCPU's callback, on one of its words.
    pub fn park_on(&self, word: &Word) -> Go {
        self.wait_until_it_goes(word, |limit| word.sleep(limit))
    }

    fn wait_until_it_goes(&self, word: &Word, sleep: impl Fn(Duration)) -> Go {
        loop {
            if word.is_stopped() {
                sleep(STAY);
            }
            // Released, but its block is to be dropped: it goes on in a new one.
            if !word.is_stopped() && !instrumentation::is_flushing() {
                return Go::Run;
            }
            if self.must_stay() {
                if !word.is_stopped() {
                    return Go::Run;
                }
            } else if crate::qemu::internals::can_leave() {
                // Whatever it runs before it is back (an interrupt's handler) must look too.
                self.cache.empty();
                return Go::Leave;
            }
        }
    }

    fn sleep_on(&self, hypervisor: &Hypervisor, channel: &EventChannel, limit: Duration) {
        let begun = Instant::now();
        self.spin(hypervisor, channel, begun);
        if self.is_stopped() {
            self.rests();
            self.set_busy(false);
            match channel.wait_alone() {
                Some(lead) => self.sleep_leading(hypervisor, channel, lead, begun + limit),
                None => self.event.sleep(limit),
            }
            self.set_busy(true);
        }
        self.window().waited(begun.elapsed());
    }

    /// Looks for the answer until it is there or it is time to sleep.
    fn spin(&self, hypervisor: &Hypervisor, channel: &EventChannel, begun: Instant) {
        let length = self.window().length();
        if length.is_zero() || !hypervisor.host.has_cores(0) {
            return;
        }
        channel.lookout.begin();
        let mut looked = begun;
        while self.looks(hypervisor, channel) && looked - begun < length && hypervisor.host.has_cores(0) {
            let now = Instant::now();
            if !self.window().looked_after(now - looked) {
                break;
            }
            looked = now;
        }
        if channel.lookout.end() {
            hypervisor.take_responses(channel);
        }
    }

    /// Some looks; says whether it is still stopped.
    fn looks(&self, hypervisor: &Hypervisor, channel: &EventChannel) -> bool {
        for _ in 0..LOOKS {
            if !self.is_stopped() {
                return false;
            }
            if channel.lookout.is_pending() {
                hypervisor.take_responses(channel);
                channel.lookout.spare();
            }
            std::hint::spin_loop();
        }
        true
    }

    /// Sleeps on the ring's eventfd, and takes what comes, whoever it is for.
    fn sleep_leading(&self, hypervisor: &Hypervisor, channel: &EventChannel, _lead: Waiter<'_>, until: Instant) {
        let left = || until.saturating_duration_since(Instant::now());
        while self.is_stopped() && !left().is_zero() {
            self.event.sleep_or(channel.signalled(), left());
            if channel.clear() {
                hypervisor.take_responses(channel);
            }
        }
    }
}
