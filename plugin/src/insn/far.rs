//! What `call`, `ret` and `iret` touch of stacks where they go to another privilege level, or through a gate: a return to an outer level takes
//! that level's stack pointer too, and a call to an inner one pushes onto the stack that the task state names.
//!
//! Descriptors are looked at as QEMU will look at them: where it raises an exception first, nothing is touched. A switch of tasks is not
//! foreseen (by the gate of a task, by a task state, by `iret` with NT): the host's MMU stops what it touches, as it stops the frame that
//! `int` has the processor push.

use crate::insn::registers::{Registers, segment};

const RSP: u8 = 4;
/// Of RFLAGS: virtual-8086 mode.
const VIRTUAL: u64 = 1 << 17;

/// A part of what such an instruction touches. What is told by a word in memory is told by the one at the operand's own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    /// The outer stack's pointer and segment, so far above the stack pointer; the code's selector tells.
    OuterStack(u16),
    /// The stack and the segments of virtual-8086 mode, so far above the stack pointer; the flags tell.
    Virtual(u16),
    /// What a call pushes; its selector tells, which it names or has in memory.
    Pushed(Option<u16>),
    /// The parameters that a call through a gate copies from the old stack; likewise.
    Copied(Option<u16>),
}

/// A stack: the linear address of offset 0, the offset of its top, the bits of an offset that count, and those of a linear address.
#[derive(Clone, Copy, Debug)]
struct Stack {
    base: u64,
    top: u64,
    mask: u64,
    linear: u64,
}

/// Linear addresses outside of 64-bit code.
const LINEAR: u64 = 0xffff_ffff;

/// What a call does.
#[derive(Clone, Copy, Debug)]
struct Call {
    onto: Stack,
    words: u16,
    copied: u16,
    /// Bytes a word.
    word: u16,
}

impl Stack {
    /// The one in use.
    fn of(registers: &impl Registers) -> Stack {
        let (base, linear) =
            if registers.is_64_bit() { (0, u64::MAX) } else { (registers.segment_base(segment::SS), LINEAR) };
        Stack { base, top: registers.general(RSP), mask: registers.stack_mask(), linear }
    }

    fn above(self, bytes: u16) -> u64 {
        self.base.wrapping_add(self.top.wrapping_add(bytes.into()) & self.mask) & self.linear
    }

    fn below(self, bytes: u16) -> u64 {
        self.base.wrapping_add(self.top.wrapping_sub(bytes.into()) & self.mask) & self.linear
    }
}

impl Far {
    /// Where it is and how many bytes it has, by what stands at `tells`, and by its bytes where nothing else says how many; none where it
    /// is not touched. What cannot be looked at counts as touched.
    pub fn touch(self, registers: &impl Registers, tells: u64, bytes: u16) -> Option<(u64, u16)> {
        let stack = Stack::of(registers);
        let selector = |named: Option<u16>| named.or_else(|| Some((registers.quad(tells)? & 0xffff) as u16));
        match self {
            Far::OuterStack(_) | Far::Virtual(_) if !registers.is_protected() => None,
            Far::OuterStack(at) => match registers.quad(tells) {
                Some(selector) if !is_outer(registers, (selector & 0xffff) as u16) => None,
                _ => Some((stack.above(at), bytes)),
            },
            Far::Virtual(at) => match registers.quad(tells) {
                Some(flags) if flags & VIRTUAL == 0 => None,
                _ => Some((stack.above(at), bytes)),
            },
            Far::Pushed(named) => {
                let call = Call::to(registers, selector(named)?, bytes / 2)?;
                let bytes = call.words * call.word;
                Some((call.onto.below(bytes), bytes))
            }
            Far::Copied(named) => {
                let call = Call::to(registers, selector(named)?, bytes / 2)?;
                (call.copied > 0).then(|| (stack.above(0), call.copied * call.word))
            }
        }
    }
}

/// A descriptor's eight bytes, or half a long one's.
#[derive(Clone, Copy, Debug)]
struct Descriptor(u64);

impl Descriptor {
    fn of(registers: &impl Registers, selector: u16) -> Option<Descriptor> {
        let table = registers.descriptor_table(selector & 4 != 0)?;
        let at = table.start().wrapping_add(u64::from(selector & !7));
        let is_within = u64::from(selector | 7) <= table.end().wrapping_sub(*table.start());
        if is_within { registers.quad(at).map(Descriptor) } else { None }
    }

