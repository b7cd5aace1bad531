//! The `callback` gate: before each memory instruction, every page that it will touch is checked.
//!
//! The common case is a look-up in the vCPU's page cache. A miss walks the guest's page tables and asks the published rights;
//! only what those forbid goes to the engine. A stopped vCPU parks here, which *is* before the access, and asks again.

use crate::engine::hypervisor::Hypervisor;
use crate::host::instrumentation;
use crate::host::nested::{address_space, say_unknown};
use crate::host::processor::Processor;
use crate::host::state::Go;
use crate::host::vcpu::Vcpu;
use crate::host::waiting::Retry;
use crate::insn::cache::Part;
use crate::insn::nested::{AddressSpace, ControlBlock};
use crate::insn::recipe::{Recipe, Repeat, Touch};
use crate::insn::registers::{CodeSize, Registers};
use crate::insn::special::Special;
use crate::insn::walk::{Addressed, GuestFault, Judged, PagingMode};
use crate::qemu::internals;
use crate::qemu::proof;
use crate::qemu::register::{Register, read_register};
use crate::qemu::view::View;
use crate::trap::{events, exits, wait};
use mem_event::{Access, AccessSource, Gfn, Gla, Gpa, Outcome, Rights};
use std::sync::atomic::{AtomicU32, Ordering};

/// The code's size in bits, and as many bytes as the longest instruction has.
const CODE: usize = 16;
/// One in this many misses of the page cache is a sample that compares the direct view with the API.
const SAMPLE: u32 = 4096;

/// Checks an instruction before it runs. Called by the shim.
#[cold]
#[inline(never)]
pub fn before(vcpu: u32, recipe: &Recipe, view: &View) -> Go {
    let Some(hypervisor) = Hypervisor::get() else { return Go::Run };
    let Some(vcpu) = hypervisor.host.vcpu(vcpu) else { return Go::Run };
    vcpu.cache.is_checking(recipe);
    if vcpu.trap.is_alone() {
        return vcpu.passes_alone(recipe.rip(view));
    }
    if view.is_by_api() && recipe.code != CodeSize::Bits64 {
        // Translated before it was found out that the API is all there is.
        return Go::Run;
    }
    if recipe.needs_vectors() {
        view.prove_vectors();
    }
    let is_told = instrumentation::wanted() & exits(recipe.special) != 0;
    let is_plain = recipe.special == Special::Nothing || recipe.special.is_port_io();
    if is_plain && !is_told && (recipe.repeat.is_none() || checks_one_step(hypervisor, view)) {
        let all_allowed = recipe.count(view) == 0
            || recipe.operands.iter().all(|operand| {
                let touch = operand.touch(view);
                recipe.pages(touch).all(|gla| is_allowed(vcpu, gla, touch.rights))
            });
        if all_allowed && !recipe.switches_a20(view) {
            return Go::Run;
        }
    }
    vcpu.stand(recipe.rip(view), recipe.repeat.is_none() || recipe.begins_block(view));
    let go = slowly(hypervisor, vcpu, recipe, view);
    vcpu.go(go)
}

/// Whether of a repeated instruction the step that is next is checked, and no later one.
fn checks_one_step(hypervisor: &Hypervisor, view: &View) -> bool {
    view.is_by_api() || internals::counts_instructions() || hypervisor.host.stops_late_accesses()
}

/// What has it told that an instruction exits.
fn exits(special: Special) -> u16 {
    if special.exits() { instrumentation::checks(special) } else { 0 }
}

#[inline]
fn is_allowed(vcpu: &Vcpu, gla: u64, rights: Rights) -> bool {
    vcpu.cache.allows(gla, Part::of(rights))
}

/// What stands in the way of an instruction.
pub(super) enum Check {
    /// Nothing.
    Pass,
    /// The guest's own page fault: the instruction will not get further than this.
    Fault,
    /// The vCPU waited; rights may have changed.
    Again,
    /// The vCPU leaves its block.
    Leave,
}

