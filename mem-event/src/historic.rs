//! What is kept of flow controls of Xen's history ([`crate::flow`]), of all rings that have one. It lies apart from everything else: a domain whose
//! rings are all under `queue` has none of it.

use crate::control::Ring;
use crate::flow::{Flow, FlowKind, Stops};
use crate::number::{Gfn, VcpuId};
use crate::packed::Packed;
use bincode::{Decode, Encode};
use std::collections::{BTreeMap, VecDeque};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Historic {
    flows: [Option<Flow>; 3],
    /// Pauses and pause flags of all vCPUs, as far as these rings make them.
    pub stops: Stops,
    /// Who sleeps on which ring, and where. A vCPU that was woken and has not gone on yet is among them, and has that ring as its `slot`.
    pub sleepers: BTreeMap<VcpuId, Sleeper>,
    /// Frames that vCPUs have given back and then had to sleep: done, when they say so again.
    pub ballooned: BTreeMap<VcpuId, Gfn>,
}

/// A vCPU that sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Sleeper {
    pub ring: Ring,
    pub place: Sleep,
}

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) enum Sleep {
    /// In its claim: it claims again.
    Claim,
    /// In its put, with its request.
    Put(Held),
    /// By a pause flag, with nothing left to do.
    Flag,
}

/// A request that waits for room with its vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Held {
    pub request: Packed,
    /// v5 pauses a vCPU after its put, in sharing.
    pub pauses_after: bool,
}

impl Historic {
    /// Of so many vCPUs, and of no ring yet.
    pub fn new(vcpus: u32) -> Historic {
        Historic { stops: Stops::new(vcpus), ..Historic::default() }
    }

    /// Chooses a ring's flow control; `queue` is none of these.
    pub fn choose(&mut self, ring: Ring, kind: FlowKind) {
        self.flows[ring.index()] = (kind != FlowKind::Queue).then(|| Flow::new(kind, ring));
    }

    /// Whether no ring has such a flow control.
    pub fn is_idle(&self) -> bool {
        self.flows.iter().all(Option::is_none)
    }

    /// A ring's flow control, if it is one of these.
    pub fn of(&self, ring: Ring) -> Option<&Flow> {
        self.flows[ring.index()].as_ref()
    }

    /// The same, with the vCPUs' stops.
    pub fn parts(&mut self, ring: Ring) -> Option<(&mut Flow, &mut Stops)> {
        let flow = self.flows[ring.index()].as_mut()?;
        Some((flow, &mut self.stops))
    }

    /// vCPUs that stand in a ring's queue, oldest first.
    pub fn waiters(&self, ring: Ring) -> Option<&VecDeque<VcpuId>> {
        self.of(ring)?.waiters()
    }

    /// Whether what is read from a file can be that of so many vCPUs, with so many slots a ring.
    pub fn is_sound(&self, vcpus: u32, slots: [u32; 3]) -> bool {
        let exists = |vcpu: &VcpuId| vcpu.0 < vcpus;
        let fits = |(flow, slots): (&Option<Flow>, u32)| {
            flow.as_ref()
                .is_none_or(|flow| flow.fits(slots) && flow.waiters().is_none_or(|list| list.iter().all(exists)))
        };
        let has_flow = |it: &Sleeper| self.of(it.ring).is_some();
        let is_whole = |it: &Sleeper| !matches!(it.place, Sleep::Put(held) if !held.request.is_whole());
        self.sleepers.keys().chain(self.ballooned.keys()).all(exists)
            && self.sleepers.values().all(|it| has_flow(it) && is_whole(it))
            && self.stops.is_sound(vcpus)
            && self.flows.iter().zip(slots).all(fits)
    }
}