    fn bit(self, number: u32) -> bool {
        self.0 >> number & 1 != 0
    }

    /// Present code.
    fn is_code(self) -> bool {
        self.bit(47) && self.bit(44) && self.bit(43)
    }

    fn is_conforming(self) -> bool {
        self.bit(42)
    }

    /// Of a system's descriptor; a segment's is above 15.
    fn kind(self) -> u64 {
        self.0 >> 40 & 0x1f
    }

    fn privilege(self) -> u8 {
        (self.0 >> 45 & 3) as u8
    }

    fn base(self) -> u64 {
        self.0 >> 16 & 0xff_ffff | self.0 >> 56 << 24
    }

    fn stack_mask(self) -> u64 {
        if self.bit(54) { 0xffff_ffff } else { 0xffff }
    }
}

/// Whether a return to this code goes to an outer level.
fn is_outer(registers: &impl Registers, selector: u16) -> bool {
    let asked = (selector & 3) as u8;
    if selector & 0xfffc == 0 || asked <= registers.privilege() {
        return false;
    }
    // One that cannot be looked at may be.
    Descriptor::of(registers, selector).is_none_or(|code| {
        let fits = if code.is_conforming() { code.privilege() <= asked } else { code.privilege() == asked };
        code.is_code() && fits
    })
}

impl Call {
    /// A call to this selector by an instruction with such words; none where it is refused, or switches tasks.
    fn to(registers: &impl Registers, selector: u16, word: u16) -> Option<Call> {
        let own = Call { onto: Stack::of(registers), words: 2, copied: 0, word };
        // By the API no descriptor is known.
        if !registers.is_protected() || registers.descriptor_table(false).is_none() {
            return Some(own);
        }
        if selector & 0xfffc == 0 {
            return None;
        }
        let (level, asked) = (registers.privilege(), (selector & 3) as u8);
        let found = Descriptor::of(registers, selector)?;
        if found.bit(44) {
            let fits = if found.is_conforming() {
                found.privilege() <= level
            } else {
                asked <= level && found.privilege() == level
            };
            return (found.is_code() && fits).then_some(own);
        }
        let is_long = registers.is_long();
        let word = match found.kind() {
            12 if is_long => 8,
            12 => 4,
            4 if !is_long => 2,
            _ => return None,
        };
        let is_open = found.bit(47) && found.privilege() >= level.max(asked);
        // The second half of a long gate.
        let is_whole = !is_long || Descriptor::of(registers, selector.wrapping_add(8))?.kind() == 0;
        let target = (found.0 >> 16 & 0xffff) as u16;
        let code = Descriptor::of(registers, target)?;
        let fits = target & 0xfffc != 0 && code.is_code() && code.privilege() <= level;
        let is_wide = !is_long || code.bit(53) && !code.bit(54);
        if !(is_open && is_whole && fits && is_wide) {
            return None;
        }
        if code.is_conforming() || code.privilege() == level {
            return Some(Call { word, ..own });
        }
        let copied = if is_long { 0 } else { (found.0 >> 32 & 0x1f) as u16 };
        Some(Call { onto: inner_stack(registers, code.privilege())?, words: 4 + copied, copied, word })
    }
}

/// The stack that the task state names for this level.
fn inner_stack(registers: &impl Registers, level: u8) -> Option<Stack> {
    let (task, is_wide) = registers.task_state()?;
    let level = u64::from(level);
    if registers.is_long() {
        let top = registers.quad(task.wrapping_add(4 + 8 * level))?;
        return Some(Stack { base: 0, top, mask: u64::MAX, linear: u64::MAX });
    }
    let named = registers.quad(task.wrapping_add(if is_wide { 4 + 8 * level } else { 2 + 4 * level }))?;
    let (top, selector) =
        if is_wide { (named & 0xffff_ffff, named >> 32 & 0xffff) } else { (named & 0xffff, named >> 16 & 0xffff) };
    let stack = Descriptor::of(registers, u16::try_from(selector).ok()?)?;
    let is_right = selector & 0xfffc != 0 && stack.bit(47) && stack.bit(44) && !stack.bit(43) && stack.bit(41);
    is_right.then(|| Stack { base: stack.base(), top, mask: stack.stack_mask(), linear: LINEAR })
}
