//! CPU events: writes to control and model-specific registers, breakpoints, single steps, instructions that a hypervisor may be told of (Xen's
//! `hvm_memory_event_traps`, later `hvm_monitor_*`).
//!
//! They travel on the access ring. A synchronous event stops the vCPU until its answer; when it retries with the same
//! event, that event is over. A breakpoint that is answered is then the guest's, or its instruction is fetched again: in the
//! layout of `vm_event` the guest gets it only if the consumer has injected it before its answer, as Xen's consumers do. The
//! older layouts' listeners only answer, so there the guest always gets it.

use crate::control::{MonitorMode, NoConsumer, Ring};
use crate::cpu_events::{CpuEventKind, DescriptorTable, unpacked_port_access};
use crate::domain::Domain;
use crate::effect::{Effect, Effects, Outcome, WaitReason};
use crate::errno::Errno;
use crate::event::{Cpu, Event, Flags, Request};
use crate::input::CpuEvent;
use crate::number::{VcpuId, ViewId};
use crate::registers::Registers;
use crate::trap::{Trap, TrapKind};
use crate::vcpu::Breakpoint;
use crate::word::low;

impl Domain {
    /// A CPU event, or the same once more after a wake: [`crate::Input::CpuEvent`] without the wrapping, and
    /// [`crate::With::registers`]. `Proceed`: the vCPU goes on;
    /// for a breakpoint: the guest gets it. `Retry`: the instruction at the breakpoint's address is fetched again. `Alone`: the instruction is done
    /// with what came with the answer, of a breakpoint in its place. `Skip`: the register is not written, and the vCPU goes on behind the instruction.
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
        let outcome = match self.go_on(vcpu, registers, effects) {
            Some(outcome) => outcome,
            None => self.report(vcpu, event, registers, effects),
        };
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
        let it = self.vcpu(vcpu);
        // Another instruction than the one that it may do alone ends that.
        it.emulation.take_if(|it| it.rip != event.rip.0);
        if event.kind.may_be_emulated() && it.emulation.as_ref().is_some_and(|it| it.is_instead_of_event()) {
            it.answered = None;
            return Outcome::Alone;
        }
        let breakpoint = std::mem::take(&mut it.breakpoint);
        let denied = std::mem::take(&mut it.denied);
        if it.answered.take() == Some(*event) {
            if denied {
                return Outcome::Skip;
            }
            let again = event.kind.trap().is_some() && breakpoint == Breakpoint::FetchedAgain;
            return if again { Outcome::Retry(Errno::EAGAIN) } else { Outcome::Proceed };
        }
        let (mode, changes_only) = match event.kind {
            CpuEventKind::Msr => self.monitor.of_msr(event.number),
            kind => self.monitor.of(kind),
        };
        // As in Xen from 4.10 on: of a control register the mask of bits, which is all ones where nobody set one, asks for a change in any
        // case; of a model-specific register "on change only" does.
        let is_told_by_change = event.kind.has_old_value() || changes_only;
        let unchanged = is_told_by_change && !self.monitor.changes(event.kind, event.value, event.old);
        let not_stepped = event.kind == CpuEventKind::SingleStep && !self.vcpu(vcpu).single_step;
        let is_asked_for = event.kind == CpuEventKind::Interrupt && self.vcpu(vcpu).next_interrupt;
        let mode = if is_asked_for { MonitorMode::Sync } else { mode };
        if mode == MonitorMode::Disabled || unchanged || not_stepped {
            return Outcome::Proceed;
        }
        if event.kind == CpuEventKind::SingleStep && self.ends_fast_step(vcpu, effects) {
            return Outcome::Proceed;
        }
        let channel = &self.channels[Ring::Access.index()];
        // Xen's own went on in any case, before the patch and after.
        let passes =
            event.kind.is_delivery() || channel.state.policy == NoConsumer::Relax || self.is_historic(Ring::Access);
        if !channel.has_consumer() && passes {
            self.vcpu(vcpu).next_interrupt &= !is_asked_for;
            return Outcome::Proceed;
        }
        let request = Request { flags: Flags::NONE, vcpu, event: Event::Cpu(cpu(event)), view: ViewId::HOST };
        let claim = match self.claim::<false>(vcpu, Ring::Access, effects) {
            Ok(claim) => claim,
            Err(outcome) => {
                self.without_claim(vcpu, event, request, effects);
                return outcome;
            }
        };
        self.vcpu(vcpu).next_interrupt &= !is_asked_for;
        if mode == MonitorMode::Async {
            self.put_with::<false>(Ring::Access, claim, request, registers, effects);
            if let Some(reason) = self.waiting(vcpu) {
                // The event has happened, though its vCPU must sleep before it goes on.
                self.vcpu(vcpu).answered = Some(*event);
                return Outcome::Wait(reason);
            }
            return Outcome::Proceed;
        }
        self.pause(vcpu, Ring::Access, event.gfn);
        self.vcpu(vcpu).reported = Some(*event);
        let request = Request { flags: Flags::VCPU_PAUSED, ..request };
        self.put_with::<false>(Ring::Access, claim, request, registers, effects);
        self.has_posted(vcpu).unwrap_or(Outcome::Wait(WaitReason::Answer(Ring::Access)))
    }

    /// A step of which nobody is told is done (`hvm_fast_singlestep`); says whether it was one.
    fn ends_fast_step(&mut self, vcpu: VcpuId, effects: &mut Effects) -> bool {
        let it = self.vcpu(vcpu);
        let Some(view) = it.after_step.take() else { return false };
        it.single_step = false;
        self.switch_where_there_is(vcpu, view, effects);
        true
    }

    /// `Control::Monitor`: EEXIST for what is so already, as `arch_monitor_domctl_event` has it.
    pub(crate) fn set_monitor(&mut self, kind: CpuEventKind, mode: MonitorMode, on_change_only: bool) -> Outcome {
        if on_change_only && !kind.is_write() {
            return Outcome::Refused(Errno::EINVAL, format!("{kind} events have no old value"));
        }
        // What is off has no other setting.
        let wanted = (mode, on_change_only && mode != MonitorMode::Disabled);
        let ends_single =
            kind == CpuEventKind::Msr && wanted.0 == MonitorMode::Disabled && self.monitor.single_msrs().is_some();
        if self.monitor.of(kind) == wanted && !ends_single {
            let only = if wanted.1 { ", changes only" } else { "" };
            return Outcome::Refused(Errno::EEXIST, format!("the monitor of {kind} is {mode}{only} already"));
        }
        self.monitor.set(kind, wanted);
        Outcome::Proceed
    }

    /// `Control::MonitorMask`.
    pub(crate) fn set_monitor_mask(&mut self, kind: CpuEventKind, ignored: u64) -> Outcome {
        if !kind.has_old_value() {
            return Outcome::Refused(Errno::EINVAL, format!("{kind} is no control register"));
        }
        self.monitor.ignore(kind, ignored);
        Outcome::Proceed
    }

    /// `Control::MonitorMsr`: EEXIST as for a kind.
    pub(crate) fn set_msr_monitor(&mut self, msr: u32, mode: MonitorMode, on_change_only: bool) -> Outcome {
        let wanted = (mode, on_change_only && mode != MonitorMode::Disabled);
        if self.monitor.of_single_msr(msr) == wanted {
            return Outcome::Refused(Errno::EEXIST, format!("the monitor of msr {msr:#x} is {mode} already"));
        }
        self.monitor.set_msr(msr, wanted);
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

    /// `Control::Inject`.
    pub(crate) fn inject(
        &mut self,
        vcpu: VcpuId,
        vector: u32,
        trap: impl FnOnce(u8) -> Trap,
        effects: &mut Effects,
    ) -> Outcome {
        let Some(it) = self.vcpus.get_mut(vcpu.0 as usize) else {
            return Outcome::Refused(Errno::ESRCH, format!("no vCPU {vcpu}"));
        };
        let Ok(number) = u8::try_from(vector) else {
            return Outcome::Refused(Errno::EINVAL, format!("no vector {vector}: they end at 255"));
        };
        if it.reported.is_some_and(|event| event.kind.trap() == Some(number)) {
            it.breakpoint = Breakpoint::Injected;
        } else {
            effects.push(|| Effect::Inject { vcpu, trap: trap(number) });
        }
        Outcome::Proceed
    }

    /// How events of a kind are reported now; of model-specific registers also where only single ones are.
    #[must_use]
    pub fn monitored(&self, kind: CpuEventKind) -> MonitorMode {
        match (self.monitor.of(kind).0, self.monitor.single_msrs()) {
            (MonitorMode::Disabled, Some(single)) if kind == CpuEventKind::Msr => single,
            (mode, _) => mode,
        }
    }

    /// Whether events of a kind are reported only where the new value differs from the old.
    #[must_use]
    pub fn monitors_changes_only(&self, kind: CpuEventKind) -> bool {
        self.monitor.of(kind).1
    }

    /// Whether an answer asked for the next interrupt or exception that a vCPU gets.
    #[must_use]
    pub fn tells_next_interrupt(&self, vcpu: VcpuId) -> bool {
        self.vcpus.get(vcpu.0 as usize).is_some_and(|it| it.next_interrupt)
    }

    /// Whether a vCPU's single steps are reported.
    #[must_use]
    pub fn single_steps(&self, vcpu: VcpuId) -> bool {
        let on = self.vcpus.get(vcpu.0 as usize).is_some_and(|it| it.single_step);
        on && self.monitored(CpuEventKind::SingleStep) != MonitorMode::Disabled
    }
}

