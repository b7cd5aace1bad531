//! CPU events: writes to control and model-specific registers, breakpoints, single steps (Xen's `hvm_memory_event_traps`).
//!
//! They travel on the access ring. A synchronous event stops the vCPU until its answer; when it looks again with the same
//! event, that event is over. So a breakpoint that is answered is then executed by the guest, which is what a listener's
//! reinjection does in Xen.

use crate::control::{CpuEventKind, MonitorMode, NoConsumer, Ring};
use crate::domain::Domain;
use crate::effect::{Effects, Outcome, WaitReason};
use crate::errno::Errno;
use crate::event::{Flags, Reason, Request};
use crate::input::CpuEvent;
use crate::number::{Gfn, Gla, VcpuId};
use crate::p2m::P2mType;
use crate::rights::Rights;
use crate::wire::vm_event::Registers;
use bincode::{Decode, Encode};

/// Which events are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Monitor {
    modes: [(MonitorMode, bool); CpuEventKind::ALL.len()],
}

impl Domain {
    /// A CPU event, or the same once more after a wake: [`crate::Input::CpuEvent`] without the wrapping, and
    /// [`crate::With::registers`]. `Proceed`: the vCPU goes on;
    /// for a breakpoint: the guest gets it.
    pub fn cpu_event(
        &mut self,
        vcpu: VcpuId,
        event: &CpuEvent,
        registers: Option<&Registers>,
        effects: &mut Effects,
    ) -> Outcome {
        if let Some(outcome) = self.stopped(vcpu) {
            return outcome;
        }
        let outcome = self.report(vcpu, event, registers, effects);
        self.return_grants(vcpu, effects);
        self.end_step(effects);
        outcome
    }

    fn report(
        &mut self,
        vcpu: VcpuId,
        event: &CpuEvent,
        registers: Option<&Registers>,
        effects: &mut Effects,
    ) -> Outcome {
        if self.vcpu(vcpu).answered.take() == Some(*event) {
            return Outcome::Proceed;
        }
        let (mode, on_change_only) = self.monitor.modes[event.kind as usize];
        let unchanged = on_change_only && event.kind.has_old_value() && event.value == event.old;
        let not_stepped = event.kind == CpuEventKind::SingleStep && !self.vcpu(vcpu).single_step;
        if mode == MonitorMode::Disabled || unchanged || not_stepped {
            return Outcome::Proceed;
        }
        let channel = &self.channels[Ring::Access.index()];
        let passes = event.kind == CpuEventKind::Int3 || channel.account.policy == NoConsumer::Relax;
        if !channel.has_consumer() && passes {
            return Outcome::Proceed;
        }
        let claim = match self.claim(vcpu, Ring::Access, effects) {
            Ok(claim) => claim,
            Err(outcome) => return outcome,
        };
        let request = cpu_request(vcpu, event);
        if mode == MonitorMode::Async {
            self.put_with(Ring::Access, claim, request, registers, effects);
            return Outcome::Proceed;
        }
        self.pause(vcpu, Ring::Access, event.gfn);
        self.vcpu(vcpu).reported = Some(*event);
        let request = Request { flags: Flags::VCPU_PAUSED, ..request };
        self.put_with(Ring::Access, claim, request, registers, effects);
        Outcome::Wait(WaitReason::Answer(Ring::Access))
    }

    /// `Control::Monitor`.
    pub(crate) fn set_monitor(&mut self, kind: CpuEventKind, mode: MonitorMode, on_change_only: bool) -> Outcome {
        if on_change_only && matches!(kind, CpuEventKind::Int3 | CpuEventKind::SingleStep) {
            return Outcome::Refused(Errno::EINVAL, format!("{kind} events have no old value"));
        }
        self.monitor.modes[kind as usize] = (mode, on_change_only);
        Outcome::Proceed
    }

    /// `Control::SingleStep`.
    pub(crate) fn set_single_step(&mut self, vcpu: VcpuId, on: bool) -> Outcome {
        match self.vcpus.get_mut(vcpu.0 as usize) {
            Some(it) => it.single_step = on,
            None => return Outcome::Refused(Errno::ESRCH, format!("no vCPU {vcpu}")),
        }
        Outcome::Proceed
    }

    /// How events of a kind are reported now.
    #[must_use]
    pub fn monitored(&self, kind: CpuEventKind) -> MonitorMode {
        self.monitor.modes[kind as usize].0
    }

    /// Whether a vCPU's single steps are reported.
    #[must_use]
    pub fn single_steps(&self, vcpu: VcpuId) -> bool {
        let on = self.vcpus.get(vcpu.0 as usize).is_some_and(|it| it.single_step);
        on && self.monitored(CpuEventKind::SingleStep) != MonitorMode::Disabled
    }
}

fn cpu_request(vcpu: VcpuId, event: &CpuEvent) -> Request {
    let (reason, gfn, offset, gla) = match event.kind {
        CpuEventKind::Cr0 => (Reason::Cr0, Gfn(event.value), 0, Gla(event.old)),
        CpuEventKind::Cr3 => (Reason::Cr3, Gfn(event.value), 0, Gla(event.old)),
        CpuEventKind::Cr4 => (Reason::Cr4, Gfn(event.value), 0, Gla(event.old)),
        CpuEventKind::Msr => (Reason::Msr, Gfn(event.value), 0, Gla(u64::from(event.msr))),
        CpuEventKind::Int3 => (Reason::Int3, event.gfn, event.rip.0 & 0xfff, event.rip),
        CpuEventKind::SingleStep => (Reason::SingleStep, event.gfn, event.rip.0 & 0xfff, event.rip),
    };
    let offset = u16::try_from(offset).unwrap_or_default();
    let gla = Some(gla);
    Request { reason, flags: Flags::NONE, vcpu, gfn, offset, gla, p2mt: P2mType::RamRw, rights: Rights::NONE }
}
