//! The effects of a step, carried out in their order.

use crate::engine::kernel_stops::Hears;
use crate::engine::step::Engine;
use crate::engine::vcpus::goes_on_with_new_registers;
use crate::fatal;
use crate::host::domain_host::{Host, report};
use crate::host::instrumentation;
use crate::host::notification::Notification;
use crate::qemu::delivery;
use mem_event::message::Notice;
use mem_event::trace::remark::Moment;
use mem_event::{Effect, Gfn, Input, P2mType, PAGE_SIZE, Request, Rights, Ring, Trap, VcpuId};
use mem_event_server::EventChannel;
use mem_event_server::chaos::Fault;
use std::sync::{Arc, Once};

/// What a frame holds that nobody filled.
const NO_CONTENT: [u8; PAGE_SIZE] = [0; PAGE_SIZE];

impl Engine {
    /// A request was put.
    fn notify(&mut self, host: &Host, channel: Arc<EventChannel>) {
        match channel.put_with_fault(&host.chaos) {
            None | Some(Fault::SpuriousNotification { .. }) => {}
            // Nobody is there to kill it: it is notified.
            Some(Fault::Kill { ring, .. }) if host.subscribers.notify(&Notice::Kill(ring)) == 0 => {
                let _ = channel.end_lateness();
            }
            Some(_) => return,
        }
        // A consumer that polls the ring needs no signal.
        if channel.pollers.must_signal() {
            self.notifications.push(Notification::Consumer(channel));
        }
    }

    /// Carries one effect out; `Err` is what the engine must hear where it cannot be, and the step's other effects stay undone.
    pub(super) fn carry_out(&mut self, host: &Host, effect: &Effect, content: Option<&[u8]>) -> Result<(), Input> {
        match effect {
            Effect::Requested { .. } | Effect::Answered { .. } => {}
            Effect::Lost { ring, request, printed } => lost(*ring, request, *printed),
            Effect::Notify(ring) => {
                if let Some(channel) = host.channel(*ring) {
                    self.notify(host, channel);
                }
            }
            Effect::SetRegisters { vcpu, registers } => {
                if let Some(vcpu) = host.vcpu(vcpu.0) {
                    vcpu.trap.set_answered_registers(registers.clone());
                }
            }
            Effect::Switched(vcpu) => host.forgets_rights(*vcpu),
            Effect::NextInterrupt(vcpu) => wants_next_interrupt(*vcpu),
            Effect::Inject { vcpu, trap } => self.inject(host, *vcpu, *trap),
            Effect::Wake(vcpu) => self.wake(host, *vcpu),
            Effect::RetryForeign => self.stopped.wake_foreign(),
            Effect::Unmap(gfn) => self.unmap(host, *gfn, 1),
            Effect::Tighten { first, count } => {
                // What instructions do not show (an interrupt's frame) is stopped by the host under either gate.
                if self.stopped.hears() == Hears::Touches {
                    report("populate", *first, host.memory.populate(*first, *count));
                }
                self.unmap(host, *first, *count);
            }
            Effect::Map(gfn) => self.map(host, *gfn),
            Effect::Punch(gfn) => self.punch(host, *gfn),
            Effect::Zero(gfn) => {
                self.is_back(host, *gfn, &NO_CONTENT);
                // As far as its rights allow: they may have been set while it was out.
                if host.rights.allowed(*gfn).contains(Rights::R) {
                    self.map(host, *gfn);
                } else {
                    report("populate", *gfn, host.memory.populate(*gfn, 1));
                }
            }
            Effect::Fill(gfn) => {
                let content = content.unwrap_or(&NO_CONTENT);
                self.fill(host, *gfn, content)?;
                self.remark_content(*gfn, content, Moment::Loaded);
                self.is_back(host, *gfn, content);
            }
            Effect::Share { source, client } => {
                // Where it fails the client goes on with a page of its own, which is as right.
                report("share", *client, host.memory.share(*source, *client, &mut self.met));
            }
            Effect::Unshare { gfn, .. } => {
                self.part(host, *gfn);
                self.map(host, *gfn);
            }
            Effect::Closed(ring) => host.set_channel(*ring, None),
            Effect::Broken(ring, why) => {
                eprintln!("mem-event: the {ring} ring is broken: {why}");
                host.set_channel(*ring, None);
            }
            Effect::Crash(why) => {
                eprintln!("mem-event: the domain crashed: {why}");
                host.crash(why);
            }
        }
        Ok(())
    }

