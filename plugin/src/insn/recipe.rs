//! The recipe of an instruction: which memory it will touch, as arithmetic on registers.
//!
//! A recipe is made once, when QEMU translates the instruction, and evaluated each time before the instruction runs. Nothing
//! in it names the instruction's page: QEMU's x86 blocks are position independent, one translation serves every linear
//! address of a physical page, so the page comes from the instruction pointer at run time.

use crate::insn::far::Far;
use crate::insn::registers::{CodeSize, Registers};
use crate::insn::special::Special;
use mem_event::Rights;

/// In place of a register's number: there is none.
pub const NONE: u8 = 0xff;
/// In place of a base register's number: the start of the page that the code runs on.
pub const PAGE: u8 = 0xfe;

/// How a memory operand's offset is found besides base, index and displacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extra {
    /// Nothing more.
    Plain,
    /// AL is added (`xlat`).
    AddAl,
    /// It is the stack's own access: outside of 64-bit code the stack segment says how wide its pointer is, whatever the code.
    Stack,
    /// A bit number in a register moves the operand: `(signed(register) >> shift) << (shift - 3)` is added (`bt m, r`), with
    /// the register's width in bits as 1 << shift.
    BitOffset {
        /// The register.
        register: u8,
        /// log2 of the operand's width in bits: 4, 5 or 6.
        shift: u8,
    },
    /// It is touched at privilege level 0 alone.
    Kernel,
    /// It is one element of several, by vector registers.
    Element(Element),
    /// It is a part of the area of `xsave` and its kin.
    State(State),
    /// It is what an instruction of MPX touches.
    Bound(Bound),
    /// It is what an instruction touches of stacks that may be another privilege level's.
    Far(Far),
}

/// One of the elements that a gather or a masked move touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element {
    /// Which one, from 0.
    pub number: u8,
    /// Its bytes: 1, 4 or 8.
    pub bytes: u8,
    /// The vector register whose element's sign bit says whether it is touched.
    pub mask: u8,
    /// The vector register that holds a gather's indices, and bytes an index: 4 or 8.
    pub index: Option<(u8, u8)>,
}

/// A part of the area of `xsave` and its kin, which belongs to a component of the processor's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The component's bit in XCR0.
    pub component: u8,
    /// When it is touched.
    pub when: When,
    /// Where in the area it lies.
    pub first: u16,
}

/// When a part of the area is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Where its component is asked for.
    Asked,
    /// Where it is in use too.
    InUse,
    /// Where the header says too that it is there.
    There,
}

/// What an instruction of MPX touches at, or by, its operand's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The operand.
    Itself,
    /// The entry of the directory for a pointer at that address.
    Directory(CodeSize),
    /// The entry of the table to which the directory leads.
    Table(CodeSize),
}

/// One memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Added to the registers.
    pub displacement: u64,
    /// Bytes touched, 1 to 4096.
    pub size: u16,
    /// Base register, [`PAGE`] or [`NONE`].
    pub base: u8,
    /// Index register or [`NONE`].
    pub index: u8,
    /// log2 of the index's factor.
    pub scale: u8,
    /// Segment whose base is added, or [`NONE`].
    pub segment: u8,
    /// What more there is.
    pub extra: Extra,
    /// The offset is cut to these bits: the address size.
    pub offset_mask: u64,
    /// The linear address is cut to these bits: 32 outside of long mode.
    pub linear_mask: u64,
    /// What the access wants.
    pub rights: Rights,
}

/// How a string instruction repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// Bytes a step.
    pub element: u16,
    /// Bits of RCX that count.
    pub count_mask: u64,
    /// Whether the data can end it early (`repe cmps`, `repne scas`): then only its first step is foreseen.
    pub conditional: bool,
}

impl Repeat {
    /// The most steps that QEMU makes of an instruction before it comes back to it, with its check: its loop ends where the count is a
    /// multiple of 65,536, and the last step of all lies outside of the loop.
    pub const MOST_STEPS: u64 = (1 << 16) + 1;
}

/// What an instruction will touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// The instruction's address within its page.
    pub page_offset: u16,
    /// How the code decodes.
    pub code: CodeSize,
    /// The instruction's bytes.
    pub length: u8,
    /// What else it does.
    pub special: Special,
    /// Repetition.
    pub repeat: Option<Repeat>,
    /// Operands in the order in which the instruction touches them.
    pub operands: Box<[Operand]>,
}

