//! The registers that an address is computed from: QEMU's CPU state, or a test's plain values.

use std::ops::RangeInclusive;

/// Numbers of the segment registers, in QEMU's and the encoding's order.
pub mod segment {
    /// ES.
    pub const ES: u8 = 0;
    /// CS.
    pub const CS: u8 = 1;
    /// SS.
    pub const SS: u8 = 2;
    /// DS.
    pub const DS: u8 = 3;
    /// FS.
    pub const FS: u8 = 4;
    /// GS.
    pub const GS: u8 = 5;
}

/// How wide the code is that runs, which also says how its bytes decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeSize {
    /// Real mode, virtual-8086 mode and 16-bit segments.
    Bits16,
    /// 32-bit segments.
    Bits32,
    /// Long mode.
    Bits64,
}

impl CodeSize {
    /// In bits.
    pub const fn bits(self) -> u8 {
        match self {
            CodeSize::Bits16 => 16,
            CodeSize::Bits32 => 32,
            CodeSize::Bits64 => 64,
        }
    }
}

/// What an address computation may ask for.
pub trait Registers {
    /// A general register in encoding order: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    fn general(&self, number: u8) -> u64;
    /// The linear base of a segment register (see [`segment`]).
    fn segment_base(&self, number: u8) -> u64;
    /// The instruction pointer; inside a block only its page is right.
    fn instruction_pointer(&self) -> u64;
    /// The bits of the stack pointer that count: 16 or 32 by the stack segment, all in 64-bit code.
    fn stack_mask(&self) -> u64;
    /// A vector register's 32 bytes; `None` where they cannot be had.
    fn vector(&self, number: u8) -> Option<[u64; 4]>;
    /// 1 where string instructions go up, -1 where they go down.
    fn direction(&self) -> i64;
    /// The privilege level, 0 to 3.
    fn privilege(&self) -> u8;
    /// Whether RFLAGS.AC is set.
    fn alignment_check(&self) -> bool;
    /// XCR0: the components of the state that `xsave` and its kin know; the legacy ones where it cannot be had.
    fn enabled_state(&self) -> u64 {
        3
    }
    /// XINUSE: those that are not in their first state.
    fn state_in_use(&self) -> u64 {
        !0
    }
    /// BNDCFGS, or BNDCFGU at privilege level 3; `None` while bounds are off, and where that cannot be had.
    fn bound_directory(&self) -> Option<u64> {
        None
    }
    /// Whether 64-bit code runs.
    fn is_64_bit(&self) -> bool {
        self.stack_mask() == u64::MAX
    }
    /// Whether selectors name descriptors: not in real and in virtual-8086 mode.
    fn is_protected(&self) -> bool {
        true
    }
    /// Whether the processor is in long mode, in whichever code.
    fn is_long(&self) -> bool {
        self.is_64_bit()
    }
    /// The bytes of the global or the local descriptor table; `None` where there is none, and where it cannot be had.
    fn descriptor_table(&self, _local: bool) -> Option<RangeInclusive<u64>> {
        None
    }
    /// Where the task state is, and whether it is none of 16 bits; `None` where it cannot be had.
    fn task_state(&self) -> Option<(u64, bool)> {
        None
    }
    /// The eight bytes at a linear address, for what an instruction reads to know what else it touches; `None` where they cannot be had.
    fn quad(&self, _gla: u64) -> Option<u64> {
        None
    }
}