    /// A vCPU gets a trap when it goes on: at once, where nobody has to let it.
    fn inject(&self, host: &Host, vcpu: VcpuId, trap: Trap) {
        let Some(it) = host.vcpu(vcpu.0) else { return };
        it.trap.set_trap(trap);
        if self.domain.waiting(vcpu).is_none() && !it.awaits_release() {
            goes_on_with_new_registers(it);
        }
    }

    fn wake(&mut self, host: &Host, vcpu: VcpuId) {
        let it = host.vcpu(vcpu.0);
        if let Some(it) = it.filter(|it| it.trap.has_new_registers()) {
            // In this order: as soon as its registers are set it may be on its way, and stands nowhere any more.
            self.leaves_to_go_on_elsewhere(host, it);
            goes_on_with_new_registers(it);
        }
        // Both: a vCPU that waits in a callback leaves its block now and then, and may have met a page in the kernel since.
        let _ = self.stopped.wake(vcpu);
        let Some(it) = it else { return };
        if let Some(asleep) = it.waiting.release() {
            self.notifications.push(Notification::Vcpu(vcpu, asleep));
        }
        // One that stands in the kernel goes on when its page is there.
        if !self.stopped.waits(vcpu) && it.has_given_way() {
            self.notifications.push(Notification::Turn(vcpu));
        }
    }

    /// The frame goes back to the guest.
    fn map(&mut self, host: &Host, gfn: Gfn) {
        // The kernel wakes by page, not by thread: as long as one access on the page has no answer, none goes. And a vCPU that
        // may not read it is to stop at it.
        if !self.stopped.is_touched(gfn) && host.rights.allowed(gfn).contains(Rights::R) {
            self.gives_back(host, gfn);
        }
    }

    /// The frame's memory goes back to the host.
    fn punch(&mut self, host: &Host, gfn: Gfn) {
        if host.memory.offset(gfn).is_none() {
            return report("punch", gfn, host.beyond.punch(gfn));
        }
        self.part(host, gfn);
        self.goes(host, gfn);
        report("punch", gfn, host.memory.punch(gfn));
    }

    /// The frame shares its page with nobody from now on. If that fails, it still shows what is others' as well, which nothing may
    /// write to: the run cannot go on.
    fn part(&mut self, host: &Host, gfn: Gfn) {
        if let Err(error) = host.memory.part(gfn, &mut self.met) {
            self.end_trace();
            fatal::end_run(Some(host), &format!("frame {gfn} cannot have memory of its own: {error}"));
        }
    }

    /// The frame's memory goes. What cannot be read counts as changed already.
    fn goes(&mut self, host: &Host, gfn: Gfn) {
        let mut content = NO_CONTENT;
        match host.memory.read(gfn, 0, &mut content) {
            Ok(()) => {
                self.gone.goes(gfn, &content);
                // What is ballooned out is nobody's to bring back.
                if self.domain.p2m_type(gfn) == P2mType::RamPaged {
                    self.remark_content(gfn, &content, Moment::Evicted);
                }
            }
            Err(_) => host.bytes_changed(gfn, 0, PAGE_SIZE),
        }
    }

    /// The frame has memory again, with this content. Before anything that it lets go on.
    fn is_back(&mut self, host: &Host, gfn: Gfn, content: &[u8]) {
        if self.gone.is_back_changed(gfn, content) {
            host.bytes_changed(gfn, 0, PAGE_SIZE);
        }
    }

    /// No access passes unseen from here on: caches forget, and a vCPU that was past its check meets an unmapped page.
    fn unmap(&mut self, host: &Host, first: Gfn, count: u64) {
        if host.has_gate() {
            host.vcpus.iter().for_each(|vcpu| vcpu.cache.empty());
        }
        report("unmap", first, host.memory.unmap(first, count));
        if instrumentation::wanted() & instrumentation::EXECUTE != 0 {
            host.lose_execution(first, count);
        }
    }
}

/// An answer asks for the next exception or interrupt of a vCPU.
fn wants_next_interrupt(vcpu: VcpuId) {
    static SAID: Once = Once::new();
    match delivery::lack() {
        None => delivery::want_next(vcpu.0, true),
        Some(lack) => SAID.call_once(|| eprintln!("mem-event: GET_NEXT_INTERRUPT is nothing here: {lack}")),
    }
}

/// A flow control of Xen's history has let go of a request, and the source prints a line of it or does not.
fn lost(ring: Ring, request: &Request, printed: bool) {
    if printed {
        eprintln!("mem-event: a request of vCPU {} for the {ring} ring is lost", request.vcpu);
    }
}
