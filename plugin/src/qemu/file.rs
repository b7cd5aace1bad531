//! A stopped vCPU's registers, for a request in the layout of `vm_event`.
//!
//! DR6, DR7, the SYSENTER registers, STAR and LSTAR lie behind QEMU's floating-point state, and the plugin API does not know them: they
//! are where QEMU's table of what it migrates says ([`super::fields`]), and stay 0 where that does not prove itself. So does what the API alone knows (`MSR_KERNEL_GS_BASE`, most of EFER) where
//! another thread reads, and what only the state in place has (segments' limits and rights, GDTR) under `registers=api`.

use super::fields::Field;
use super::register::{Register, read_register};
use super::view::{HF_PE, View};
use super::{internals, layout};
use crate::insn::registers::{CodeSize, Registers as _, segment};
use mem_event::registers::{Context, Registers, Segment};

const LMA: u64 = 1 << 10;
const LME: u64 = 1 << 8;
/// Among the general registers.
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
/// The GDT's number among the segments.
const GDT: usize = layout::SYSTEM_TABLES + 2;

impl View {
    /// The register file of a vCPU that stands in the kernel, within a block whose instruction at this linear address has flags of this kind before it,
    /// or where its block begins.
    pub fn register_file_within(&self, rip: u64, flags: Option<u32>) -> Registers {
        let file = self.register_file(rip, false);
        let whole = flags.and_then(|kind| self.whole_flags(Some(kind)));
        Registers { rflags: whole.unwrap_or(file.rflags), ..file }
    }

    /// The register file at the instruction with this linear address. `own`: in the vCPU's own thread, where the API answers.
    pub fn register_file(&self, rip: u64, own: bool) -> Registers {
        let by_api = |register| if own { read_register(register) } else { None };
        let field = |field| self.field(field).unwrap_or(0);
        let mode = self.paging_mode();
        let is_64_bit = self.is_by_api() || self.code_size() == Some(CodeSize::Bits64);
        let mut general = [0; 16];
        for (number, value) in (0..).zip(&mut general) {
            *value = self.general(number);
        }
        Registers {
            general,
            rflags: self.rflags(rip),
            rip: if is_64_bit { rip } else { rip.wrapping_sub(self.segment_base(segment::CS)) & 0xffff_ffff },
            control: [mode.cr0, self.control(2), mode.cr3, mode.cr4],
            efer: by_api(Register::EFER).or_else(|| self.field(Field::Efer)).unwrap_or(if mode.efer & LMA != 0 {
                LMA | LME
            } else {
                0
            }),
            gdtr_base: self.u64_behind(layout::segment(GDT).plus(layout::SEGMENT_BASE)),
            gdtr_limit: (self.u32_behind(layout::segment(GDT).plus(layout::SEGMENT_LIMIT)) & 0xffff) as u16,
            segments: [segment::CS, segment::SS, segment::DS, segment::ES, segment::FS, segment::GS]
                .map(|number| self.segment(number)),
            shadow_gs: by_api(Register::KERNEL_GS_BASE).unwrap_or_else(|| field(Field::KernelGs)),
            debug: [6, 7].map(|number| self.field_of_several(Field::Debug, number).unwrap_or(0)),
            sysenter: [Field::SysenterCs, Field::SysenterEsp, Field::SysenterEip].map(field),
            star: field(Field::Star),
            lstar: field(Field::Lstar),
        }
    }

    /// RFLAGS: the arithmetic flags are right only where a block began at this instruction, for then nothing is left to be computed;
    /// elsewhere they are 0.
    fn rflags(&self, rip: u64) -> u64 {
        if self.is_by_api() {
            return read_register(Register::EFLAGS).unwrap_or(0);
        }
        let kept = self.u64_behind(layout::EFLAGS);
        let whole = if self.instruction_pointer() == rip { self.whole_flags(None) } else { None };
        whole.unwrap_or(kept)
    }

    /// XCR0; `None` where its place is not known.
    pub fn enabled_states(&self) -> Option<u64> {
        self.field(Field::Xcr0)
    }

    /// Whether it may use every port: by its privilege, without what the task's bitmap allows.
    pub fn may_use_ports(&self, rip: u64) -> bool {
        let is_real = !self.is_by_api() && self.flags() & HF_PE == 0;
        is_real || self.is_protected() && u64::from(self.privilege()) <= self.rflags(rip) >> 12 & 3
    }

    /// The register file as `cpuid` at this address will leave it, but for RIP; as it is where that is not known.
    pub fn after_cpuid(&self, rip: u64, (leaf, subleaf): (u32, u32)) -> Registers {
        let mut file = self.register_file(rip, true);
        let found = if self.is_by_api() { None } else { internals::cpuid(self.state(), leaf, subleaf) };
        for (number, value) in [RAX, RBX, RCX, RDX].into_iter().zip(found.into_iter().flatten()) {
            file.general[number] = value.into();
        }
        file
    }

    /// All registers of a vCPU that is out of its block. What is not known is 0.
    pub fn context(&self) -> Context {
        let table = |number: usize| layout::segment(layout::SYSTEM_TABLES + number);
        let base = |number: usize| self.u64_behind(table(number).plus(layout::SEGMENT_BASE));
        let field = |field| self.field(field).unwrap_or(0);
        let [ldtr, tr] = [0, 1].map(|number| Segment { base: base(number), ..self.descriptor(table(number)) });
        Context {
            registers: self.register_file(self.instruction_pointer(), false),
            system: [tr, ldtr],
            idtr_base: base(3),
            idtr_limit: (self.u32_behind(table(3).plus(layout::SEGMENT_LIMIT)) & 0xffff) as u16,
            xcr0: field(Field::Xcr0),
            cstar: field(Field::Cstar),
            sfmask: field(Field::Sfmask),
            tsc: internals::time_stamp_counter(self.state()).unwrap_or(0),
            breakpoints: [0, 1, 2, 3].map(|number| self.field_of_several(Field::Debug, number).unwrap_or(0)),
        }
    }

    fn segment(&self, number: u8) -> Segment {
        let segment = layout::segment(usize::from(number));
        let selector = match self.is_by_api() {
            true => read_register(Register::selector(number)).unwrap_or(0),
            false => u64::from(self.u32_behind(segment)),
        };
        let selector = (selector & 0xffff) as u16;
        Segment { base: self.segment_base(number), selector, ..self.descriptor(segment) }
    }

    /// What QEMU keeps of a descriptor, but for its base.
    fn descriptor(&self, segment: layout::Behind) -> Segment {
        // A descriptor's upper half.
        let flags = self.u32_behind(segment.plus(layout::SEGMENT_FLAGS));
        // QEMU keeps the limit in bytes; the descriptor has it in pages where bit 23 says so.
        let limit = self.u32_behind(segment.plus(layout::SEGMENT_LIMIT)) >> if flags >> 23 & 1 != 0 { 12 } else { 0 };
        Segment {
            base: 0,
            limit: limit & 0xf_ffff,
            rights: (flags >> 8 & 0xff) as u16 | (flags >> 12 & 0xf00) as u16,
            selector: (self.u32_behind(segment) & 0xffff) as u16,
        }
    }
}

/// Whether RFLAGS can be whole here: QEMU computes them, and a vCPU can come to the beginning of a block.
pub fn has_whole_flags() -> bool {
    internals::can_compute_flags() && internals::can_leave()
}