#[cold]
#[inline(never)]
fn slowly(hypervisor: &Hypervisor, vcpu: &Vcpu, recipe: &Recipe, view: &View) -> Go {
    sample(hypervisor, view);
    let was_pending = vcpu.trap.pending_event();
    if vcpu.waiting.is_stopped() && wait::for_engine(hypervisor, vcpu) == Go::Leave
        || vcpu.is_put_elsewhere()
        || events::settle(hypervisor, vcpu, recipe, view) == Go::Leave
    {
        return Go::Leave;
    }
    let mut miss = Miss::new(hypervisor, vcpu, recipe, view);
    let mut step = 0;
    while step < miss.steps() {
        match miss.step(step) {
            Check::Pass => step = recipe.next_page(view, step),
            Check::Again => {
                if matches!(miss.fetch_again(), Check::Leave) {
                    return Go::Leave;
                }
            }
            Check::Fault => break,
            Check::Leave => return Go::Leave,
        }
    }
    if let Special::ControlBlock(block) = recipe.special {
        match miss.control_block(block) {
            Check::Pass | Check::Again => {}
            Check::Fault => return Go::Run,
            Check::Leave => return Go::Leave,
        }
    }
    if let Special::Trap(kind) = recipe.special {
        // It left its block before this breakpoint, and is back with the answer.
        if was_pending.is_some_and(|event| events::is_trap_at(&event, recipe.rip(view))) {
            return Go::Run;
        }
        return events::before(hypervisor, vcpu, kind, view, recipe.rip(view), miss.gfn_of_code());
    }
    if instrumentation::wanted() & exits(recipe.special) != 0
        && exits::before(hypervisor, vcpu, recipe, view) == Go::Leave
    {
        return Go::Leave;
    }
    if recipe.special.changes_translation() || recipe.switches_a20(view) {
        if events::before_write(hypervisor, vcpu, recipe, view) == Go::Leave {
            return Go::Leave;
        }
        vcpu.cache.empty();
    }
    if miss.is_alone { miss.goes_alone(hypervisor.host.stops_late_accesses()) } else { Go::Run }
}

pub(super) fn sample(hypervisor: &Hypervisor, view: &View) {
    static MISSES: AtomicU32 = AtomicU32::new(0);
    if MISSES.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE) {
        super::proof::act_on(hypervisor, proof::sample(view));
    }
}

/// An instruction whose pages are checked one by one.
pub(super) struct Miss<'a> {
    hypervisor: &'a Hypervisor,
    vcpu: &'a Vcpu,
    recipe: &'a Recipe,
    view: &'a View,
    space: Option<AddressSpace>,
    /// The engine lets it do the instruction alone.
    is_alone: bool,
}