impl Recipe {
    /// The fetch of an instruction's byte at offset `first` of the page that runs.
    pub fn fetch(page_offset: u16, first: u16, length: u8, code: CodeSize) -> Recipe {
        let operand = Operand {
            displacement: u64::from(first),
            size: 1,
            base: PAGE,
            index: NONE,
            scale: 0,
            segment: NONE,
            extra: Extra::Plain,
            offset_mask: u64::MAX,
            linear_mask: linear_mask(code),
            rights: Rights::X,
        };
        Recipe { page_offset, code, length, special: Special::Nothing, repeat: None, operands: [operand].into() }
    }
}

/// Linear addresses have 32 bits outside of long mode.
pub fn linear_mask(code: CodeSize) -> u64 {
    if code == CodeSize::Bits64 { u64::MAX } else { u64::from(u32::MAX) }
}

/// What one operand will touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    /// The linear address of the first byte.
    pub gla: u64,
    /// Bytes; 0 where nothing is touched.
    pub size: u16,
    /// What is wanted.
    pub rights: Rights,
}

impl Operand {
    /// The linear address of the operand's first byte.
    #[inline]
    pub fn address(&self, registers: &impl Registers) -> u64 {
        self.address_moved(registers, 0)
    }

    /// The same so many bytes further, as far as the address size reaches: there it goes on from the other end.
    #[inline]
    fn address_moved(&self, registers: &impl Registers, moved: u64) -> u64 {
        let mut linear = self.offset(registers, moved);
        if self.segment != NONE {
            linear = linear.wrapping_add(registers.segment_base(self.segment));
        }
        linear & self.linear_mask
    }

    /// The offset of its first byte in its segment, so many bytes further.
    #[inline]
    fn offset(&self, registers: &impl Registers, moved: u64) -> u64 {
        let mut offset = self.displacement.wrapping_add(moved);
        offset = offset.wrapping_add(match self.base {
            NONE => 0,
            PAGE => registers.instruction_pointer() & !0xfff,
            base => registers.general(base),
        });
        if self.index != NONE {
            offset = offset.wrapping_add(registers.general(self.index) << self.scale);
        }
        offset.wrapping_add(self.extra_offset(registers)) & self.offset_mask(registers)
    }

    /// What it touches, where nothing repeats.
    #[inline]
    pub fn touch(&self, registers: &impl Registers) -> Touch {
        let gla = self.address(registers);
        let touched =
            |gla, is_touched| Touch { gla, size: if is_touched { self.size } else { 0 }, rights: self.rights };
        match self.extra {
            Extra::Element(element) => touched(gla, element.is_touched(registers)),
            Extra::State(state) => touched(gla, state.is_touched(registers, gla)),
            Extra::Bound(bound) => {
                let place = bound.address(registers, gla);
                touched(place.unwrap_or(gla), place.is_some())
            }
            Extra::Far(far) => match far.touch(registers, gla, self.size) {
                Some((gla, size)) => Touch { gla, size, rights: self.rights },
                None => touched(gla, false),
            },
            Extra::Kernel => touched(gla, registers.privilege() == 0),
            Extra::Plain | Extra::AddAl | Extra::Stack | Extra::BitOffset { .. } => touched(gla, true),
        }
    }

    #[inline]
    fn offset_mask(&self, registers: &impl Registers) -> u64 {
        match self.extra {
            Extra::Stack | Extra::Far(Far::OuterStack(_) | Far::Virtual(_)) => registers.stack_mask(),
            _ => self.offset_mask,
        }
    }

    #[inline]
    fn extra_offset(&self, registers: &impl Registers) -> u64 {
        match self.extra {
            Extra::Plain | Extra::Kernel | Extra::Stack | Extra::State(_) | Extra::Bound(_) | Extra::Far(_) => 0,
            Extra::AddAl => registers.general(0) & 0xff,
            Extra::BitOffset { register, shift } => bit_offset(registers.general(register), shift),
            Extra::Element(element) => element.index(registers) << self.scale,
        }
    }
}

/// The byte offset that a signed bit number of 1 << `shift` bits moves the operand by.
fn bit_offset(register: u64, shift: u8) -> u64 {
    let unused = 64 - (1u32 << shift);
    let bit = (register << unused).cast_signed() >> unused;
    ((bit >> shift) << (shift - 3)).cast_unsigned()
}

impl Recipe {
    /// The linear address of the instruction.
    #[inline]
    pub fn rip(&self, registers: &impl Registers) -> u64 {
        registers.instruction_pointer() & !0xfff | u64::from(self.page_offset)
    }

