//! How a stopped vCPU waits, in its own thread: spinning, then asleep, then out of its block and back.
//!
//! While it spins it polls its ring by itself and takes responses in its own thread: no other thread is woken on the way.
//! Asleep, one parked vCPU of each ring sleeps on the ring's eventfd and takes responses for all; the others sleep on their words.
//! The thread that takes a response wakes just the vCPU that it is for.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::leave::STAY;
use crate::engine::vcpus::forget_new_registers;
use crate::host::domain_host::Host;
use crate::host::instrumentation;
use crate::host::state::Go;
use crate::host::vcpu::Vcpu;
use crate::host::waiter::{Waiter, wait_alone};
use crate::host::word::Word;
use crate::qemu::{internals, outside, request, view};
use mem_event_server::EventChannel;
use std::time::{Duration, Instant};

/// Polls between two readings of the clock, some hundreds of nanoseconds.
const POLLS: u32 = 16;

/// A vCPU waits, in its callback, until the engine released it: `Run` means ask again.
pub fn for_engine(hypervisor: &Hypervisor, vcpu: &Vcpu) -> Go {
    until_released(&hypervisor.host, vcpu, &vcpu.waiting.word, |limit| {
        // Asked for anew each time: the ring may have got a new consumer meanwhile.
        match vcpu.waiting.ring().and_then(|ring| hypervisor.host.channel(ring)) {
            Some(channel) => Wait { hypervisor, vcpu, channel: &channel }.sleep(limit),
            None => {
                vcpu.waiting.start_clock();
                vcpu.waiting.word.sleep(limit);
            }
        }
    })
}

/// A vCPU waits, in its callback, until a client lets it go on from the checkpoint that it stands at.
pub fn for_release(host: &Host, vcpu: &Vcpu) -> Go {
    let word = vcpu.checkpoint_word();
    until_released(host, vcpu, word, |limit| word.sleep(limit))
}

fn until_released(host: &Host, vcpu: &Vcpu, word: &Word, sleep: impl Fn(Duration)) -> Go {
    loop {
        if word.is_stopped() && !is_wanted_out(host, vcpu) {
            sleep(STAY);
        }
        // Released, but its block is to be dropped: it goes on in a new one. Looked at in this order: what a consumer changed before it
        // answered is seen.
        if !word.is_stopped() && !instrumentation::is_flushing() && !outside::is_due(vcpu.id.0) {
            return if is_asked_for(vcpu) { Go::Leave } else { Go::Run };
        }
        if !vcpu.state().may_leave() {
            if !word.is_stopped() {
                forget_new_registers(vcpu);
                return Go::Run;
            }
        } else if internals::can_leave() {
            if !word.is_stopped() {
                return Go::Leave;
            }
            host.gives_way(vcpu);
            // Who lets it go on looks at whether it has given way after it has let it.
            if word.is_stopped() {
                return Go::Leave;
            }
        }
    }
}

/// Whether it is to leave its block at once, and can: all are, somebody waits for what it does outside, or another one has its thread to itself.
fn is_wanted_out(host: &Host, vcpu: &Vcpu) -> bool {
    let is_wanted = outside::all_are_wanted_out() || outside::is_due(vcpu.id.0) || host.is_to_give_way(vcpu);
    is_wanted && vcpu.can_leave()
}

/// Whether QEMU wants the vCPU out of its block: one whose accesses are answered at once, and not let through, would not come to that.
fn is_asked_for(vcpu: &Vcpu) -> bool {
    vcpu.can_leave() && view::view_of(vcpu.id.0).is_some_and(|view| request::is_made(&view))
}

/// A vCPU that waits for a ring.
struct Wait<'a> {
    hypervisor: &'a Hypervisor,
    vcpu: &'a Vcpu,
    channel: &'a EventChannel,
}

impl Wait<'_> {
    fn is_stopped(&self) -> bool {
        self.vcpu.waiting.is_stopped()
    }

    fn is_wanted_out(&self) -> bool {
        is_wanted_out(&self.hypervisor.host, self.vcpu)
    }

    fn sleep(&self, limit: Duration) {
        let waiting = &self.vcpu.waiting;
        let begun = Instant::now();
        self.spin(begun);
        if waiting.is_stopped() && !self.is_wanted_out() {
            waiting.start_clock();
            waiting.set_busy(false);
            match wait_alone(self.channel) {
                Some(waiter) => self.sleep_on_channel(waiter, begun + limit),
                None => waiting.word.sleep(limit),
            }
            waiting.set_busy(true);
        }
        waiting.window().waited(begun.elapsed());
    }

    /// Polls for the answer until it is there or it is time to sleep.
    fn spin(&self, begun: Instant) {
        let length = self.vcpu.waiting.window().length();
        if length.is_zero() || !self.hypervisor.host.has_cores(0) {
            return;
        }
        let pollers = &self.channel.pollers;
        pollers.begin_polling();
        let mut polled = begun;
        while self.polls() && polled - begun < length && self.hypervisor.host.has_cores(0) {
            let now = Instant::now();
            if !self.vcpu.waiting.window().polled_after(now - polled) {
                break;
            }
            polled = now;
        }
        if pollers.end_polling() {
            self.hypervisor.take_responses(self.channel);
        }
    }

    /// Some polls; says whether the vCPU is still stopped.
    fn polls(&self) -> bool {
        for _ in 0..POLLS {
            if !self.is_stopped() || self.is_wanted_out() {
                return false;
            }
            if self.channel.is_pending() {
                self.hypervisor.take_responses(self.channel);
                self.channel.pollers.suppress_notify();
            }
            std::hint::spin_loop();
        }
        true
    }

    /// Sleeps on the ring's eventfd, and takes the responses that come, of all vCPUs.
    fn sleep_on_channel(&self, _waiter: Waiter<'_>, until: Instant) {
        let left = || until.saturating_duration_since(Instant::now());
        while self.is_stopped() && !left().is_zero() && !self.is_wanted_out() {
            self.vcpu.waiting.word.sleep_or(self.channel.signalled(), left());
            if self.channel.clear() {
                self.hypervisor.take_responses(self.channel);
            }
        }
    }
}
