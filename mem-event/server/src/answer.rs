//! What becomes of an outcome: the reply that a client gets.

use crate::hypercalls::{Hypercalls, Refusal};
use mem_event::message::{Call, Reply};
use mem_event::registers::Context;
use mem_event::{Errno, Gfn, Outcome, PAGE_SIZE};

pub(crate) fn refused(errno: Errno, sentence: &str) -> Reply {
    Reply::Refused(errno, sentence.to_owned())
}

pub(crate) fn outcome(outcome: Outcome) -> Reply {
    match outcome {
        Outcome::Proceed | Outcome::Wait(_) | Outcome::Skip | Outcome::Alone => Reply::Done([0; 5]),
        Outcome::Value(value) => Reply::Done([value, 0, 0, 0, 0]),
        Outcome::Retry(errno) => refused(errno, "busy; try again"),
        Outcome::Refused(errno, sentence) => Reply::Refused(errno, sentence),
        Outcome::Crashed => refused(Errno::EINVAL, "the domain has crashed"),
    }
}

/// What became of a call that was handed over, whose reply is a number.
///
/// # Errors
/// The error of a refusal.
pub fn became(outcome: Outcome) -> Result<(), Errno> {
    match outcome {
        Outcome::Refused(errno, _) | Outcome::Retry(errno) => Err(errno),
        Outcome::Crashed => Err(Errno::EINVAL),
        Outcome::Proceed | Outcome::Value(_) | Outcome::Wait(_) | Outcome::Skip | Outcome::Alone => Ok(()),
    }
}

/// Whether so many bytes at an offset are within a frame, and some.
///
/// # Errors
/// EINVAL with a sentence.
pub fn within(offset: u16, len: usize) -> Result<(), Refusal> {
    if len == 0 || usize::from(offset) + len > PAGE_SIZE {
        return Err((Errno::EINVAL, format!("{len} bytes at offset {offset} are not within a frame")));
    }
    Ok(())
}

/// The reply that was made, or the refusal.
pub fn reply(result: Result<Reply, Refusal>) -> Reply {
    result.unwrap_or_else(|(errno, sentence)| Reply::Refused(errno, sentence))
}

/// The reply to a call that finds nothing.
#[must_use]
pub fn done(result: Result<(), Refusal>) -> Reply {
    reply(result.map(|()| Reply::Done([0; 5])))
}

pub(crate) fn read_frame(domain: &mut impl Hypercalls, gfn: Gfn, offset: u16, len: u16) -> Reply {
    let mut bytes = vec![0; usize::from(len)];
    let read = within(offset, bytes.len()).and_then(|()| domain.read(gfn, offset, &mut bytes));
    reply(read.map(|()| Reply::Bytes(bytes)))
}

pub(crate) fn write_frame(domain: &mut impl Hypercalls, gfn: Gfn, offset: u16, bytes: &[u8]) -> Reply {
    done(within(offset, bytes.len()).and_then(|()| domain.write(gfn, offset, bytes)))
}

/// Registers of a vCPU, read or set.
pub fn about_registers(domain: &mut impl Hypercalls, call: Call) -> Reply {
    match call {
        Call::Registers { vcpu } => reply(domain.registers(vcpu).map(|context| Reply::Bytes(context.encode()))),
        Call::SetRegisters { vcpu, context } => match Context::decode(&context) {
            Some(context) => done(domain.set_registers(vcpu, &context)),
            None => refused(Errno::EINVAL, "these are no registers"),
        },
        other => refused(Errno::EINVAL, &format!("{other} is not about registers")),
    }
}
