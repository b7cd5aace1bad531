//! The register file of a `vm_event` slot: 344 bytes from byte 56 on.
//!
//! ```text
//!   0  rax rcx rdx rbx rsp rbp rsi rdi r8 to r15    128  rflags dr6 dr7 rip    160  cr0 cr2 cr3 cr4
//! 192  sysenter_cs sysenter_esp sysenter_eip    216  efer star lstar gdtr_base npt_base vmtrace_pos
//! 264  u32 bases: cs ss ds es    280  fs_base gs_base
//! 296  u32 limit (20 bits) and rights (12 bits): cs ss ds es fs gs    320  shadow_gs
//! 328  u16 gdtr_limit, then selectors: cs ss ds es fs gs
//! ```
//! Offsets count from byte 56; what has no width is a u64.

use super::word::{high, low, pair};
use bincode::{Decode, Encode};

/// `VM_EVENT_INTERFACE_VERSION`.
pub const VERSION: u32 = 7;
/// 64-bit words in a slot of `vm_event`.
pub const WORDS: usize = 50;
/// A slot of `vm_event`.
pub type Slot = [u64; WORDS];

/// The register file's first word in a slot.
pub(super) const DATA: usize = 7;

/// `vmtrace_pos` where nothing is traced.
const NO_TRACE: u64 = u64::MAX;

/// A segment register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Segment {
    /// Base; only the lower half is kept for CS, SS, DS and ES.
    pub base: u64,
    /// Limit as in the descriptor, 20 bits.
    pub limit: u32,
    /// Access rights, 12 bits.
    pub rights: u16,
    /// Selector.
    pub selector: u16,
}

/// The registers of the vCPU (`struct vm_event_regs_x86`). `npt_base` and `vmtrace_pos` belong to hardware
/// virtualisation: the one is always zero, the other all ones, as on a Xen without vmtrace. The others are zero where the caller does
/// not know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Encode, Decode)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15: the order of their encoding.
    pub general: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// DR6 and DR7.
    pub debug: [u64; 2],
    /// RIP.
    pub rip: u64,
    /// CR0, CR2, CR3, CR4.
    pub control: [u64; 4],
    /// SYSENTER CS, ESP and EIP.
    pub sysenter: [u64; 3],
    /// EFER.
    pub efer: u64,
    /// STAR.
    pub star: u64,
    /// LSTAR.
    pub lstar: u64,
    /// GDTR's base.
    pub gdtr_base: u64,
    /// GDTR's limit.
    pub gdtr_limit: u16,
    /// CS, SS, DS, ES, FS, GS.
    pub segments: [Segment; 6],
    /// `MSR_KERNEL_GS_BASE`.
    pub shadow_gs: u64,
}

/// Writes them into a slot.
pub(super) fn write(slot: &mut Slot, registers: &Registers) {
    let data = &mut slot[DATA..];
    data[..16].copy_from_slice(&registers.general);
    data[16] = registers.rflags;
    data[17..19].copy_from_slice(&registers.debug);
    data[19] = registers.rip;
    data[20..24].copy_from_slice(&registers.control);
    data[24..27].copy_from_slice(&registers.sysenter);
    data[27..31].copy_from_slice(&[registers.efer, registers.star, registers.lstar, registers.gdtr_base]);
    data[32] = NO_TRACE;
    let [cs, ss, ds, es, fs, gs] = &registers.segments;
    data[33] = pair(low(cs.base), low(ss.base));
    data[34] = pair(low(ds.base), low(es.base));
    data[35] = fs.base;
    data[36] = gs.base;
    let limit = |segment: &Segment| segment.limit & 0xf_ffff | u32::from(segment.rights) << 20;
    data[37] = pair(limit(cs), limit(ss));
    data[38] = pair(limit(ds), limit(es));
    data[39] = pair(limit(fs), limit(gs));
    data[40] = registers.shadow_gs;
    let four =
        |a: u16, b: u16, c: u16, d: u16| pair(u32::from(a) | u32::from(b) << 16, u32::from(c) | u32::from(d) << 16);
    data[41] = four(registers.gdtr_limit, cs.selector, ss.selector, ds.selector);
    data[42] = four(es.selector, fs.selector, gs.selector, 0);
}

/// The registers in a slot.
pub(super) fn read(slot: &Slot) -> Registers {
    let data = &slot[DATA..];
    let part = |word: usize, at: u32| (data[word] >> (16 * at) & 0xffff) as u16;
    let segment = |base: u64, limit: u32, selector: u16| Segment {
        base,
        limit: limit & 0xf_ffff,
        rights: (limit >> 20 & 0xfff) as u16,
        selector,
    };
    let mut registers = Registers {
        rflags: data[16],
        debug: [data[17], data[18]],
        rip: data[19],
        efer: data[27],
        star: data[28],
        lstar: data[29],
        gdtr_base: data[30],
        gdtr_limit: part(41, 0),
        segments: [
            segment(u64::from(low(data[33])), low(data[37]), part(41, 1)),
            segment(u64::from(high(data[33])), high(data[37]), part(41, 2)),
            segment(u64::from(low(data[34])), low(data[38]), part(41, 3)),
            segment(u64::from(high(data[34])), high(data[38]), part(42, 0)),
            segment(data[35], low(data[39]), part(42, 1)),
            segment(data[36], high(data[39]), part(42, 2)),
        ],
        shadow_gs: data[40],
        ..Registers::default()
    };
    registers.general.copy_from_slice(&data[..16]);
    registers.control.copy_from_slice(&data[20..24]);
    registers.sysenter.copy_from_slice(&data[24..27]);
    registers
}
