//! What clients do to vCPUs themselves: pause them all, read and set their registers, look up addresses as they do.
//!
//! Registers are read and written by the vCPU's own thread, out of any block: there all of them stand in the CPU state. A vCPU that waits leaves
//! its block for that, and comes back. One that waits is put nowhere else meanwhile: what is set counts when it goes on.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::in_force::between_looks;
use crate::engine::leave;
use crate::engine::step::Engine;
use crate::host::domain_host::Host;
use crate::host::explain;
use crate::host::nested::address_space;
use crate::host::patience::Patience;
use crate::host::vcpu::Vcpu;
use crate::insn::registers::{CodeSize, Registers as _};
use crate::insn::walk::{Addressed, Judged, Tables};
use crate::memory::file_tables::FileTables;
use crate::qemu::view::View;
use crate::qemu::{current, leaving, outside, raising};
use mem_event::message::Space;
use mem_event::registers::Context;
use mem_event::{Errno, Gfn, Gla, Gpa, VcpuId};
use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// QEMU may miss to wake a vCPU that goes to sleep at the moment: it is told again.
const REMINDER: Duration = Duration::from_millis(10);
/// As long as one that leaves the kernel may take, many times over.
const PATIENCE: Duration = Duration::from_millis(200);

/// Among the general registers.
const RAX: usize = 0;
/// The vectors of `int1` and `int3`.
const TRAPS: [u32; 2] = [1, 3];

type Refusal = (Errno, String);

impl Hypervisor {
    /// No vCPU runs from here on, until this was taken back as often as it was called.
    pub fn pause(&self) -> Result<(), Refusal> {
        if !outside::can_pause() {
            let sentence = "this QEMU cannot keep a vCPU from running: it exports no cpu_pause".to_owned();
            return Err((Errno::EOPNOTSUPP, sentence));
        }
        self.host.pauses(true);
        self.host.vcpus.iter().filter(|vcpu| vcpu.has_started()).for_each(|vcpu| pause(vcpu.id));
        self.until_paused();
        Ok(())
    }

    /// Takes one pause back.
    pub fn unpause(&self) {
        if !self.host.pauses(false) {
            self.have_them_go_on();
        }
    }

    /// The vCPUs that sleep since the domain was paused, and should not.
    pub fn have_them_go_on(&self) {
        if !self.host.is_paused() {
            let asleep = self.host.vcpus.iter().filter(|vcpu| vcpu.paused.load(Ordering::Acquire));
            asleep.for_each(|vcpu| resume(vcpu.id));
        }
    }

    /// A vCPU begins, or goes on after it was stopped: not while the domain is paused.
    pub fn goes_on(&self, vcpu: VcpuId) {
        if self.host.is_paused() {
            pause(vcpu);
        }
    }

    /// A vCPU's registers.
    pub fn registers(&self, vcpu: VcpuId) -> Result<Context, Refusal> {
        let it = self.standing(vcpu)?;
        let found = self.outside(it, View::context)?;
        Ok(it.trap.new_registers().map_or(found, |new| *new))
    }

    /// Sets a vCPU's registers.
    pub fn set_registers(&self, vcpu: VcpuId, context: &Context) -> Result<(), Refusal> {
        let it = self.standing(vcpu)?;
        let new = Box::new(*context);
        let waits = self.waits(it);
        let done = self.outside(it, move |view| {
            if !waits {
                return set(vcpu, view, &new);
            }
            view.can_set_context(&new)?;
            if let Some(vcpu) = vcpu_of(vcpu) {
                vcpu.trap.set_new_registers(new);
            }
            Ok(())
        })?;
        done.map_err(|name| (Errno::EOPNOTSUPP, format!("{name} cannot be set")))
    }

    /// Whether an exception or interrupt can be delivered to a vCPU now.
    pub fn can_inject(&self, vcpu: VcpuId, vector: u32) -> Result<(), Refusal> {
        let it = self.standing(vcpu)?;
        // One that only paused has it in its CPU state already.
        let number = vcpu.0;
        let is_raised = || {
            raising::can_raise() && !self.waits(it) && self.outside(it, move |_| raising::is_raised(number)) == Ok(true)
        };
        if it.trap.has_trap() || is_raised() {
            return Err((Errno::EBUSY, format!("vCPU {vcpu} has another one to be delivered")));
        }
        match raising::can_raise() {
            true => Ok(()),
            // At the event of one of these the vCPU raises its own.
            false if TRAPS.contains(&vector) => Ok(()),
            false => {
                let sentence = "this QEMU does not say where its next exception stands".to_owned();
                Err((Errno::EOPNOTSUPP, sentence))
            }
        }
    }

    /// A client lets a vCPU go on from a checkpoint.
    pub fn releases(&self, vcpu: VcpuId) {
        if let Some(vcpu) = self.host.vcpu(vcpu.0) {
            goes_on_with_new_registers(vcpu);
            vcpu.release_checkpoint();
            self.host.makes_room_for(vcpu);
        }
    }

