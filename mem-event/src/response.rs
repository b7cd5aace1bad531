//! Responses: what a consumer may change, checked field by field (Xen 4.2, `mem_event_get_response` and the resume paths).
//!
//! | in the response | what it does |
//! |---|---|
//! | any | its slot is free, and the oldest waiters for a slot are woken |
//! | `DUMMY`, or another version of `vm_event` | nothing else |
//! | a vCPU that does not exist | nothing else, unless it answers a foreign request: then the frame comes back all the same |
//! | paging, without `DROP_PAGE` | the frame, if it has its memory, is ordinary memory again; in `vm_event` only if the reason is `MEM_PAGING` |
//! | `VCPU_PAUSED` | the vCPU is woken, if an event of this very ring paused it |
//! | with it, after a breakpoint's event | the breakpoint is delivered; in `vm_event` only if it was injected, else it is fetched again |
//! | `EMULATE` with it, after a violation that is still one | the instruction is let through once, alone ([`crate::Emulation`]); in `vm_event` only if the reason is `MEM_ACCESS` |
//! | not `VCPU_PAUSED` | nobody is woken |
//!
//! In the layout of `vm_event`, for a vCPU that an event of the access ring paused, woken by this response or not (Xen 4.17, `vm_event_resume`):
//!
//! | in the response | what it does |
//! |---|---|
//! | `TOGGLE_SINGLESTEP` | single step is turned over |
//! | `DENY`, and the reason of the control or model-specific register's event | the write does not happen, and the vCPU goes on behind it |
//! | `SET_REGISTERS` | the vCPU goes on with these general registers, RFLAGS and RIP |
//! | `GET_NEXT_INTERRUPT` | the next interrupt or exception that the vCPU gets is told before it is delivered, and stops the vCPU |
//! | `ALTERNATE_P2M` | the vCPU goes by the view that it names from now on, if there is one |
//! | `FAST_SINGLESTEP` | the vCPU does one step, of which nobody is told, and goes by the view then that stands where its subject does |

use crate::answer::Answer;
use crate::control::{Layout, Ring};
use crate::cpu_events::CpuEventKind;
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::event::Flags;
use crate::number::{Gfn, MOST_VIEWS, VcpuId, ViewId};
use crate::registers::{NewRegisters, Registers};
use crate::ring_state::RingPhase;
use crate::vcpu::{Breakpoint, Wait};

/// CS among a register file's segments.
const CS: usize = 0;

impl Domain {
    /// The consumer signalled: take every response that is there. [`crate::Input::Kick`] without the wrapping; harmless at any time. `until` is [`crate::With::until`].
    pub fn kick(&mut self, ring: Ring, until: Option<u32>, effects: &mut Effects) -> Outcome {
        self.take_responses(ring, until, effects);
        let state = &self.channels[ring.index()].state;
        if state.phase == RingPhase::Draining && state.outstanding.is_empty() {
            self.end_ring(ring, effects);
        }
        self.end_step(effects);
        Outcome::Proceed
    }

    pub(crate) fn take_responses(&mut self, ring: Ring, until: Option<u32>, effects: &mut Effects) {
        if let Err(why) = self.channels[ring.index()].poll(until, &mut effects.taken) {
            effects.list.push(Effect::Broken(ring, why.clone()));
            if self.channel(ring).state.phase == RingPhase::Draining {
                // It was about to end, and no answer that could be believed will come.
                self.end_ring(ring, effects);
            } else {
                self.lose_consumer(ring, RingPhase::Broken(why), effects);
            }
            return;
        }
        if self.historic.is_some() && self.is_historic(ring) {
            return self.take_by_policy(ring, effects);
        }
        while let Some(answer) = self.channels[ring.index()].take(effects, self.record) {
            self.grant_slots(ring, effects);
            if !answer.skip && !answer.flags.contains(Flags::DUMMY) {
                self.respond(ring, answer, effects);
            }
        }
    }

