//! Steps and remarks to bytes and back. A step tells what is otherwise than what its block has told before: its size is that of what is new.
//!
//! | file | what lives there |
//! |---|---|
//! | `past` | what is known of a block's steps so far |
//! | `input` | accesses and CPU events, with the code |
//! | `slots` | what was taken from ring pages |
//! | `answer` | the outcome and the effects |

mod answer;
mod input;
mod past;
mod slots;

pub(super) use past::Past;

use super::bytes::{Bytes, Found, number, text, words, wrong};
use super::{LONGEST_STEP, Remark, Step, values};
use crate::control::Ring;
use crate::effect::{Effect, Effects, Outcome};
use crate::input::Input;
use crate::registers::{self, Registers};

/// The lowest bits of a step's first byte: what follows.
const FORM: u8 = 7;
const WHOLE: u8 = 0;
const ACCESS: u8 = 1;
/// And the number of the ring: up to 4.
const KICK: u8 = 1;
const EVENT: u8 = 5;
const REMARK: u8 = 6;
const REGISTERS: u8 = 7;

/// A connection called: its number follows.
const CALLED: u8 = 8;
/// Something was taken from ring pages.
const TAKEN: u8 = 0x10;
/// The code stands here, and not in the input.
const CODE: u8 = 0x20;

/// As much of a step as a replay needs beforehand.
pub(super) struct Told {
    /// Nanoseconds since the step or remark before.
    pub later: u64,
    pub connection: u32,
    pub input: Input,
    /// Bytes up to the answer.
    pub used: usize,
}

/// Appends a step to a block, `later` than the one before; after an error the buffer is as before, and the block must end.
#[inline]
pub(super) fn write(
    out: &mut Vec<u8>,
    past: &mut Past,
    (later, connection, code): (u64, u32, &[u8]),
    input: &Input,
    outcome: &Outcome,
    effects: &Effects,
) -> Found<()> {
    let start = out.len();
    let form = match input {
        Input::Access { vcpu, .. } if Past::knows(*vcpu) => ACCESS,
        Input::CpuEvent { vcpu, .. } if Past::knows(*vcpu) => EVENT,
        Input::Kick { ring } => KICK + *ring as u8,
        _ => WHOLE,
    };
    let has_code = !matches!(form, ACCESS | EVENT) && !code.is_empty();
    let bits = [(connection != 0, CALLED), (!effects.taken.is_empty(), TAKEN), (has_code, CODE)];
    out.push(bits.into_iter().fold(form, |head, (has, bit)| if has { head | bit } else { head }));
    number(out, later);
    if connection != 0 {
        number(out, connection.into());
    }
    if has_code {
        text(out, code);
    }
    match input {
        Input::Access { vcpu, access } if form == ACCESS => input::access(out, past, *vcpu, access, code),
        Input::CpuEvent { vcpu, event } if form == EVENT => input::event(out, past, *vcpu, event, code),
        Input::Kick { .. } => {}
        whole => bounded(out, start, |out| values::append(out, whole))?,
    }
    if !effects.taken.is_empty() {
        slots::write(out, past, &effects.taken);
    }
    bounded(out, start, |out| answer::write(out, past, (input, &effects.taken), outcome, &effects.list))?;
    past.hears(&effects.list);
    Ok(())
}

/// Appends a remark to a block; after an error the buffer is as before.
pub(super) fn write_remark(out: &mut Vec<u8>, past: &mut Past, later: u64, remark: &Remark) -> Found<()> {
    let start = out.len();
    if let Remark::Registers { vcpu, registers } = remark
        && Past::knows(*vcpu)
    {
        let new = registers.words();
        if Registers::from_words(&new) == **registers {
            out.push(REGISTERS);
            number(out, later);
            number(out, vcpu.0.into());
            let last = past.of(*vcpu).registers.get_or_insert_with(|| Box::new([0; registers::WORDS]));
            words(out, &new, last);
            **last = new;
            return Ok(());
        }
    }
    out.push(REMARK);
    number(out, later);
    bounded(out, start, |out| values::append(out, remark))
}