    /// Where a linear address leads.
    pub fn translate(&self, space: Space, address: Gla) -> Result<Gpa, Refusal> {
        let vcpu = self.existing(space.vcpu)?;
        let unknown = || (Errno::EOPNOTSUPP, format!("it is not known how vCPU {} pages", vcpu.id));
        let view = leaving::view_of(vcpu.id.0).ok_or_else(unknown)?;
        let mut mode = view.paging_mode();
        if let Some(cr3) = space.cr3 {
            mode.cr3 = cr3;
        }
        let space = address_space(mode, &view).ok_or_else(unknown)?;
        let engine = self.engine();
        let missing = Cell::new(None);
        let held = HeldTables {
            tables: FileTables(&self.host.memory),
            is_held: |gfn| engine.domain.is_held(gfn),
            missing: &missing,
        };
        let tables = Addressed(&held, view.physical_addresses());
        space.translate(&tables, address.0, Judged::NOT).map_err(|_| match missing.get() {
            Some(gfn) => (Errno::ENOENT, format!("frame {gfn}, a page table on the way to {address}, is paged out")),
            None => (Errno::EFAULT, format!("{address} is not mapped")),
        })
    }

    fn existing(&self, vcpu: VcpuId) -> Result<&Vcpu, Refusal> {
        self.host.vcpu(vcpu.0).ok_or_else(|| (Errno::ESRCH, format!("no vCPU {vcpu}")))
    }

    /// Whether it goes on only when a consumer or a client lets it.
    fn waits(&self, vcpu: &Vcpu) -> bool {
        self.engine().domain.waiting(vcpu.id).is_some() || vcpu.awaits_release()
    }

    /// A vCPU that runs nothing: it waits, stands at a checkpoint, or the domain is paused.
    fn standing(&self, vcpu: VcpuId) -> Result<&Vcpu, Refusal> {
        let it = self.existing(vcpu)?;
        if !it.has_started() {
            return Err((Errno::ESRCH, format!("vCPU {vcpu} has not started")));
        }
        if self.host.is_paused() || self.waits(it) {
            Ok(it)
        } else {
            Err((Errno::EAGAIN, format!("vCPU {vcpu} runs; pause the domain first")))
        }
    }

    /// Who stands where it cannot leave: the vCPU itself, or another one that its thread runs.
    fn who_is_in_the_way(&self, vcpu: &Vcpu) -> Option<VcpuId> {
        let engine = self.engine();
        let is_it = |it: &&Vcpu| current::may_run(it.id.0) && engine.stopped.stays(it.id).is_some();
        self.host.of_the_thread_of(vcpu).find(is_it).map(|it| it.id)
    }

    /// What a vCPU's thread makes of its state, out of its block.
    fn outside<T: Send + 'static>(
        &self,
        vcpu: &Vcpu,
        look: impl FnOnce(&View) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let number = vcpu.id.0;
        let look = Arc::new(Mutex::new(Some(look)));
        let found = Arc::new(Mutex::new(None));
        let (taken, place) = (Arc::clone(&look), Arc::clone(&found));
        let is_asked = outside::before_next_block(number, move || {
            let look = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some((look, view)) = look.zip(leaving::view_of(number)) {
                *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(look(&view));
            }
        });
        if !is_asked {
            let sentence =
                "this QEMU cannot have a vCPU leave its block; its registers are not whole within it".to_owned();
            return Err((Errno::EOPNOTSUPP, sentence));
        }
        let begun = Instant::now();
        let (mut patience, mut told) = (Patience::of(PATIENCE), begun);
        loop {
            if let Some(found) = found.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Ok(found);
            }
            // A vCPU may wait for this very thread to explain where it stopped.
            self.take_faults();
            self.have_it_leave(vcpu.id);
            // Again, since one that was about to fall asleep has missed it.
            self.host.of_the_thread_of(vcpu).for_each(Vcpu::wake);
            if told.elapsed() > REMINDER {
                told = Instant::now();
                outside::later(number, || {});
            }
            let in_the_way = self.who_is_in_the_way(vcpu);
            if in_the_way.is_some() || patience.is_over(|| vec![vcpu]) {
                let was_left = look.lock().unwrap_or_else(PoisonError::into_inner).take().is_some();
                if was_left {
                    let sentence = format!(
                        "vCPU {} stands where it cannot leave its block; answer its event first",
                        in_the_way.unwrap_or(vcpu.id)
                    );
                    return Err((Errno::EBUSY, sentence));
                }
            }
            between_looks(begun);
        }
    }
}

fn vcpu_of(vcpu: VcpuId) -> Option<&'static Vcpu> {
    Hypervisor::get()?.host.vcpu(vcpu.0)
}

