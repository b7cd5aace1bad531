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
//! | `TOGGLE_SINGLESTEP` with it | single step is turned over for that vCPU |
//! | not `VCPU_PAUSED` | nobody is woken |

use crate::channel::Answer;
use crate::control::{CpuEventKind, Layout, Ring};
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome};
use crate::event::Flags;
use crate::number::{Gfn, VcpuId};
use crate::ring_state::RingPhase;
use crate::vcpu::{Breakpoint, Wait};

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
        if !exists || answer.foreign || !answer.flags.contains(Flags::VCPU_PAUSED) {
            return;
        }
        let vcpu = VcpuId(answer.vcpu);
        // The 40-byte layouts have no such flag; there the bit is noise.
        let is_vm_event = ring == Ring::Access && self.channel(ring).state.layout == Layout::VmEvent7;
        let it = self.vcpu(vcpu);
        if !it.is_paused_by(ring) {
            return;
        }
        if it.reported.is_some() || it.answered.is_some() {
            it.answered = it.reported;
        }
        // As in Xen, where a consumer injects the trap; the older layouts know no such call, and their listeners only answer.
        let is_breakpoint = it.answered.is_some_and(|event| event.kind == CpuEventKind::Int3);
        if is_vm_event && is_breakpoint && it.breakpoint != Breakpoint::Injected {
            it.breakpoint = Breakpoint::FetchedAgain;
        }
        it.single_step ^= is_vm_event && answer.flags.contains(Flags::TOGGLE_SINGLESTEP);
        self.unpause(vcpu, ring, effects);
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