impl<'a> Miss<'a> {
    /// Of this instruction of a vCPU, which stands before it.
    pub(super) fn new(hypervisor: &'a Hypervisor, vcpu: &'a Vcpu, recipe: &'a Recipe, view: &'a View) -> Miss<'a> {
        Miss { hypervisor, vcpu, recipe, view, space: None, is_alone: false }
    }

    /// Whether the vCPU may execute the instruction as it is though its view shows another frame's memory there, with nothing to ask again.
    pub(super) fn shows_the_same(&self, gfn: Gfn) -> bool {
        let at = (self.instruction(), self.view);
        self.vcpu.waiting.pending_retry().is_none() && self.hypervisor.host.shows_the_same(self.vcpu.id, gfn, at)
    }

    /// Where the instruction is.
    pub(super) fn instruction(&self) -> u64 {
        self.recipe.rip(self.view)
    }

    /// How many steps are checked before the first one runs. What a later step touches is stopped at that step by the host's MMU, where
    /// that stops all that is watched: so no page is asked for before it is touched, and none that was opened for a step can be closed
    /// again before the step ran.
    fn steps(&self) -> u64 {
        let most = if checks_one_step(self.hypervisor, self.view) { 1 } else { Repeat::MOST_STEPS };
        self.recipe.steps(self.view).min(most)
    }

    /// All operands of one step, in the order in which the instruction touches them. After a wait the step begins anew, as the
    /// hardware would begin the instruction anew: all its pages must be allowed at once.
    pub(super) fn step(&mut self, step: u64) -> Check {
        for number in 0..self.recipe.operands.len() {
            let processor = Processor { view: self.view, memory: &self.hypervisor.host.memory };
            let touch = self.recipe.touch(&processor, number, step);
            match self.touch(touch) {
                Check::Pass => {}
                other => return other,
            }
        }
        Check::Pass
    }

    fn touch(&mut self, touch: Touch) -> Check {
        for gla in self.recipe.pages(touch) {
            match self.page(gla, touch.rights) {
                Check::Pass => {}
                other => return other,
            }
        }
        Check::Pass
    }

    fn page(&mut self, gla: u64, rights: Rights) -> Check {
        // Nothing is remembered of fetches: they are rarely looked up at all.
        if rights != Rights::X && is_allowed(self.vcpu, gla, rights) {
            return Check::Pass;
        }
        self.vcpu.cache.revalidate();
        let Ok(gpa) = self.translate(gla, rights) else { return Check::Fault };
        self.frame(Some(gla), gpa, rights)
    }

    /// A frame, by the linear address that led there, if any.
    pub(super) fn frame(&mut self, gla: Option<u64>, gpa: Gpa, rights: Rights) -> Check {
        let retry = self.vcpu.waiting.pending_retry();
        let is_due = |retry: Retry| retry.is_due(self.recipe.rip(self.view), (gpa.gfn(), rights));
        if self.hypervisor.host.allows(self.vcpu.id, gpa, rights) && !retry.is_some_and(is_due) {
            // While a retry is pending the fast path is never taken. The write part stands for both rights: the walk above judged a write,
            // and the p2m must allow the read too.
            if retry.is_none()
                && rights != Rights::X
                && (!rights.contains(Rights::W) || self.hypervisor.host.allows(self.vcpu.id, gpa, Rights::RW))
            {
                self.remember(gla, rights);
            }
            return Check::Pass;
        }
        self.ask(gla, gpa, rights)
    }

    /// The page may be touched from now on. Of a guest's guest nothing is remembered: it is left without an instruction that would tell, and
    /// the same addresses mean others to its hypervisor.
    fn remember(&self, gla: Option<u64>, rights: Rights) {
        if let Some(gla) = gla.filter(|_| !self.view.runs_nested()) {
            self.vcpu.cache.allow(gla, Part::of(rights));
        }
    }

    /// After a wait within a block: fetches are checked where blocks begin, and the consumer that answered may have taken the right to run. A vCPU
    /// that may leave its block is not here any more: that one was dropped.
    fn fetch_again(&mut self) -> Check {
        let rip = self.recipe.rip(self.view);
        loop {
            let check = match instrumentation::wanted() & instrumentation::EXECUTE {
                0 => Check::Pass,
                _ => self.page(rip, Rights::X),
            };
            if !matches!(check, Check::Again) {
                return check;
            }
        }
    }

    /// The frame that the instruction is fetched from; 0 where the guest's tables lead nowhere.
    pub(super) fn gfn_of_code(&mut self) -> Gfn {
        self.translate(self.recipe.rip(self.view), Rights::X).map_or(Gfn(0), Gpa::gfn)
    }

    /// The bytes at the instruction pointer as far as they lie in one frame, for the trace, after the size of the code; none where
    /// there is no trace.
    fn code<'b>(&mut self, bytes: &'b mut [u8; CODE]) -> &'b [u8] {
        if !self.hypervisor.host.is_recorded {
            return &[];
        }
        let Ok(gpa) = self.translate(self.recipe.rip(self.view), Rights::X) else { return &[] };
        let code = &mut bytes[..CODE.min(0x1001 - usize::from(gpa.offset()))];
        code[0] = self.recipe.code.bits();
        match self.hypervisor.host.memory.read(gpa.gfn(), gpa.offset(), &mut code[1..]) {
            Ok(()) => code,
            Err(_) => &[],
        }
    }

    fn translate(&mut self, gla: u64, rights: Rights) -> Result<Gpa, GuestFault> {
        let space = self.space().ok_or(GuestFault)?;
        let access = Judged {
            rights,
            user: self.view.privilege() == 3,
            alignment_check: self.view.alignment_check(),
            protection_keys: if space.own.has_protection_keys() { self.view.protection_keys() } else { 0 },
            supervisor_keys: if space.own.has_supervisor_keys() { self.view.supervisor_keys() } else { 0 },
        };
        let tables = Addressed(&self.hypervisor.host.memory, self.view.physical_addresses());
        space.translate(&tables, gla, access)
    }

    /// How addresses are translated; `None` where that is not known.
    fn space(&mut self) -> Option<AddressSpace> {
        if self.space.is_none() {
            let mode = paging_mode();
            self.vcpu.trap.set_paging_mode(mode);
            self.space = address_space(mode, self.view);
        }
        self.space
    }

    /// The control block of `vmrun`, `vmload` or `vmsave`, which has a physical address.
    fn control_block(&mut self, block: ControlBlock) -> Check {
        if self.view.is_by_api() {
            say_unknown();
            return Check::Pass;
        }
        if !self.view.may_use_control_blocks() {
            return Check::Fault;
        }
        loop {
            match self.frame(None, block.address(self.view), block.rights) {
                Check::Again => {}
                other => return other,
            }
        }
    }

    fn ask(&mut self, gla: Option<u64>, gpa: Gpa, rights: Rights) -> Check {
        let access = Access {
            gfn: gpa.gfn(),
            offset: gpa.offset(),
            gla: gla.map(Gla),
            rights,
            source: AccessSource::Instruction,
            rip: self.recipe.rip(self.view),
        };
        // What it is let through for makes no event of this instruction's, and one answer was asked for with flags. Nor does another frame's
        // memory that its view lets it have.
        let shown = self.hypervisor.host.rights.shown_to(self.vcpu.id, access.gfn);
        let is_silent = shown.is_some_and(|(_, may)| may.contains(rights));
        if !self.is_alone && !is_silent && events::leaves_for_flags(self.hypervisor, self.vcpu) {
            return Check::Leave;
        }
        match self.hypervisor.access(self.vcpu, access, self.code(&mut [0; CODE]), self.view) {
            Outcome::Wait(_) | Outcome::Crashed => match wait::for_engine(self.hypervisor, self.vcpu) {
                Go::Run => Check::Again,
                Go::Leave => Check::Leave,
            },
            outcome => {
                self.is_alone |= outcome == Outcome::Alone;
                Check::Pass
            }
        }
    }

    /// Whether the engine lets it do the instruction alone, as it said to a check that passed.
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// It does the instruction alone. Where it cannot leave its block, or is still to come to a breakpoint here, it goes on: to the touch, where the
    /// host's MMU stops it, if that is behind this check; else the check was all that was in its way.
    pub(super) fn goes_alone(&self, is_behind: bool) -> Go {
        let Miss { hypervisor, vcpu, .. } = *self;
        let may_leave = vcpu.can_leave() && !hypervisor.host.has_breakpoints();
        if may_leave && hypervisor.queues_alone(vcpu) {
            return Go::Leave;
        }
        if !is_behind {
            hypervisor.emulated(vcpu);
        }
        Go::Run
    }
}

fn paging_mode() -> PagingMode {
    let read = |register| read_register(register).unwrap_or(0);
    PagingMode {
        cr0: read(Register::CR0),
        cr3: read(Register::CR3),
        cr4: read(Register::CR4),
        efer: read(Register::EFER),
    }
}
