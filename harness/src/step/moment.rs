//! The engine around one step: what it looked like before and what it looks like after.

use mem_event::trace::{End, PlayerError, Step};
use mem_event::{AccessType, Domain, Gfn, P2mType, Ring, RingView, VcpuId, VcpuView};

/// Frames that are kept on each side of the frame at hand.
const AROUND: u64 = 64;

/// What of an engine is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// The three rings, in [`Ring::ALL`]'s order.
    pub rings: [RingView; 3],
    /// All vCPUs, by number.
    pub vcpus: Vec<VcpuView>,
    /// vCPUs that wait for a frame within the budget, oldest first.
    pub frame_queue: Vec<VcpuId>,
    /// Frames around the one at hand, in order.
    pub frames: Vec<FrameView>,
    /// Frames that hold memory.
    pub resident: u64,
    /// Frames that are paged out.
    pub paged: u64,
    /// Frames that may hold memory at a time; `u64::MAX` for no limit.
    pub budget: u64,
    /// Why the domain has ended, if it has.
    pub ended: Option<String>,
}

/// A frame's p2m entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameView {
    /// Its number.
    pub gfn: Gfn,
    /// Its type.
    pub kind: P2mType,
    /// Its access type.
    pub access: AccessType,
    /// Memory is behind it.
    pub held: bool,
}

impl Scene {
    /// An engine as it is, with the p2m around a frame.
    #[must_use]
    pub fn of(domain: &Domain, vcpus: u32, around: Gfn) -> Scene {
        let frame = |gfn: u64| {
            let gfn = Gfn(gfn);
            FrameView { gfn, kind: domain.p2m_type(gfn), access: domain.access_type(gfn), held: domain.is_held(gfn) }
        };
        let info = domain.info();
        Scene {
            rings: Ring::ALL.map(|ring| domain.ring(ring)),
            vcpus: (0..vcpus).map_while(|vcpu| domain.vcpu_view(VcpuId(vcpu))).collect(),
            frame_queue: domain.frame_queue().collect(),
            frames: (around.0.saturating_sub(AROUND)..around.0.saturating_add(AROUND)).map(frame).collect(),
            resident: info.resident,
            paged: info.paged,
            budget: info.budget,
            ended: domain.ended().map(str::to_owned),
        }
    }
}

/// The step at hand and the engine around it.
#[derive(Clone, Debug)]
pub struct Moment {
    /// The step; `None` before the first.
    pub step: Result<Option<Step>, End>,
    /// The engine before the step, where it came to be there.
    pub before: Option<Scene>,
    /// The engine after it; or, with a stop, where it stopped.
    pub after: Scene,
    /// Steps that are applied in it.
    pub applied: u64,
    /// Why the engine did not get to after the step.
    pub stop: Option<PlayerError>,
}
