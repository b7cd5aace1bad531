//! Calls about linear addresses: where they lead, and the bytes there.

use crate::answer::{done, refused, reply, within};
use crate::hypercalls::{Hypercalls, Refusal};
use mem_event::message::{Call, Reply, Space};
use mem_event::{Errno, Gla, Gpa, PAGE_SIZE};

/// The reply to a call about a linear address.
pub fn answer(domain: &mut impl Hypercalls, call: Call) -> Reply {
    match call {
        Call::Translate { vcpu, cr3, address } => translate(domain, Space { vcpu, cr3 }, address),
        Call::ReadLinear { vcpu, cr3, address, len } => read_linear(domain, (Space { vcpu, cr3 }, address), len),
        Call::WriteLinear { vcpu, cr3, address, bytes } => write_linear(domain, (Space { vcpu, cr3 }, address), &bytes),
        other => refused(Errno::EINVAL, &format!("{other} is about no linear address")),
    }
}

fn translate(domain: &mut impl Hypercalls, space: Space, address: Gla) -> Reply {
    let found = domain.translate(space, address);
    reply(found.map(|gpa| Reply::Done([gpa.gfn().0, gpa.offset().into(), 0, 0, 0])))
}

fn read_linear(domain: &mut impl Hypercalls, (space, address): (Space, Gla), len: u16) -> Reply {
    let mut bytes = vec![0; usize::from(len)];
    let read = within(0, bytes.len()).and_then(|()| {
        let mut rest = &mut bytes[..];
        for (gpa, length) in frames(domain, (space, address), rest.len())? {
            let (part, behind) = rest.split_at_mut(length);
            domain.read(gpa.gfn(), gpa.offset(), part)?;
            rest = behind;
        }
        Ok(())
    });
    reply(read.map(|()| Reply::Bytes(bytes)))
}

/// All or none: what can be refused of the second frame is asked before the first is written.
fn write_linear(domain: &mut impl Hypercalls, (space, address): (Space, Gla), bytes: &[u8]) -> Reply {
    done(within(0, bytes.len()).and_then(|()| {
        let parts = frames(domain, (space, address), bytes.len())?;
        for (gpa, _) in &parts {
            domain.read(gpa.gfn(), gpa.offset(), &mut [0])?;
        }
        let mut rest = bytes;
        for (gpa, length) in parts {
            let (part, behind) = rest.split_at(length);
            domain.write(gpa.gfn(), gpa.offset(), part)?;
            rest = behind;
        }
        Ok(())
    }))
}

/// Where so many bytes lie, at most a frame's, and how many of them there.
fn frames(
    domain: &mut impl Hypercalls,
    (space, address): (Space, Gla),
    length: usize,
) -> Result<Vec<(Gpa, usize)>, Refusal> {
    let first = domain.translate(space, address)?;
    let on_first = length.min(PAGE_SIZE - usize::from(first.offset()));
    let mut parts = vec![(first, on_first)];
    if on_first < length {
        parts.push((domain.translate(space, Gla(address.0.wrapping_add(on_first as u64)))?, length - on_first));
    }
    Ok(parts)
}
