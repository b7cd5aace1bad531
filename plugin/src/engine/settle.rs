//! What a step leaves to do: effects that failed, faults that were met on the way, accesses in the kernel that have their answer.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::leave;
use crate::engine::step::{Beside, Engine};
use crate::engine::vcpus::forget_new_registers;
use crate::host::domain_host::{Host, report};
use crate::host::notification::Notification;
use crate::host::touch::{FrameFault, StoppedAccess, Toucher};
use crate::host::vcpu::Vcpu;
use crate::host::witness::Standing;
use crate::host::{explain, instrumentation};
use crate::qemu::unwinding::{Doing, Place};
use crate::qemu::{leaving, outside, view};
use mem_event::registers::Registers;
use mem_event::{Access, Gfn, Input, Outcome, Rights, VcpuId, With};

impl Engine {
    /// What earlier steps left to do: failed effects are told to the engine, and the accesses that stand in the kernel ask again.
    pub fn settle(&mut self, host: &Host) {
        loop {
            if let Some(failure) = self.failures.pop() {
                let _ = self.step(host, failure);
            } else if let Some(fault) = self.met.pop() {
                // The newest first, as good as any order: each thread is stopped by one.
                let stopped = if host.memory.is_old(&fault) { None } else { explain::stopped_access(host, fault) };
                stopped.into_iter().for_each(|access| self.stands(host, access));
            } else if let Some(access) = self.stopped.next_to_ask() {
                self.ask_again(host, access);
            } else {
                host.set_stopping(!self.stopped.is_empty());
                // A frame may have come into being with the domain's default rights.
                if self.is_unarmed(host.gate.now()) {
                    self.arm(host);
                }
                return;
            }
        }
    }

    fn ask_again(&mut self, host: &Host, StoppedAccess { toucher, fault, access, .. }: StoppedAccess) {
        if let Toucher::Vcpu(vcpu) = toucher
            && let Some(ahead) = self.stopped.takes_ahead(vcpu)
            && let Outcome::Wait(_) = self.step(host, Input::Access { vcpu, access: ahead })
        {
            return self.stopped.asks_ahead(vcpu, ahead);
        }
        let outcome = match toucher {
            Toucher::Vcpu(vcpu) if !self.has_turn(vcpu) && is_read_to_be_checked(host, vcpu, &access) => {
                Outcome::Proceed
            }
            Toucher::Vcpu(vcpu) => {
                let registers = if self.domain.carries_registers() { registers(host, vcpu, access.rip) } else { None };
                let with = With { registers: registers.as_ref(), ..With::NOTHING };
                self.step_with(host, Input::Access { vcpu, access }, Beside { with, ..Beside::NOTHING })
            }
            Toucher::Foreign => self.step(host, Input::Foreign { access }),
        };
        match (outcome, toucher) {
            (Outcome::Wait(_) | Outcome::Retry(_) | Outcome::Crashed | Outcome::Skip, _) => {}
            (Outcome::Alone, Toucher::Vcpu(vcpu)) => {
                self.arrives(host);
                self.lets_through(host, vcpu, fault);
            }
            _ => {
                if access.rights == Rights::X
                    && !host.rights.allowed(fault.gfn).contains(Rights::R)
                    && let Toucher::Vcpu(vcpu) = toucher
                    && let Some(vcpu) = host.vcpu(vcpu.0)
                {
                    self.arrives(host);
                    self.lend(host, vcpu, fault.gfn);
                }
                self.stopped.answered(toucher, fault);
                let is_device = toucher == Toucher::Foreign;
                if self.lets_go(host, fault.gfn) || is_device && !self.stopped.is_touched(fault.gfn) {
                    if is_device && !host.rights.allowed(fault.gfn).contains(access.rights) {
                        self.arrives(host);
                        self.opens_to_device(host, fault.gfn);
                    } else {
                        self.gives_back(host, fault.gfn);
                    }
                }
            }
        }
    }

    /// A view closes the frame, and devices go by the host's: it is open to all until some vCPU begins a block.
    fn opens_to_device(&self, host: &Host, gfn: Gfn) {
        if let Some(vcpu) = host.vcpus.iter().find(|vcpu| vcpu.has_started()) {
            self.lend(host, vcpu, gfn);
        }
        report("open", gfn, host.memory.restore(gfn, true));
    }

    /// A thread stands in the kernel at this access. One that only left its block meanwhile has asked already.
    pub fn stands(&mut self, host: &Host, access: StoppedAccess) {
        let vcpu = if let Toucher::Vcpu(vcpu) = access.toucher { host.vcpu(vcpu.0) } else { None };
        if let Some(vcpu) = vcpu {
            let is_elsewhere = || leaving::is_pending(vcpu.id.0) || !matches!(vcpu.doing(), Doing::Stands(_));
            if self.stopped.is_told(&access) && is_elsewhere() {
                // The kernel told of this before the vCPU was told to leave its block, which it is about to do, or has done.
                return;
            }
            if vcpu.trap.has_left() && vcpu.is_in_a_block() {
                vcpu.trap.is_in();
            }
            if self.stopped.comes_back(&access, leaving::times(vcpu.id.0)) {
                if self.stopped.cannot_move(vcpu.id) {
                    forget_new_registers(vcpu);
                } else if host.is_to_give_way(vcpu) {
                    self.has_leave(host, vcpu);
                }
                return;
            }
            vcpu.waiting.set_busy(false);
            vcpu.waiting.restart_clock();
            // One that left its block may have come to another access.
            self.stands_no_more(host, vcpu.id);
        }
        self.stopped.add(access);
    }

