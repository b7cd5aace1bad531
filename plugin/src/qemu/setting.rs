//! Registers of a vCPU that is out of its block, set in its CPU state.
//!
//! There nothing is left to be computed, and generated code keeps nothing elsewhere: what is written counts from the next block on. What QEMU derives
//! more from (paging, breakpoints, the arithmetic flags) is set by its own functions, which it exports. A register that would change and
//! cannot be set is a refusal, and then none changes.

use super::capabilities::symbol;
use super::fields::{self, Field};
use super::layout::{self, SYSTEM_TABLES};
use super::view::View;
use crate::insn::registers::{CodeSize, segment};
use mem_event::registers::{Context, Registers};
use std::ffi::{CStr, c_void};

/// QEMU's function that sets one register, whose value is of 32 or 64 bits.
type Set = unsafe extern "C" fn(*mut c_void, u64);
type SetFlags = unsafe extern "C" fn(*mut c_void, u64, u32);

/// What of RFLAGS may be set: all but VM, by which the mode changes.
const FLAGS: u32 = 0x3d_7fd5;
const VM: u64 = 1 << 17;

/// One register's change.
enum Change {
    /// A field of so many bytes in the CPU state.
    Field(usize, usize, u64),
    /// By QEMU's function.
    By(*mut c_void, u64),
    /// The flags, by QEMU's function.
    Flags(*mut c_void, u64),
}

/// What is to be changed, in order.
struct Changes {
    list: Vec<Change>,
}

impl Changes {
    fn field(
        &mut self,
        name: &'static str,
        field: Field,
        number: usize,
        (old, new): (u64, u64),
    ) -> Result<(), &'static str> {
        if old == new {
            return Ok(());
        }
        let (place, size) = fields::place(field).ok_or(name)?;
        self.list.push(Change::Field(place + number * size, size, new));
        Ok(())
    }

    fn place(&mut self, place: usize, (old, new): (u64, u64)) {
        if old != new {
            self.list.push(Change::Field(place, 8, new));
        }
    }

    fn by(&mut self, name: &'static str, function: &CStr, (old, new): (u64, u64)) -> Result<(), &'static str> {
        if old != new {
            self.list.push(Change::By(symbol(function).ok_or(name)?, new));
        }
        Ok(())
    }
}

