//! What of a domain can be inspected, as values: for debuggers and reports, which decide nothing.

use crate::control::{Layout, NoConsumer, Ring};
use crate::domain::Domain;
use crate::effect::WaitReason;
use crate::event::Request;
use crate::flow::{Flow, FlowKind};
use crate::life::Life;
use crate::number::{Gfn, VcpuId, ViewId};
use crate::page::RingPage;
use crate::ring::FrontState;
pub use crate::ring_state::RingPhase;
use std::collections::VecDeque;

/// A ring with its slots and its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingView {
    /// Where it stands in its life.
    pub phase: RingPhase,
    /// What happens while it has no consumer.
    pub policy: NoConsumer,
    /// How its flow is controlled.
    pub flow: FlowKind,
    /// The layout of its slots.
    pub layout: Layout,
    /// How many it has; 0 where there is no ring.
    pub slots: u32,
    /// Free slots.
    pub free: u32,
    /// Slots that are reserved for vCPUs that were woken for them.
    pub granted: u32,
    /// Requests without an answer, oldest first.
    pub outstanding: Vec<Request>,
    /// vCPUs that wait for a slot, or for a consumer while there is none; oldest first.
    pub queue: Vec<VcpuId>,
    /// The counters of its page; a counter's slot is its remainder by the number of slots.
    pub counters: Option<FrontState>,
}

/// A vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuView {
    /// What it waits for; `None` while it runs.
    pub wait: Option<WaitReason>,
    /// The frame of the request that paused it; while it is paused.
    pub stopped_on: Option<Gfn>,
    /// A slot that was reserved for it when it was woken.
    pub slot: Option<Ring>,
    /// A frame was reserved for it when it was woken.
    pub frame: bool,
    /// Its single steps are reported.
    pub single_step: bool,
    /// The view that it goes by, where the domain has views.
    pub view: Option<ViewId>,
}

impl Domain {
    /// A ring as it stands.
    #[must_use]
    pub fn ring(&self, ring: Ring) -> RingView {
        let channel = &self.channels[ring.index()];
        let state = &channel.state;
        let flow = self.historic.as_ref().and_then(|it| it.of(ring));
        let nobody = VecDeque::new();
        let waiters = flow.map_or(&state.flow.waiters, |flow| flow.waiters().unwrap_or(&nobody));
        RingView {
            phase: state.phase.clone(),
            policy: state.policy,
            flow: flow.map_or(FlowKind::Queue, Flow::kind),
            layout: state.layout,
            slots: state.slots,
            free: self.free_slots(ring),
            granted: flow.map_or(state.flow.targets, Flow::claims),
            outstanding: state.outstanding.iter().map(crate::packed::Packed::request).collect(),
            queue: waiters.iter().copied().collect(),
            counters: channel.counters(),
        }
    }

    /// A ring's page, where there is a ring.
    #[must_use]
    pub fn ring_page(&self, ring: Ring) -> Option<&RingPage> {
        self.channels[ring.index()].page()
    }

    /// A vCPU as it stands; `None` where there is none with this number.
    #[must_use]
    pub fn vcpu_view(&self, vcpu: VcpuId) -> Option<VcpuView> {
        let it = self.vcpus.get(vcpu.0 as usize)?;
        let wait = self.waiting(vcpu);
        let paused = matches!(wait, Some(WaitReason::Answer(_)));
        Some(VcpuView {
            wait,
            stopped_on: paused.then_some(it.stopped_on),
            slot: it.slot,
            frame: it.frame,
            single_step: it.single_step,
            view: self.has_views().then_some(it.view),
        })
    }

    /// vCPUs that wait for a frame within the budget, oldest first.
    pub fn frame_queue(&self) -> impl Iterator<Item = VcpuId> {
        self.budget.queue.iter().copied()
    }

    /// Why the domain has ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<&str> {
        match &self.life {
            Life::Alive => None,
            Life::Crashed(why) => Some(why),
            Life::Dying => Some("torn down"),
        }
    }
}
