//! What becomes of an outcome: the reply that a client gets.

use crate::hypercalls::{Hypercalls, Refusal};
use mem_event::message::Reply;
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

fn within(offset: u16, len: usize) -> Result<(), Refusal> {
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