    /// Of an address that was computed from one of its operands: the bits that linear addresses have in its code.
    pub fn linear(&self, gla: u64) -> u64 {
        gla & linear_mask(self.code)
    }

    /// Where each page of a touch begins to be touched. An operand has at most 4096 bytes.
    #[inline]
    pub fn pages(&self, touch: Touch) -> impl Iterator<Item = u64> + use<> {
        let on_first = 0x1000 - (touch.gla & 0xfff);
        let first = (touch.size > 0).then_some(touch.gla);
        let next = touch.gla.wrapping_add(on_first);
        // An inner level's stack may lie where the code itself cannot reach.
        let next = if self.linear(touch.gla) == touch.gla { self.linear(next) } else { next };
        let second = (u64::from(touch.size) > on_first).then_some(next);
        first.into_iter().chain(second)
    }

    /// Whether it may change what physical addresses mean: the keyboard's controller and the port of the chipset switch A20.
    pub fn switches_a20(&self, registers: &impl Registers) -> bool {
        const PORTS: [u16; 3] = [0x60, 0x64, 0x92];
        matches!(self.special, Special::Port(port) if !port.is_read && PORTS.contains(&port.number(registers)))
    }

    /// Whether its block begins with it. Within one, a repeated instruction is no place to leave from: QEMU says of it that the flags'
    /// kind is stored already, and stores it in the instruction's first operations, which come after the callback. RFLAGS would be
    /// computed from the operands of one kind as if they were another's.
    pub fn begins_block(&self, registers: &impl Registers) -> bool {
        registers.instruction_pointer() & 0xfff == u64::from(self.page_offset)
    }

    /// Whether vector registers say what it touches.
    pub fn needs_vectors(&self) -> bool {
        self.operands.first().is_some_and(|operand| matches!(operand.extra, Extra::Element(_)))
    }

    /// How many steps the instruction makes before its next check, as far as they can be foreseen: 1, or what RCX says.
    pub fn steps(&self, registers: &impl Registers) -> u64 {
        match self.repeat {
            Some(repeat) if repeat.conditional => self.count(registers).min(1),
            _ => self.count(registers).min(Repeat::MOST_STEPS),
        }
    }

    /// How many steps there are by RCX alone, whatever the data says.
    pub fn count(&self, registers: &impl Registers) -> u64 {
        self.repeat.map_or(1, |repeat| registers.general(1) & repeat.count_mask)
    }

    /// What operand `number` touches in its step `step`.
    pub fn touch(&self, registers: &impl Registers, number: usize, step: u64) -> Touch {
        let operand = &self.operands[number];
        let first = operand.touch(registers);
        match self.repeat {
            None => first,
            Some(_) => Touch { gla: operand.address_moved(registers, self.moved(registers, step)), ..first },
        }
    }

    /// How far a repetition has come before its step `step`.
    fn moved(&self, registers: &impl Registers, step: u64) -> u64 {
        let element = self.repeat.map_or(0, |repeat| u64::from(repeat.element));
        step.wrapping_mul(element).wrapping_mul(registers.direction().cast_unsigned())
    }

    /// The step after `step` at which an operand of a repetition goes on from the other end of what its address size reaches.
    pub fn next_wrap(&self, registers: &impl Registers, number: usize, step: u64) -> u64 {
        let operand = &self.operands[number];
        let element = self.repeat.map_or(1, |repeat| u64::from(repeat.element.max(1)));
        let offset = operand.offset(registers, self.moved(registers, step));
        let room = if registers.direction() < 0 { offset } else { operand.offset_mask(registers) - offset };
        (room / element).saturating_add(step + 1)
    }

    /// The next step after `step` in which some operand meets a page that it did not touch in `step`.
    pub fn next_page(&self, registers: &impl Registers, step: u64) -> u64 {
        let Some(repeat) = self.repeat else { return step + 1 };
        let element = u64::from(repeat.element.max(1));
        let down = registers.direction() < 0;
        let moved = self.moved(registers, step);
        let next = (0..self.operands.len()).map(|number| {
            let gla = self.operands[number].address_moved(registers, moved);
            let last = gla.wrapping_add(u64::from(self.operands[number].size) - 1);
            // Bytes that are left on the page in the direction of travel, beyond this element.
            let room = if down { gla & 0xfff } else { 0xfff - (last & 0xfff) };
            (step + 1 + room / element).min(self.next_wrap(registers, number, step))
        });
        next.min().unwrap_or(step + 1)
    }
}