impl View {
    /// Sets the registers of this vCPU, which is out of its block, in its own thread.
    ///
    /// # Errors
    /// The name of a register that would change and cannot be set; nothing has changed then.
    pub fn set_context(&self, new: &Context) -> Result<(), &'static str> {
        for change in self.changes(new)?.list {
            self.make(&change);
        }
        Ok(())
    }

    /// Whether these registers can be set.
    ///
    /// # Errors
    /// As [`View::set_context`].
    pub fn can_set_context(&self, new: &Context) -> Result<(), &'static str> {
        self.changes(new).map(drop)
    }

    fn changes(&self, new: &Context) -> Result<Changes, &'static str> {
        let old = self.context();
        let mut changes = Changes { list: Vec::new() };
        self.system(&mut changes, &old, new)?;
        self.segments(&mut changes, &old.registers, &new.registers)?;
        let (old, new) = (&old.registers, &new.registers);
        for (number, pair) in old.general.into_iter().zip(new.general).enumerate() {
            changes.place(number * 8, pair);
        }
        changes.place(layout::EIP.place(), (old.rip, new.rip));
        if (old.rflags ^ new.rflags) & VM != 0 {
            return Err("RFLAGS.VM");
        }
        if (old.rflags ^ new.rflags) & u64::from(FLAGS) != 0 {
            changes.list.push(Change::Flags(symbol(c"helper_write_eflags").ok_or("RFLAGS")?, new.rflags));
        }
        Ok(changes)
    }

    /// Control, debug and model-specific registers, and the tables.
    fn system(&self, changes: &mut Changes, old: &Context, new: &Context) -> Result<(), &'static str> {
        if old.system != new.system {
            return Err("TR or LDTR");
        }
        if old.xcr0 != new.xcr0 {
            return Err("XCR0");
        }
        let table = |number: usize, place: usize| layout::segment(SYSTEM_TABLES + number).plus(place).place();
        changes.place(table(3, layout::SEGMENT_BASE), (old.idtr_base, new.idtr_base));
        if old.idtr_limit != new.idtr_limit {
            changes.list.push(Change::Field(table(3, layout::SEGMENT_LIMIT), 4, new.idtr_limit.into()));
        }
        changes.field("CSTAR", Field::Cstar, 0, (old.cstar, new.cstar))?;
        changes.field("SFMASK", Field::Sfmask, 0, (old.sfmask, new.sfmask))?;
        let (old_debug, new_debug) = (old.registers.debug, new.registers.debug);
        if old.breakpoints != new.breakpoints || old_debug[1] != new_debug[1] {
            // QEMU keeps breakpoints of its own for those that are on.
            changes.by("DR7", c"cpu_x86_update_dr7", (!0, 0))?;
            for (number, pair) in old.breakpoints.into_iter().zip(new.breakpoints).enumerate() {
                changes.field("DR0 to DR3", Field::Debug, number, pair)?;
            }
            changes.by("DR7", c"cpu_x86_update_dr7", (!new_debug[1], new_debug[1]))?;
        }
        changes.field("DR6", Field::Debug, 6, (old_debug[0], new_debug[0]))?;
        let (old, new) = (&old.registers, &new.registers);
        changes.place(table(2, layout::SEGMENT_BASE), (old.gdtr_base, new.gdtr_base));
        if old.gdtr_limit != new.gdtr_limit {
            changes.list.push(Change::Field(table(2, layout::SEGMENT_LIMIT), 4, new.gdtr_limit.into()));
        }
        for (number, field) in [Field::SysenterCs, Field::SysenterEsp, Field::SysenterEip].into_iter().enumerate() {
            changes.field("SYSENTER_*", field, 0, (old.sysenter[number], new.sysenter[number]))?;
        }
        changes.field("STAR", Field::Star, 0, (old.star, new.star))?;
        changes.field("LSTAR", Field::Lstar, 0, (old.lstar, new.lstar))?;
        changes.field("the shadow of GS", Field::KernelGs, 0, (old.shadow_gs, new.shadow_gs))?;
        changes.place(layout::control(2).place(), (old.control[1], new.control[1]));
        changes.by("EFER", c"cpu_load_efer", (old.efer, new.efer))?;
        changes.by("CR4", c"cpu_x86_update_cr4", (old.control[3], new.control[3]))?;
        changes.by("CR0", c"cpu_x86_update_cr0", (old.control[0], new.control[0]))?;
        changes.by("CR3", c"cpu_x86_update_cr3", (old.control[2], new.control[2]))
    }

    /// Of segments the bases of FS and GS in 64-bit code: nothing is derived from those.
    fn segments(&self, changes: &mut Changes, old: &Registers, new: &Registers) -> Result<(), &'static str> {
        let is_64_bit = self.code_size() == Some(CodeSize::Bits64);
        for (at, number) in [(4, segment::FS), (5, segment::GS)] {
            let bases = (old.segments[at].base, new.segments[at].base);
            if bases.0 != bases.1 && !is_64_bit {
                return Err("the base of a segment");
            }
            changes.place(layout::segment(usize::from(number)).plus(layout::SEGMENT_BASE).place(), bases);
        }
        // In a request's layout the others' bases have 32 bits.
        let without_base = |registers: &Registers, at: usize| {
            let mut segment = registers.segments[at];
            segment.base = if at < 4 { segment.base & 0xffff_ffff } else { 0 };
            segment
        };
        if (0..6).any(|at| without_base(old, at) != without_base(new, at)) { Err("a segment register") } else { Ok(()) }
    }

    fn make(&self, change: &Change) {
        let state = self.state();
        // SAFETY: the state of a vCPU that is out of its block, in its own thread; the places are QEMU's own of these fields. The functions
        // take the state and the value (include/target/i386: the flags' also which of them), in every QEMU from 9.2 to 11, and hand a value of 32 bits
        // over in a register of 64.
        unsafe {
            match *change {
                Change::Field(place, 4, value) => state.add(place).cast::<u32>().write((value & 0xffff_ffff) as u32),
                Change::Field(place, _, value) => state.add(place).cast::<u64>().write(value),
                Change::By(function, value) => std::mem::transmute::<*mut c_void, Set>(function)(state.cast(), value),
                Change::Flags(function, value) => {
                    std::mem::transmute::<*mut c_void, SetFlags>(function)(state.cast(), value, FLAGS);
                }
            }
        }
    }
}
