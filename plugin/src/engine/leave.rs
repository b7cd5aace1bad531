//! vCPUs that stand in the kernel leave their blocks now and then, so that QEMU's own requests go through while they wait.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::step::Engine;
use crate::host::domain_host::Host;
use crate::host::explain;
use crate::host::vcpu::Vcpu;
use crate::qemu::unwinding::Place;
use crate::qemu::view::View;
use crate::qemu::{current, leaving, outside};
use mem_event::VcpuId;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a vCPU stays in its block before it leaves, in the kernel or in its callback, where nobody has told this plugin of what it is to do:
/// QEMU's own requests wait at most this long.
pub const STAY: Duration = Duration::from_millis(5);

impl Hypervisor {
    /// Tells the vCPUs to leave that have stood long enough, and where that costs nothing. They come back to their instructions, and stand
    /// again.
    pub fn have_them_leave(&self) {
        self.have_leave(None);
    }

    /// The same, and this vCPU however short it has stood: it has work to do outside.
    pub(super) fn have_it_leave(&self, vcpu: VcpuId) {
        self.have_leave(Some(vcpu));
    }

    fn have_leave(&self, at_once: Option<VcpuId>) {
        if !leaving::is_there() || !self.host.anything_is_stopped() {
            return;
        }
        let mut engine = self.engine();
        let is_wanted_out = |vcpu| at_once == Some(vcpu) || at_once.is_some() && current::runs_all();
        let are_due = engine.stopped.vcpus().filter(|(number, stand)| {
            is_wanted_out(*number) || outside::all_are_wanted_out() || stand.since.elapsed() >= STAY
        });
        let are_due: Vec<VcpuId> = are_due.map(|(number, _)| number).collect();
        for vcpu in are_due.into_iter().filter_map(|number| self.host.vcpu(number.0)) {
            engine.has_leave(&self.host, vcpu);
        }
    }
}

impl Engine {
    /// Tells a vCPU to leave that stands, if it can and is there: of several of a thread the one whose turn it is.
    pub(super) fn has_leave(&mut self, host: &Host, vcpu: &Vcpu) {
        let Some(stand) = self.stopped.stand(vcpu.id) else { return };
        if stand.told.is_some() || stand.stays.is_some() || !current::may_run(vcpu.id.0) {
            return;
        }
        match explain::place_to_leave(host, vcpu, stand.access.fault) {
            Ok((place, view)) => {
                stand.told = Some(leaving::times(vcpu.id.0));
                host.gives_way(vcpu);
                tell(vcpu, &place, &view);
            }
            Err(stays) => stand.stays = Some(stays),
        }
    }
}

/// Tells a vCPU to leave its block from the instruction that it stands in, to which it comes back.
pub(super) fn tell(vcpu: &Vcpu, place: &Place, view: &View) {
    let rip = view.linear_instruction_pointer() & !0xfff | u64::from(place.page_offset);
    vcpu.trap.set_left(rip);
    leaving::tell(vcpu.id.0, vcpu.thread.load(Ordering::Acquire), place, view);
}
