//! The direct view: QEMU's CPU state (`CPUX86State`), read in place.
//!
//! The plugin API reads a register in about 20 ns and does not know segment bases, code size or privilege level. The state
//! starts with the general registers in encoding order; where the rest is, [`super::layout`] finds out. Nothing is taken on trust: blocks that start while the view is unproven compare it with the API, and samples go on
//! being compared. Where the proof fails, registers are read through the API, and only what that can tell is checked; a sample
//! that differs later ends the run: what was checked since the one before it may have been checked wrongly.

use super::fields::{self, Field};
use super::internals::{self, FlagOperands, cpu_of};
use super::layout::{self, Behind};
use super::register::{Register, read_register};
use super::source::ViewCheck;
use crate::insn::registers::{CodeSize, Registers, segment};
use crate::insn::walk::{PagingMode, PhysicalAddresses};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

pub(super) const HF_CPL: u32 = 3;
const HF_CS32: u32 = 1 << 4;
const HF_SS32: u32 = 1 << 5;
const HF_SMM: u32 = 1 << 19;
/// Of EFER.SVME.
const HF_SVME: u32 = 1 << 20;
/// Whether bounds are on at the privilege level in force, and whether a bound register has been loaded.
const HF_MPX_EN: u32 = 1 << 25;
const HF_MPX_IU: u32 = 1 << 26;
/// Of XCR0: the bound registers.
const BOUND_REGISTERS: u64 = 1 << 3;
pub(super) const HF_PE: u32 = 1 << 7;
const HF_VM: u32 = 1 << 17;
pub(super) const HF_LMA: u32 = 1 << 14;
pub(super) const HF_CS64: u32 = 1 << 15;
const EFLAGS_DF: u64 = 1 << 10;
const EFLAGS_AC: u64 = 1 << 18;
const EFER_SVME: u64 = 1 << 12;
const CR4_PCIDE: u64 = 1 << 17;
const CR4_PKE: u64 = 1 << 22;
const CR4_PKS: u64 = 1 << 24;
const BIT_20: u64 = 1 << 20;

/// The CPU state of one vCPU while it runs a callback; null where registers are read through the API instead, which knows those
/// of the vCPU that runs in this thread.
#[derive(Clone, Copy, Debug)]
pub struct View(*mut u8);

/// A register by the API; 0 where it does not know it.
#[cold]
fn by_api(register: Register) -> u64 {
    read_register(register).unwrap_or(0)
}

impl View {
    /// The registers at this CPU state.
    ///
    /// # Safety
    /// It is the state of the vCPU that runs in this thread, as a hook was handed it.
    #[inline(always)]
    pub unsafe fn new(state: *mut u8) -> View {
        View(if ViewCheck::now() == ViewCheck::Api { std::ptr::null_mut() } else { state })
    }

    /// Where the state begins.
    pub(super) fn state(&self) -> *mut u8 {
        self.0
    }

    /// Whether the API is asked. It knows nothing of 16- and 32-bit code's segments, nor of the direction of string instructions.
    #[inline(always)]
    pub fn is_by_api(&self) -> bool {
        self.0.is_null()
    }

    pub(super) fn u32_at(&self, offset: usize) -> u32 {
        if self.is_by_api() {
            return 0;
        }
        // SAFETY: not null, so it is the state of this thread's vCPU or of a stopped one, which is over 700 bytes long in every QEMU. What
        // lies beyond is where QEMU itself says that it has a field.
        unsafe { self.0.add(offset).cast::<u32>().read() }
    }

    #[inline(always)]
    pub(super) fn u64_at(&self, offset: usize) -> u64 {
        if self.is_by_api() {
            return 0;
        }
        // SAFETY: as above; the vector registers' whole search lies within the state's first 4 KiB, which every QEMU's has.
        unsafe { self.0.add(offset).cast::<u64>().read() }
    }

    /// A field behind the general registers.
    #[inline(always)]
    pub(super) fn u32_behind(&self, field: Behind) -> u32 {
        self.u32_at(field.place())
    }