    #[inline]
    pub(crate) fn respond(&mut self, ring: Ring, answer: Answer, effects: &mut Effects) {
        let exists = (answer.vcpu as usize) < self.vcpus.len();
        if !exists && !answer.foreign {
            return;
        }
        if ring == Ring::Paging && !answer.other_reason && !answer.flags.contains(Flags::DROP_PAGE) {
            self.resume_page(Gfn(answer.subject), effects);
        }
        if !exists || answer.foreign {
            return;
        }
        let vcpu = VcpuId(answer.vcpu);
        // The 40-byte layouts have no such flags; there the bits are noise.
        let is_vm_event = ring == Ring::Access && self.channel(ring).state.layout == Layout::VmEvent7;
        if !self.vcpu(vcpu).is_paused_by(ring) {
            return;
        }
        let mut is_elsewhere = false;
        if is_vm_event {
            is_elsewhere = self.change_paused(vcpu, &answer, effects);
            if answer.flags.contains(Flags::ALTERNATE_P2M) {
                self.switch_where_there_is(vcpu, answer.view, effects);
            }
        }
        if !answer.flags.contains(Flags::VCPU_PAUSED) {
            return;
        }
        if ring == Ring::Access && answer.flags.contains(Flags::EMULATE) {
            self.emulates(vcpu, &answer, is_vm_event, is_elsewhere);
        }
        let it = self.vcpu(vcpu);
        if it.reported.is_some() || it.answered.is_some() {
            it.answered = it.reported;
        }
        // As in Xen, where a consumer injects the trap; the older layouts know no such call, and their listeners only answer.
        let is_breakpoint = it.answered.is_some_and(|event| event.kind.trap().is_some());
        if is_vm_event && is_breakpoint && it.breakpoint != Breakpoint::Injected {
            it.breakpoint = Breakpoint::FetchedAgain;
        }
        self.unpause(vcpu, ring, effects);
    }

    /// What an answer in the layout of `vm_event` changes of a paused vCPU, whether or not it lets the vCPU go on; says whether it puts the vCPU at
    /// another instruction.
    fn change_paused(&mut self, vcpu: VcpuId, answer: &Answer, effects: &mut Effects) -> bool {
        let it = self.vcpu(vcpu);
        if answer.flags.contains(Flags::TOGGLE_SINGLESTEP) {
            it.single_step = !it.single_step;
        } else if answer.flags.contains(Flags::FAST_SINGLESTEP)
            && let Some(view @ ViewId(..MOST_VIEWS)) = answer.after_step
        {
            (it.single_step, it.after_step) = (true, Some(view));
        }
        if answer.flags.contains(Flags::GET_NEXT_INTERRUPT) {
            it.next_interrupt = true;
            effects.push(|| Effect::NextInterrupt(vcpu));
        }
        // Xen goes by the reason that the answer says.
        let is_write = answer.cpu_event.is_some_and(CpuEventKind::can_be_denied);
        if is_write && answer.flags.contains(Flags::DENY) {
            it.denied = it.reported.is_some_and(|event| Some(event.kind) == answer.cpu_event) || it.denied;
        }
        // What is reported at the place where it is put next is another event, also at the same address.
        let data = answer.data.as_deref().filter(|_| answer.flags.contains(Flags::SET_REGISTERS));
        let Some(new) = data.map(Registers::from_words) else { return false };
        let stands_at = it.reported.map_or(it.stopped_at, |event| event.rip.0);
        let is_elsewhere = ![0, new.segments[CS].base].iter().any(|base| new.rip.wrapping_add(*base) == stands_at);
        if is_elsewhere && it.reported.is_some() {
            it.reported = None;
            it.denied = false;
            it.breakpoint = Breakpoint::AsLaidOut;
        }
        let registers = Box::new(NewRegisters::of(&new));
        effects.push(|| Effect::SetRegisters { vcpu, registers });
        is_elsewhere
    }

    /// Wakes a vCPU that an event of this ring paused; any other is left as it is, so no pause is taken back twice.
    pub(crate) fn unpause(&mut self, vcpu: VcpuId, ring: Ring, effects: &mut Effects) -> bool {
        let it = self.vcpu(vcpu);
        let paused = it.is_paused_by(ring);
        if paused {
            it.wait = Wait::Nothing;
            it.reported = None;
            effects.push(|| Effect::Wake(vcpu));
        }
        paused
    }
}