/// In the vCPU's own thread, out of its block.
fn set(vcpu: VcpuId, view: &View, new: &Context) -> Result<(), &'static str> {
    let before = view.instruction_pointer();
    view.set_context(new)?;
    let after = view.instruction_pointer();
    if let Some(hypervisor) = Hypervisor::get() {
        let mut engine = hypervisor.engine();
        engine.stands_no_more(&hypervisor.host, vcpu);
        engine.settle(&hypervisor.host);
    }
    if let Some(vcpu) = vcpu_of(vcpu) {
        vcpu.waiting.set_busy(true);
        // Its pages may be others.
        vcpu.cache.empty();
        if before != after {
            vcpu.moved(after);
        }
    }
    Ok(())
}

/// A vCPU is about to go on, maybe with other registers than those that it stopped with: before it begins another block.
pub(super) fn goes_on_with_new_registers(vcpu: &Vcpu) {
    let id = vcpu.id;
    if vcpu.trap.has_new_registers() {
        let is_asked = outside::before_next_block(id.0, move || {
            let new = vcpu_of(id).and_then(|vcpu| vcpu.trap.take_new_registers());
            let Some((new, view)) = new.zip(leaving::view_of(id.0)) else { return };
            let trap = new.trap;
            if let Err(name) = set(id, &view, &new.of(|| view.context())) {
                eprintln!("mem-event: vCPU {id}: {name} cannot be set; none of its registers was");
            }
            if let Some(trap) = trap
                && !view.raise(id.0, trap)
            {
                eprintln!("mem-event: vCPU {id} does not get vector {}, which was injected", trap.vector);
            }
        });
        if !is_asked {
            forget_new_registers(vcpu);
        }
    }
}

/// A vCPU that is in its callback, and is about to leave its block, goes on behind its instruction of so many bytes, with this in RAX if it
/// has a result; says whether it can.
pub fn goes_on_behind(vcpu: &Vcpu, length: u8, result: Option<u64>) -> bool {
    let id = vcpu.id;
    vcpu.can_leave()
        && outside::before_next_block(id.0, move || {
            let Some(view) = leaving::view_of(id.0) else { return };
            let mut context = view.context();
            context.registers.general[RAX] = result.unwrap_or(context.registers.general[RAX]);
            let next = context.registers.rip.wrapping_add(length.into());
            let is_64_bit = view.code_size() == Some(CodeSize::Bits64);
            context.registers.rip = if is_64_bit { next } else { next & 0xffff_ffff };
            if let Err(name) = set(id, &view, &context) {
                eprintln!("mem-event: vCPU {id}: {name} cannot be set; it does not go on behind its instruction");
            }
        })
}

fn pause(vcpu: VcpuId) {
    outside::pause(vcpu.0, move || {
        let is_wanted = Hypervisor::get().is_some_and(|hypervisor| hypervisor.host.is_paused());
        if let Some(vcpu) = vcpu_of(vcpu).filter(|_| is_wanted) {
            vcpu.paused.store(true, Ordering::Release);
        }
        is_wanted
    });
}

fn resume(vcpu: VcpuId) {
    outside::resume(vcpu.0, move || {
        let is_wanted = Hypervisor::get().is_some_and(|hypervisor| !hypervisor.host.is_paused());
        is_wanted && vcpu_of(vcpu).is_some_and(|vcpu| vcpu.paused.swap(false, Ordering::AcqRel))
    });
}

/// Page tables of which a frame may be paged out: which one was in the way is noted.
struct HeldTables<'a, F> {
    tables: FileTables<'a>,
    is_held: F,
    missing: &'a Cell<Option<Gfn>>,
}

impl<F: Fn(Gfn) -> bool> Tables for HeldTables<'_, F> {
    fn entry(&self, address: Gpa, size: u8) -> Option<u64> {
        let gfn = address.gfn();
        if self.tables.0.offset(gfn).is_some() && !(self.is_held)(gfn) {
            self.missing.set(Some(gfn));
            return None;
        }
        self.tables.entry(address, size)
    }
}

/// A vCPU goes on within its block: where it cannot leave, registers that were to be set are not.
pub fn forget_new_registers(vcpu: &Vcpu) {
    if vcpu.trap.has_new_registers() && vcpu.trap.take_new_registers().is_some() {
        let id = vcpu.id;
        eprintln!("mem-event: vCPU {id} goes on where it cannot leave its block: its registers were not set");
    }
}

impl Engine {
    /// A vCPU that stands in the kernel has its answer, and other registers than it stopped with: it does not ask again for its access, but
    /// leaves its block and goes on by those registers.
    pub(super) fn leaves_to_go_on_elsewhere(&mut self, host: &Host, vcpu: &Vcpu) {
        let Some((fault, told)) = self.stopped.stand_of(vcpu.id) else { return };
        if let Some(left) = told {
            // It is on its way out already.
            return self.stopped.moves(vcpu.id, left);
        }
        match explain::place_to_leave(host, vcpu, fault) {
            Ok((place, view)) if leaving::is_there() => {
                self.stopped.moves(vcpu.id, leaving::times(vcpu.id.0));
                leave::tell(vcpu, &place, &view);
            }
            _ => forget_new_registers(vcpu),
        }
    }
}