    #[inline(always)]
    pub(super) fn u64_behind(&self, field: Behind) -> u64 {
        self.u64_at(field.place())
    }

    pub(super) fn flags(&self) -> u32 {
        self.u32_behind(layout::HFLAGS)
    }

    pub(super) fn selector(&self, number: u8) -> u32 {
        self.u32_behind(layout::segment(usize::from(number)))
    }

    /// The linear address of the instruction pointer; right between blocks.
    pub fn linear_instruction_pointer(&self) -> u64 {
        self.instruction_pointer()
    }

    /// CR2.
    pub(super) fn cr2(&self) -> u64 {
        self.control(2)
    }

    /// RFLAGS but for those that are computed.
    pub(super) fn kept_flags(&self) -> u64 {
        self.u64_behind(layout::EFLAGS)
    }

    pub(super) fn control(&self, number: usize) -> u64 {
        self.u64_behind(layout::control(number))
    }

    /// A field's value; `None` where its place is not known.
    pub(super) fn field(&self, field: Field) -> Option<u64> {
        self.field_of_several(field, 0)
    }

    /// The same of a field that is one of several of its size, the first of which has the name.
    pub(super) fn field_of_several(&self, first: Field, number: usize) -> Option<u64> {
        if self.is_by_api() {
            return None;
        }
        let (place, size) = fields::place(first)?;
        let place = place + number * size;
        Some(if size == 4 { u64::from(self.u32_at(place)) } else { self.u64_at(place) })
    }

    /// PKRU, where CR4.PKE is set; in the vCPU's own thread.
    pub fn protection_keys(&self) -> u32 {
        if self.control(4) & CR4_PKE != 0 { super::internals::protection_keys(self.0) } else { 0 }
    }

    /// `IA32_PKRS`, where CR4.PKS is set.
    pub fn supervisor_keys(&self) -> u32 {
        let keys = if self.control(4) & CR4_PKS != 0 { self.field(Field::Pkrs) } else { None };
        keys.and_then(|keys| u32::try_from(keys).ok()).unwrap_or(0)
    }

    /// How wide physical addresses are, and whether bit 20 of them is held at 0: not in system management mode.
    pub fn physical_addresses(&self) -> PhysicalAddresses {
        if self.is_by_api() {
            return PhysicalAddresses::ALL;
        }
        let is_off = self.flags() & HF_SMM == 0 && self.field(Field::A20Mask).is_some_and(|mask| mask & BIT_20 == 0);
        PhysicalAddresses { bits: internals::physical_address_bits(self.0).unwrap_or(52), a20_is_off: is_off }
    }

    /// A model-specific register as it is, in the vCPU's own thread; `None` where that cannot be told.
    pub fn model_specific(&self, number: u32) -> Option<u64> {
        let is_nested = self.runs_nested();
        if self.is_by_api() || is_nested { None } else { internals::read_msr(self.0, number) }
    }

    /// Whether `vmrun` and its kin are there to be run.
    pub fn may_run_guests(&self) -> bool {
        if self.is_by_api() { by_api(Register::EFER) & EFER_SVME != 0 } else { self.flags() & HF_SVME != 0 }
    }

    /// Whether CR4.PCIDE is set.
    pub fn has_process_contexts(&self) -> bool {
        self.control(4) & CR4_PCIDE != 0
    }

    /// All flags as QEMU computes them, where it exports that. Right only at the beginning of a block, or with the kind that QEMU's unwinding told.
    pub(super) fn whole_flags(&self, kind: Option<u32>) -> Option<u64> {
        if self.is_by_api() {
            return None;
        }
        // A block knows the kind from the first instruction on that stores flags, and keeps it to itself; what else they are computed from stands in
        // the state at each access. Before that instruction it is the kind in the state.
        let kind = kind.filter(|kind| internals::is_kind_of_flags(*kind));
        let operands = FlagOperands {
            values: layout::FLAG_OPERANDS.map(|field| self.u64_behind(field)),
            kind: kind.unwrap_or_else(|| self.u32_behind(layout::FLAG_KIND)),
        };
        // QEMU keeps the direction as 1 or -1.
        let direction = u64::from(self.u32_behind(layout::DIRECTION)) & EFLAGS_DF;
        internals::arithmetic_flags(operands).map(|flags| flags | direction | self.u64_behind(layout::EFLAGS))
    }

