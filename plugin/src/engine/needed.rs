//! What blocks must be instrumented with for what the engine watches and monitors.

use crate::arguments::Gate;
use crate::engine::step::Engine;
use crate::host::domain_host::Host;
use crate::host::instrumentation;
use mem_event::{CpuEventKind, MonitorMode};

impl Engine {
    /// Instruments what is wanted now. What is not wanted any more stays until `Hypervisor::disarm`.
    pub fn arm(&mut self, host: &Host) {
        if host.has_gate() {
            self.mark_stepped(host);
            instrumentation::want(instrumentation::wanted() | self.needed(host.gate.now()));
        }
    }

    /// What must be instrumented for what is watched and monitored.
    pub fn needed(&self, gate: Gate) -> u8 {
        let monitored = |kind: &CpuEventKind| self.domain.monitored(*kind) != MonitorMode::Disabled;
        let events = CpuEventKind::ALL.iter().any(monitored);
        let when = |is: bool, what: u8| if is { what } else { 0 };
        let data = if gate == Gate::Callback { instrumentation::ACCESS } else { instrumentation::NOTE };
        when(self.domain.is_watching(), data)
            | when(self.domain.is_watching_write_only(), instrumentation::ACCESS)
            | when(self.domain.is_watching_execution() || events, instrumentation::EXECUTE)
            | when(events, instrumentation::SPECIAL)
            | when(monitored(&CpuEventKind::SingleStep), instrumentation::STEP)
    }

    /// Tells each vCPU whether its steps are reported.
    pub fn mark_stepped(&self, host: &Host) {
        for vcpu in &host.vcpus {
            vcpu.trap.set_stepped(self.domain.single_steps(vcpu.id));
        }
    }
}
