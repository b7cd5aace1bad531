//! What becomes of an outcome: the reply that a client gets.

use crate::hypercalls::{Hypercalls, Refusal};
use mem_event::message::{Call, Reply};
use mem_event::registers::Context;
use mem_event::{Errno, Gfn, Outcome, PAGE_SIZE};

pub fn refused(errno: Errno, sentence: &str) -> Reply {
    Reply::Refused(errno, sentence.to_owned())
}

pub fn outcome(outcome: Outcome) -> Reply {
    match outcome {
        Outcome::Proceed | Outcome::Wait(_) => Reply::Done([0; 5]),
        Outcome::Value(value) => Reply::Done([value, 0, 0, 0, 0]),
        Outcome::Retry(errno) => refused(errno, "busy; try again"),
        Outcome::Refused(errno, sentence) => Reply::Refused(errno, sentence),
        Outcome::Crashed => refused(Errno::EINVAL, "the domain has crashed"),
    }
}

pub fn within(offset: u16, len: usize) -> Result<(), Refusal> {
    if len == 0 || usize::from(offset) + len > PAGE_SIZE {
        return Err((Errno::EINVAL, format!("{len} bytes at offset {offset} are not within a frame")));
    }
    Ok(())
}

pub fn read_frame(domain: &mut impl Hypercalls, gfn: Gfn, offset: u16, len: u16) -> Reply {
    let mut bytes = vec![0; usize::from(len)];
    match within(offset, bytes.len()).and_then(|()| domain.read(gfn, offset, &mut bytes)) {
        Ok(()) => Reply::Bytes(bytes),
        Err((errno, sentence)) => Reply::Refused(errno, sentence),
    }
}

pub fn write_frame(domain: &mut impl Hypercalls, gfn: Gfn, offset: u16, bytes: &[u8]) -> Reply {
    match within(offset, bytes.len()).and_then(|()| domain.write(gfn, offset, bytes)) {
        Ok(()) => Reply::Done([0; 5]),
        Err((errno, sentence)) => Reply::Refused(errno, sentence),
    }
}

/// The reply to a call that finds nothing.
pub fn done(result: Result<(), Refusal>) -> Reply {
    match result {
        Ok(()) => Reply::Done([0; 5]),
        Err((errno, sentence)) => Reply::Refused(errno, sentence),
    }
}

/// Registers of a vCPU, read or set.
pub fn about_registers(domain: &mut impl Hypercalls, call: Call) -> Reply {
    match call {
        Call::Registers { vcpu } => match domain.registers(vcpu) {
            Ok(context) => Reply::Bytes(context.encode()),
            Err((errno, sentence)) => Reply::Refused(errno, sentence),
        },
        Call::SetRegisters { vcpu, context } => match Context::decode(&context) {
            Some(context) => done(domain.set_registers(vcpu, &context)),
            None => refused(Errno::EINVAL, "these are no registers"),
        },
        other => refused(Errno::EINVAL, &format!("{other} is not about registers")),
    }
}
