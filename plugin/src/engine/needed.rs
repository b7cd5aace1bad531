//! What blocks must be instrumented with for what the engine watches and monitors.

use crate::arguments::Gate;
use crate::engine::step::Engine;
use crate::host::domain_host::Host;
use crate::host::instrumentation;
use crate::host::witness::Standing;
use crate::qemu::{apart, delivery, passing};
use mem_event::{CpuEventKind, Gfn, MonitorMode};

impl Engine {
    /// Instruments what is wanted now. What is not wanted any more stays until `Hypervisor::disarm`.
    pub fn arm(&mut self, host: &Host) {
        if host.has_gate() {
            passing::takes_place();
            let what = |kind, what: u8| if self.domain.monitored(kind) == MonitorMode::Disabled { 0 } else { what };
            delivery::want(what(CpuEventKind::Debug, delivery::DEBUG) | what(CpuEventKind::Interrupt, delivery::ALL));
            let before = instrumentation::wanted();
            instrumentation::want(before | self.needed(host.gate.now()));
            if instrumentation::wanted() & !before & instrumentation::EXECUTE != 0 {
                host.lose_execution(Gfn(0), host.rights.frames());
            }
            // Behind what is wanted: the blocks that a vCPU gets for its steps are to have them.
            self.mark_stepped(host);
        }
    }

    /// What must be instrumented for what is watched and monitored.
    pub fn needed(&self, gate: Gate) -> u16 {
        let monitored = |kind: &CpuEventKind| self.domain.monitored(*kind) != MonitorMode::Disabled;
        // What is delivered is told before any block, and a step where vCPUs have blocks for it, by those.
        let is_told_elsewhere = |kind: CpuEventKind| {
            kind == CpuEventKind::Interrupt || kind == CpuEventKind::SingleStep && apart::is_there()
        };
        let events = CpuEventKind::ALL.iter().filter(|kind| !is_told_elsewhere(**kind)).any(monitored);
        let when = |is: bool, what: u16| if is { what } else { 0 };
        // What is watched for fetches once may be again in a moment.
        let fetches = self.domain.is_watching_execution()
            || self.domain.is_watching() && instrumentation::wanted() & instrumentation::EXECUTE != 0;
        when(self.domain.is_watching(), for_data(gate))
            | when(self.domain.is_watching_write_only(), instrumentation::ACCESS)
            | when(fetches, instrumentation::EXECUTE)
            | when(events, instrumentation::SPECIAL | instrumentation::ENTRY)
            | when(monitored(&CpuEventKind::SingleStep), instrumentation::STEP)
            | when(monitored(&CpuEventKind::Cpuid), instrumentation::CPUID)
            | when(monitored(&CpuEventKind::Descriptor), instrumentation::DESCRIPTOR)
            | when(monitored(&CpuEventKind::GuestRequest), instrumentation::HYPERCALL)
            | when(monitored(&CpuEventKind::Io), instrumentation::PORT)
            | when(monitored(&CpuEventKind::Xcr0), instrumentation::EXTENDED)
    }

    /// Frames are watched, maybe since they came into being, and no instruction is instrumented for it that must be.
    pub fn is_unarmed(&self, gate: Gate) -> bool {
        let wanted = instrumentation::wanted();
        self.domain.is_watching() && wanted & instrumentation::ACCESS == 0 && for_data(gate) & !wanted != 0
    }
}

/// What watched data needs: a check, or where no unwinding tells what a stopped vCPU stands in, a note.
fn for_data(gate: Gate) -> u16 {
    match Standing::now() {
        _ if gate == Gate::Callback => instrumentation::ACCESS,
        Standing::Proven => 0,
        Standing::Unproven | Standing::Refuted => instrumentation::NOTE,
    }
}