    /// The linear address of the stack's top.
    pub fn stack(&self) -> u64 {
        let pointer = self.general(4);
        if self.code_size() == Some(CodeSize::Bits64) {
            pointer
        } else {
            (self.segment_base(2) + pointer) & 0xffff_ffff
        }
    }

    /// How page tables are walked. EFER.NXE is taken for set: it matters where the tables forbid something, not where they
    /// lead.
    pub fn paging_mode(&self) -> PagingMode {
        if self.is_by_api() {
            let [cr0, cr3, cr4, efer] = [Register::CR0, Register::CR3, Register::CR4, Register::EFER].map(by_api);
            return PagingMode { cr0, cr3, cr4, efer };
        }
        let long = u64::from(self.flags() & HF_LMA != 0);
        PagingMode { cr0: self.control(0), cr3: self.control(3), cr4: self.control(4), efer: long << 10 | 1 << 11 }
    }

    /// How wide the code is that runs; `None` where that cannot be told.
    pub fn code_size(&self) -> Option<CodeSize> {
        if self.is_by_api() {
            return api_shows_64_bits().then_some(CodeSize::Bits64);
        }
        let flags = self.flags();
        Some(View::code_size_by(flags))
    }

    fn code_size_by(flags: u32) -> CodeSize {
        if flags & HF_CS64 != 0 {
            CodeSize::Bits64
        } else if flags & HF_CS32 != 0 {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        }
    }
}

impl Registers for View {
    #[inline]
    fn general(&self, number: u8) -> u64 {
        if self.is_by_api() {
            return by_api(Register::general(number));
        }
        self.u64_at(usize::from(number & 15) * 8)
    }

    #[inline]
    fn segment_base(&self, number: u8) -> u64 {
        if self.is_by_api() {
            return match number {
                segment::FS => by_api(Register::FS_BASE),
                segment::GS => by_api(Register::GS_BASE),
                _ => 0,
            };
        }
        self.u64_behind(layout::segment(usize::from(number.min(5))).plus(layout::SEGMENT_BASE))
    }

    #[inline]
    fn instruction_pointer(&self) -> u64 {
        if self.is_by_api() {
            return by_api(Register::RIP);
        }
        let eip = self.u64_behind(layout::EIP);
        if self.flags() & HF_CS64 != 0 { eip } else { eip.wrapping_add(self.segment_base(1)) & 0xffff_ffff }
    }

    fn stack_mask(&self) -> u64 {
        match self.flags() {
            _ if self.is_by_api() => u64::MAX,
            flags if flags & HF_CS64 != 0 => u64::MAX,
            flags if flags & HF_SS32 != 0 => 0xffff_ffff,
            _ => 0xffff,
        }
    }

    fn vector(&self, number: u8) -> Option<[u64; 4]> {
        if self.is_by_api() { None } else { self.vector_in_place(number) }
    }

    fn direction(&self) -> i64 {
        // Not known by the API; of a repeated instruction the gate then checks the first step alone.
        if self.is_by_api() { 1 } else { i64::from(self.u32_behind(layout::DIRECTION).cast_signed()) }
    }

    fn privilege(&self) -> u8 {
        if self.is_by_api() {
            return (by_api(Register::selector(segment::CS)) & 3) as u8;
        }
        (self.flags() & HF_CPL) as u8
    }

    fn alignment_check(&self) -> bool {
        let flags = if self.is_by_api() { by_api(Register::EFLAGS) } else { self.u64_behind(layout::EFLAGS) };
        flags & EFLAGS_AC != 0
    }

    fn enabled_state(&self) -> u64 {
        self.field(Field::Xcr0).unwrap_or(3)
    }

    fn state_in_use(&self) -> u64 {
        // QEMU does not know it of the others.
        if self.flags() & HF_MPX_IU == 0 { !BOUND_REGISTERS } else { !0 }
    }