    /// A vCPU is gone from where it stood, without its answer: others may have waited with it that have theirs.
    pub fn stands_no_more(&mut self, host: &Host, vcpu: VcpuId) {
        if let Some(gfn) = self.stopped.forget(vcpu)
            && self.lets_go(host, gfn)
        {
            self.gives_back(host, gfn);
        }
    }

    /// The page is mapped against its rights: QEMU reads there what the vCPU executes, or the vCPU does there what it could not do alone. It is
    /// closed before the vCPU begins a block, as far as QEMU can be asked for that; else with the next translation.
    pub(super) fn lend(&self, host: &Host, vcpu: &Vcpu, gfn: Gfn) {
        vcpu.trap.lend(gfn).into_iter().for_each(|before| self.close(host, before));
        let number = vcpu.id.0;
        outside::later(number, move || {
            let Some(hypervisor) = Hypervisor::get() else { return };
            if let Some(gfn) = hypervisor.host.vcpu(number).and_then(|vcpu| vcpu.trap.take_lent()) {
                hypervisor.engine().close(&hypervisor.host, gfn);
            }
        });
    }

    /// The vCPUs that stand on the page and have their answers are about to go, if no access on it is without; says whether there are any.
    pub(super) fn lets_go(&mut self, host: &Host, gfn: Gfn) -> bool {
        if self.stopped.is_touched(gfn) {
            return false;
        }
        let gone = self.stopped.let_go(gfn);
        let turn = self.turn.as_ref().map(|turn| turn.vcpu);
        for (vcpu, fault, is_out) in &gone {
            // Before the page is there: from here on no signal leads anywhere but where it is meant to.
            leaving::take_back(vcpu.0);
            if let Some(vcpu) = host.vcpu(vcpu.0) {
                // What is due of one that has its turn is that turn.
                let leaves = turn != Some(vcpu.id) && leaves_old_block(host, vcpu, *fault) || *is_out;
                // One that was stopped on its way back, by what QEMU reads for a block that it is about to begin, is out as well.
                let is_in = || !leaves && vcpu.is_in_a_block();
                if vcpu.trap.has_new_registers() && is_in() {
                    forget_new_registers(vcpu);
                }
                vcpu.waiting.set_busy(true);
                if vcpu.has_given_way() {
                    self.notifications.push(Notification::Turn(vcpu.id));
                }
                // Hooks know by marks that it comes back; one that is not stepped has none that would take its mark away.
                if vcpu.trap.has_left() && is_in() {
                    vcpu.trap.is_in();
                } else if !self.domain.single_steps(vcpu.id) {
                    vcpu.trap.reports_no_step();
                }
            }
        }
        !gone.is_empty()
    }
}

/// The registers of a vCPU that stands in the kernel, at the instruction with this address.
fn registers(host: &Host, vcpu: VcpuId, rip: u64) -> Option<Registers> {
    let view = view::view_of(vcpu.0)?;
    let place = host.vcpu(vcpu.0).and_then(Vcpu::place);
    let is_told = |place: &Place| Standing::now() != Standing::Refuted && u64::from(place.page_offset) == rip & 0xfff;
    Some(view.register_file_within(rip, place.filter(is_told).map(|place| place.flags)))
}

/// A vCPU that is about to go on stands in a block that is to be dropped, and which may lack a check: it leaves it first, where going back costs
/// nothing; else it ends it. The kernel delivers the signal before the thread runs on, so the mark need not be taken back. Says whether it leaves.
fn leaves_old_block(host: &Host, vcpu: &Vcpu, fault: FrameFault) -> bool {
    if !leaving::is_there() || !outside::is_due(vcpu.id.0) {
        return false;
    }
    let Ok((place, view)) = explain::place_to_leave(host, vcpu, fault) else { return false };
    leave::tell(vcpu, &place, &view);
    true
}

/// QEMU reads what a vCPU is about to execute from a page that may be read or shows another's memory, and the block is checked before it runs: the vCPU waits there, where
/// it can leave, and not in the midst of a translation.
fn is_read_to_be_checked(host: &Host, vcpu: VcpuId, access: &Access) -> bool {
    access.rights == Rights::X
        && instrumentation::wanted() & instrumentation::EXECUTE != 0
        && (host.rights.allowed(access.gfn).contains(Rights::R) || host.rights.shown_to(vcpu, access.gfn).is_some())
        && view::code_size(vcpu.0).is_some()
}
