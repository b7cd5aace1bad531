//! What a vCPU's checks remember from one callback to the next.

use crate::host::left::Left;
use crate::insn::walk::PagingMode;
use mem_event::registers::{Context, NewRegisters};
use mem_event::{CpuEvent, CpuEventKind, Gfn, Trap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What a vCPU goes on with, instead of the registers that it stopped with.
#[derive(Debug, Default)]
pub struct Elsewhere {
    /// All of them, by a client.
    pub all: Option<Box<Context>>,
    /// Some, by the answer to its event: these count.
    pub some: Option<Box<NewRegisters>>,
    /// With these it gets this exception or interrupt.
    pub trap: Option<Trap>,
}

impl Elsewhere {
    fn is_there(&self) -> bool {
        self.all.is_some() || self.some.is_some() || self.trap.is_some()
    }

    /// The registers, where these are those that it has.
    pub fn of(self, found: impl FnOnce() -> Context) -> Context {
        let mut context = self.all.map_or_else(found, |all| *all);
        if let Some(some) = self.some {
            some.set_in(&mut context.registers);
        }
        context
    }
}

/// The trap's own data of one vCPU.
#[derive(Debug, Default)]
pub struct TrapData {
    pending: Mutex<Option<CpuEvent>>,
    /// Whether there is one: asked where blocks begin, and so without the lock.
    has_pending: AtomicBool,
    /// Whether its steps are reported.
    stepped: AtomicBool,
    /// It has asked for the blocks of all vCPUs again.
    goes_back: AtomicBool,
    /// It does one instruction alone: what is there passes.
    alone: AtomicBool,
    /// Where a breakpoint that its view shows was told and is the guest's, until the vCPU has come to do it alone: the address and 1, 0 for nowhere.
    given: AtomicU64,
    /// The debug exception that it is about to get was told.
    told_debug: AtomicBool,
    /// What it left its loop with, to come back: what it was about to tell of a delivery.
    held: Mutex<Option<CpuEventKind>>,
    /// A page that is mapped against its rights, while QEMU reads its code or the vCPU ends its block; 0 for none, else the frame and 1.
    lent: AtomicU64,
    /// Where it left its block from the kernel, for the hook of its steps, and for that of checkpoints and breakpoints.
    left: Left,
    left_stop: Left,
    mode: Mutex<PagingMode>,
    /// What it goes on with, instead of the registers that it stopped with.
    registers: Mutex<Elsewhere>,
    /// Whether there are any: asked where blocks begin, and so without the lock.
    has_registers: AtomicBool,
}

impl TrapData {
    /// The CPU event that the vCPU has to report before it goes on.
    pub fn pending_event(&self) -> Option<CpuEvent> {
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is one; in the vCPU's own thread.
    pub fn has_pending_event(&self) -> bool {
        self.has_pending.load(Ordering::Relaxed)
    }

    /// It has to report this, or nothing any more.
    pub fn set_pending_event(&self, pending: Option<CpuEvent>) {
        self.has_pending.store(pending.is_some(), Ordering::Relaxed);
        *self.pending.lock().unwrap_or_else(PoisonError::into_inner) = pending;
    }

    /// A breakpoint at this address was told, and is the guest's.
    pub fn gives(&self, rip: u64) {
        self.given.store(rip.wrapping_add(1), Ordering::Relaxed);
    }

    /// Whether one is that was told and not met yet.
    pub fn has_given(&self, rip: u64) -> bool {
        self.given.load(Ordering::Relaxed) == rip.wrapping_add(1)
    }

    /// It was met, or the vCPU is elsewhere.
    pub fn has_met_what_was_given(&self) {
        self.given.store(0, Ordering::Relaxed);
    }

    /// The debug exception that it gets next was told, or not.
    pub fn set_told_debug(&self, is_told: bool) {
        self.told_debug.store(is_told, Ordering::Relaxed);
    }

    /// Whether it was.
    pub fn has_told_debug(&self) -> bool {
        self.told_debug.load(Ordering::Relaxed)
    }

    /// It leaves its loop while it tells so of what it is about to get.
    pub fn holds(&self, kind: CpuEventKind) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
    }

    /// What it told of a delivery when it left its loop; once.
    pub fn takes_held(&self) -> Option<CpuEventKind> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The vCPU is gone: nothing of what it was about to do is left. That its steps are reported is a switch of its number, and stays.
    pub fn reset(&self) {
        self.set_pending_event(None);
        self.lent.store(0, Ordering::Release);
        self.has_met_what_was_given();
        self.set_told_debug(false);
        self.takes_held();
        self.is_in();
        self.set_paging_mode(PagingMode::default());
        self.take_new_registers();
    }

    /// The registers that it goes on with, where others were set while it waits.
    pub fn new_registers(&self) -> Option<Box<Context>> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner).all.clone()
    }

    /// It goes on with these registers.
    pub fn set_new_registers(&self, registers: Box<Context>) {
        let mut place = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        place.all = Some(registers);
        self.has_registers.store(true, Ordering::Release);
    }

    /// It goes on with these, whatever else is set.
    pub fn set_answered_registers(&self, registers: Box<NewRegisters>) {
        let mut place = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        place.some = Some(registers);
        self.has_registers.store(true, Ordering::Release);
    }

    /// It gets this exception or interrupt as it goes on, in place of one that it was to get.
    pub fn set_trap(&self, trap: Trap) {
        let mut place = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        place.trap = Some(trap);
        self.has_registers.store(true, Ordering::Release);
    }

    /// Whether it is to get one.
    pub fn has_trap(&self) -> bool {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner).trap.is_some()
    }

    /// What it was to go on with, if anything: from now on those that it has.
    pub fn take_new_registers(&self) -> Option<Elsewhere> {
        let mut place = self.registers.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_registers.store(false, Ordering::Release);
        Some(std::mem::take(&mut *place)).filter(Elsewhere::is_there)
    }

    /// Whether it goes on with other registers.
    pub fn has_new_registers(&self) -> bool {
        self.has_registers.load(Ordering::Acquire)
    }

    /// Whether its steps are reported.
    pub fn is_stepped(&self) -> bool {
        self.stepped.load(Ordering::Acquire)
    }

    /// From now on its steps are reported, or not any more; says whether they were not until now.
    #[must_use = "one that begins to step has other blocks"]
    pub fn set_stepped(&self, on: bool) -> bool {
        let was_on = self.stepped.swap(on, Ordering::AcqRel);
        if was_on && !on {
            self.reports_no_step();
        }
        on && !was_on
    }

    /// It asks to have the same blocks as all vCPUs again; says whether it has not done so yet.
    pub fn asks_to_go_back(&self) -> bool {
        !self.goes_back.swap(true, Ordering::AcqRel)
    }

    /// What it asked for has been looked at.
    pub fn may_ask_to_go_back(&self) {
        self.goes_back.store(false, Ordering::Release);
    }

    /// It begins, or has ended, one instruction alone; in its own thread.
    pub fn set_alone(&self, on: bool) {
        self.alone.store(on, Ordering::Relaxed);
    }

    /// Whether what it comes to passes, since it does that alone; in its own thread.
    #[inline]
    pub fn is_alone(&self) -> bool {
        self.alone.load(Ordering::Relaxed)
    }

    /// This page is open until its block ends, or is read by QEMU, to translate what it executes; says which one was until now.
    #[must_use = "the page before stays open"]
    pub fn lend(&self, gfn: Gfn) -> Option<Gfn> {
        self.lent.swap(gfn.0 + 1, Ordering::AcqRel).checked_sub(1).map(Gfn).filter(|before| *before != gfn)
    }

    /// The page that QEMU was let read, once.
    pub fn take_lent(&self) -> Option<Gfn> {
        if self.lent.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.lent.swap(0, Ordering::AcqRel).checked_sub(1).map(Gfn)
    }

    /// It is told to leave its block from the kernel at this instruction.
    pub fn set_left(&self, rip: u64) {
        self.left.set(rip);
        self.left_stop.set(rip);
    }

    /// Whether a hook is still to know that it comes back.
    pub fn has_left(&self) -> bool {
        self.left.is_set() || self.left_stop.is_set()
    }

    /// It is not out any more.
    pub fn is_in(&self) {
        self.left_stop.clear();
        self.reports_no_step();
    }

    /// No hook of its steps takes the mark away any more when it comes back.
    pub fn reports_no_step(&self) {
        self.left.clear();
    }

    /// Before a step: whether it only comes back to this instruction.
    pub fn comes_back_to(&self, rip: u64) -> bool {
        self.left.is_at(rip)
    }

    /// At a checkpoint or breakpoint: whether it only comes back to this instruction, where it passed it before it left.
    pub fn comes_back_to_stop(&self, rip: u64) -> bool {
        self.left_stop.is_at(rip)
    }

    /// How the vCPU walked page tables last: after a change of them its next access is a miss, which says so here.
    pub fn paging_mode(&self) -> PagingMode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It walks page tables so.
    pub fn set_paging_mode(&self, mode: PagingMode) {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }
}