/// What the listener is told of the event.
fn cpu(event: &CpuEvent) -> Cpu {
    let CpuEvent { kind, value: new, old, number, rip, gfn } = *event;
    match kind {
        CpuEventKind::Cr0 => Cpu::Cr0 { new, old },
        CpuEventKind::Cr3 => Cpu::Cr3 { new, old },
        CpuEventKind::Cr4 => Cpu::Cr4 { new, old },
        CpuEventKind::Xcr0 => Cpu::Xcr0 { new, old },
        CpuEventKind::Msr => Cpu::Msr { msr: number, new, old },
        CpuEventKind::Int3 => Cpu::Int3 { rip, gfn },
        CpuEventKind::SingleStep => Cpu::SingleStep { rip, gfn },
        CpuEventKind::Debug => Cpu::Debug { rip, gfn, causes: (new & 0xffff) as u16, length: (number & 0xff) as u8 },
        CpuEventKind::Interrupt => {
            let (vector, kind) = TrapKind::unpacked(number);
            Cpu::Interrupt { vector, kind, error: low(old), cr2: new }
        }
        CpuEventKind::Cpuid => Cpu::Cpuid { leaf: low(new), subleaf: low(old), length: (number & 0xff) as u8 },
        CpuEventKind::Descriptor => {
            let (table, is_write) = DescriptorTable::unpacked(number);
            Cpu::Descriptor { table, is_write, information: low(new), qualification: old }
        }
        CpuEventKind::GuestRequest => Cpu::GuestRequest,
        CpuEventKind::Io => {
            let (bytes, is_read, is_string) = unpacked_port_access(number);
            Cpu::Io { port: (new & 0xffff) as u16, bytes, is_read, is_string }
        }
    }
}
