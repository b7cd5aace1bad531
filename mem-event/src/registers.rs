//! A vCPU's registers: the register file of a `vm_event` slot, 344 bytes, and what a vCPU has besides.
//!
//! ```text
//!   0  rax rcx rdx rbx rsp rbp rsi rdi r8 to r15    128  rflags dr6 dr7 rip    160  cr0 cr2 cr3 cr4
//! 192  sysenter_cs sysenter_esp sysenter_eip    216  efer star lstar gdtr_base npt_base vmtrace_pos
//! 264  u32 bases: cs ss ds es    280  fs_base gs_base
//! 296  u32 limit (20 bits) and rights (12 bits): cs ss ds es fs gs    320  shadow_gs
//! 328  u16 gdtr_limit, then selectors: cs ss ds es fs gs
//! ```
//! What has no width is a u64. In a slot they begin at byte 56.

use crate::word::{high, low, pair};
use bincode::{Decode, Encode};

/// 64-bit words of the register file.
pub const WORDS: usize = 43;

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

impl Registers {
    /// As the words of a slot.
    #[must_use]
    pub fn words(&self) -> [u64; WORDS] {
        let mut data = [0; WORDS];
        data[..16].copy_from_slice(&self.general);
        data[16] = self.rflags;
        data[17..19].copy_from_slice(&self.debug);
        data[19] = self.rip;
        data[20..24].copy_from_slice(&self.control);
        data[24..27].copy_from_slice(&self.sysenter);
        data[27..31].copy_from_slice(&[self.efer, self.star, self.lstar, self.gdtr_base]);
        data[32] = NO_TRACE;
        let [cs, ss, ds, es, fs, gs] = &self.segments;
        data[33] = pair(low(cs.base), low(ss.base));
        data[34] = pair(low(ds.base), low(es.base));
        data[35] = fs.base;
        data[36] = gs.base;
        data[37] = pair(cs.limit_and_rights(), ss.limit_and_rights());
        data[38] = pair(ds.limit_and_rights(), es.limit_and_rights());
        data[39] = pair(fs.limit_and_rights(), gs.limit_and_rights());
        data[40] = self.shadow_gs;
        data[41] = four(self.gdtr_limit, cs.selector, ss.selector, ds.selector);
        data[42] = four(es.selector, fs.selector, gs.selector, 0);
        data
    }

    /// Those of a slot's words.
    #[must_use]
    pub fn from_words(data: &[u64; WORDS]) -> Registers {
        let base = |word: u32| u64::from(word);
        let mut registers = Registers {
            rflags: data[16],
            debug: [data[17], data[18]],
            rip: data[19],
            efer: data[27],
            star: data[28],
            lstar: data[29],
            gdtr_base: data[30],
            gdtr_limit: quarter(data[41], 0),
            segments: [
                Segment::of(base(low(data[33])), low(data[37]), quarter(data[41], 1)),
                Segment::of(base(high(data[33])), high(data[37]), quarter(data[41], 2)),
                Segment::of(base(low(data[34])), low(data[38]), quarter(data[41], 3)),
                Segment::of(base(high(data[34])), high(data[38]), quarter(data[42], 0)),
                Segment::of(data[35], low(data[39]), quarter(data[42], 1)),
                Segment::of(data[36], high(data[39]), quarter(data[42], 2)),
            ],
            shadow_gs: data[40],
            ..Registers::default()
        };
        registers.general.copy_from_slice(&data[..16]);
        registers.control.copy_from_slice(&data[20..24]);
        registers.sysenter.copy_from_slice(&data[24..27]);
        registers
    }
}

impl Segment {
    fn limit_and_rights(&self) -> u32 {
        self.limit & 0xf_ffff | u32::from(self.rights) << 20
    }

    fn of(base: u64, limit_and_rights: u32, selector: u16) -> Segment {
        let rights = (limit_and_rights >> 20 & 0xfff) as u16;
        Segment { base, limit: limit_and_rights & 0xf_ffff, rights, selector }
    }
}

fn four(a: u16, b: u16, c: u16, d: u16) -> u64 {
    pair(u32::from(a) | u32::from(b) << 16, u32::from(c) | u32::from(d) << 16)
}

fn quarter(word: u64, at: u32) -> u16 {
    (word >> (16 * at) & 0xffff) as u16
}

/// What an answer can set of a vCPU's registers, as Xen takes no more of them: `VM_EVENT_FLAG_SET_REGISTERS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct NewRegisters {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
}

impl NewRegisters {
    /// Those of a register file.
    #[must_use]
    pub fn of(registers: &Registers) -> NewRegisters {
        NewRegisters { general: registers.general, rflags: registers.rflags, rip: registers.rip }
    }

    /// Puts them into a register file; the others stay.
    pub fn set_in(&self, registers: &mut Registers) {
        registers.general = self.general;
        registers.rflags = self.rflags;
        registers.rip = self.rip;
    }
}

/// All registers of a vCPU that stands: those of an event's request, and what `vm_event` has no room for.
///
/// ```text
///   0  the register file, 344 bytes    344  tr_base ldtr_base idtr_base
/// 368  u32 limit and rights as above: tr ldtr    376  u16 selectors: tr ldtr, then idtr_limit    384  xcr0 cstar sfmask tsc dr0 to dr3
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Context {
    /// The register file.
    pub registers: Registers,
    /// TR and LDTR.
    pub system: [Segment; 2],
    /// IDTR's base.
    pub idtr_base: u64,
    /// IDTR's limit.
    pub idtr_limit: u16,
    /// XCR0.
    pub xcr0: u64,
    /// CSTAR.
    pub cstar: u64,
    /// `IA32_FMASK`.
    pub sfmask: u64,
    /// The time stamp counter when they were read.
    pub tsc: u64,
    /// DR0 to DR3.
    pub breakpoints: [u64; 4],
}

const CONTEXT_WORDS: usize = WORDS + 13;

impl Context {
    /// Bytes of one.
    pub const BYTES: usize = 8 * CONTEXT_WORDS;

    /// As bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let [tr, ldtr] = &self.system;
        let own = [
            tr.base,
            ldtr.base,
            self.idtr_base,
            pair(tr.limit_and_rights(), ldtr.limit_and_rights()),
            four(tr.selector, ldtr.selector, self.idtr_limit, 0),
            self.xcr0,
            self.cstar,
            self.sfmask,
            self.tsc,
        ];
        let words = self.registers.words().into_iter().chain(own).chain(self.breakpoints);
        words.flat_map(u64::to_le_bytes).collect()
    }

    /// Those of these bytes; `None` where they are too few or too many.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Context> {
        let (words, []) = bytes.as_chunks() else { return None };
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let words: [u64; CONTEXT_WORDS] = words.try_into().ok()?;
        let (file, own) = words.split_first_chunk()?;
        let [tr_base, ldtr_base, idtr_base, limits, selectors, xcr0, cstar, sfmask, tsc, breakpoints @ ..] =
            *own.first_chunk::<13>()?;
        Some(Context {
            registers: Registers::from_words(file),
            system: [
                Segment::of(tr_base, low(limits), quarter(selectors, 0)),
                Segment::of(ldtr_base, high(limits), quarter(selectors, 1)),
            ],
            idtr_base,
            idtr_limit: quarter(selectors, 2),
            xcr0,
            cstar,
            sfmask,
            tsc,
            breakpoints,
        })
    }
}