#[inline]
fn bounded(out: &mut Vec<u8>, start: usize, write: impl FnOnce(&mut Vec<u8>) -> Found<()>) -> Found<()> {
    let done = write(out).and_then(|()| match out.len() - start {
        0..=LONGEST_STEP => Ok(()),
        size => Err(format!("a step of {size} bytes is too long")),
    });
    if done.is_err() {
        out.truncate(start);
    }
    done
}

/// Whether a remark stands here, and no step.
#[inline]
pub(super) fn is_remark(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|head| matches!(head & FORM, REMARK | REGISTERS))
}

/// A remark: how much later it is than what stands before it, and how many bytes it has.
pub(super) fn read_remark(bytes: &[u8], past: &mut Past) -> Found<(u64, Remark, usize)> {
    let mut bytes = Bytes::new(bytes);
    let head = bytes.byte()?;
    let later = bytes.number()?;
    let remark = match head {
        REMARK => values::read(&mut bytes)?,
        REGISTERS => {
            let vcpu = input::read_vcpu(&mut bytes)?;
            let last = past.of(vcpu).registers.get_or_insert_with(|| Box::new([0; registers::WORDS]));
            bytes.words(last)?;
            Remark::Registers { vcpu, registers: Box::new(Registers::from_words(last)) }
        }
        _ => return wrong("a remark with an unknown head"),
    };
    Ok((later, remark, bytes.used()))
}

/// The step that stands here, as far as a replay needs it; its code and what it took are put into the two buffers.
#[inline]
pub(super) fn told(bytes: &[u8], past: &mut Past, code: &mut Vec<u8>, taken: &mut Vec<u8>) -> Found<Told> {
    let mut bytes = Bytes::new(bytes);
    code.clear();
    taken.clear();
    let head = bytes.byte()?;
    if head & !(FORM | CALLED | TAKEN | CODE) != 0 {
        return wrong("a step with an unknown head");
    }
    let later = bytes.number()?;
    let connection = if head & CALLED != 0 { bytes.small()? } else { 0 };
    if head & CODE != 0 {
        code.extend_from_slice(bytes.text()?);
    }
    let input = match head & FORM {
        WHOLE => values::read(&mut bytes)?,
        ACCESS => {
            let (vcpu, access) = input::read_access(&mut bytes, past, code)?;
            Input::Access { vcpu, access }
        }
        EVENT => {
            let (vcpu, event) = input::read_event(&mut bytes, past, code)?;
            Input::CpuEvent { vcpu, event }
        }
        form => match Ring::from_number(form.wrapping_sub(KICK)) {
            Some(ring) => Input::Kick { ring },
            None => return wrong("a remark where a step is due"),
        },
    };
    if head & TAKEN != 0 {
        slots::read(&mut bytes, past, taken)?;
    }
    Ok(Told { later, connection, input, used: bytes.used() })
}

/// Appends the last part of a step; whether the bytes behind those that were told begin with these is what a replay asks.
#[inline]
pub(super) fn answer(out: &mut Vec<u8>, past: &Past, input: &Input, outcome: &Outcome, effects: &Effects) -> Found<()> {
    answer::write(out, past, (input, &effects.taken), outcome, &effects.list)
}

/// The last part of a step, and how many bytes it has. [`Past::hears`] must be told of the effects.
pub(super) fn read_answer(
    bytes: &[u8],
    past: &Past,
    input: &Input,
    taken: &[u8],
) -> Found<(Outcome, Vec<Effect>, usize)> {
    let mut bytes = Bytes::new(bytes);
    let (outcome, effects) = answer::read(&mut bytes, past, (input, taken))?;
    Ok((outcome, effects, bytes.used()))
}

/// The step that stands here, whole, with how many nanoseconds it is later than the one before in place of its time; and how many
/// bytes it has.
pub(super) fn read(bytes: &[u8], past: &mut Past) -> Found<(Step, usize)> {
    let (mut code, mut taken) = (Vec::new(), Vec::new());
    let Told { later, connection, input, used } = told(bytes, past, &mut code, &mut taken)?;
    let (outcome, list, more) = read_answer(&bytes[used..], past, &input, &taken)?;
    past.hears(&list);
    let effects = Effects { list, taken };
    Ok((Step { time: later, code, connection, input, outcome, effects }, used + more))
}