    fn is_protected(&self) -> bool {
        self.is_by_api() || self.flags() & (HF_PE | HF_VM) == HF_PE
    }

    fn is_long(&self) -> bool {
        self.is_by_api() || self.flags() & HF_LMA != 0
    }

    fn descriptor_table(&self, local: bool) -> Option<RangeInclusive<u64>> {
        self.table_of_descriptors(local)
    }

    fn task_state(&self) -> Option<(u64, bool)> {
        self.task()
    }

    fn bound_directory(&self) -> Option<u64> {
        if self.flags() & HF_MPX_EN == 0 {
            return None;
        }
        self.field(if self.privilege() == 3 { Field::BoundsOfUser } else { Field::BoundsOfKernel })
    }
}

/// From a vCPU's `CPUState` to its CPU state, learnt with the first callback; 0 until then.
static STATE_IN_CPU: AtomicUsize = AtomicUsize::new(0);
/// The CPU states seen so far, for QEMUs that do not export the look-up.
static SEEN: [AtomicPtr<u8>; SEEN_VCPUS] = [const { AtomicPtr::new(std::ptr::null_mut()) }; SEEN_VCPUS];
const SEEN_VCPUS: usize = 256;

/// Outside of 64-bit code the API shows low halves alone and zeros for R8 to R15. So what shows more is 64-bit code; what does not
/// may be anything.
fn api_shows_64_bits() -> bool {
    (0..16).any(|number| by_api(Register::general(number)) >> if number < 8 { 32 } else { 0 } != 0)
}

/// How wide the code is that this vCPU, which runs in this thread, is about to have translated; `None` where that cannot be told.
/// A vCPU that never ran is in real mode.
pub fn code_size(vcpu: u32) -> Option<CodeSize> {
    running(vcpu).map_or(Some(CodeSize::Bits16), |view| view.code_size())
}

/// The registers of the vCPU that runs in this thread, where they are known already.
pub fn running(vcpu: u32) -> Option<View> {
    if ViewCheck::now() == ViewCheck::Api { Some(View(std::ptr::null_mut())) } else { view_of(vcpu) }
}

/// The state in place of a vCPU that runs in this thread or is stopped, where it is known already.
pub fn view_of(vcpu: u32) -> Option<View> {
    if ViewCheck::now() == ViewCheck::Api {
        return None;
    }
    let seen = SEEN.get(vcpu as usize).map_or(std::ptr::null_mut(), |seen| seen.load(Ordering::Relaxed));
    if !seen.is_null() {
        return Some(View(seen));
    }
    match (STATE_IN_CPU.load(Ordering::Acquire), cpu_of(vcpu)) {
        (0, _) | (_, None) => None,
        // SAFETY: the distance from a vCPU's start to its CPU state is the same for all vCPUs of a machine (one type).
        (distance, Some(cpu)) => Some(View(unsafe { cpu.0.cast::<u8>().add(distance) })),
    }
}

/// Whether it is known where this vCPU's state is, once any vCPU's is.
pub fn is_known(vcpu: u32) -> bool {
    let seen = SEEN.get(vcpu as usize).is_some_and(|seen| !seen.load(Ordering::Relaxed).is_null());
    seen || cpu_of(vcpu).is_some()
}

/// A vCPU is gone, with its state: one that comes in its place has another.
pub fn forget(vcpu: u32) {
    if let Some(seen) = SEEN.get(vcpu as usize) {
        seen.store(std::ptr::null_mut(), Ordering::Relaxed);
    }
}

/// Remembers where this vCPU's state is.
pub(super) fn remember(vcpu: u32, view: &View) {
    if let Some(seen) = SEEN.get(vcpu as usize) {
        seen.store(view.0, Ordering::Relaxed);
    }
    if let Some(cpu) = cpu_of(vcpu) {
        let distance = (view.0 as usize).wrapping_sub(cpu.0 as usize);
        STATE_IN_CPU.store(distance, Ordering::Release);
        fields::find(distance as u64);
    }
}
