//! Whose breakpoint is where: bytes that clients have put `int3` over, and what is there without it.
//!
//! Memory alone does not tell: a byte 0xCC may be the guest's own, one client's or several's. So the call that puts it there says whose it is. A byte
//! comes back when the last one whose it is has cleared it, or has ended.

use crate::answer::{outcome, refused, reply};
use crate::hypercalls::{Hypercalls, Refusal};
use mem_event::message::{BreakpointReport, Call, Reply};
use mem_event::{Control, Errno, Gpa, Outcome, PAGE_SIZE};
use std::collections::BTreeMap;

/// The instruction `int3`.
const INT3: u8 = 0xcc;
/// Breakpoints of one connection.
const MOST: usize = 1 << 16;

/// All breakpoints of a domain's clients.
#[derive(Debug, Default)]
pub struct Breakpoints(BTreeMap<Gpa, Byte>);

/// A byte that somebody has put a breakpoint over.
#[derive(Debug)]
struct Byte {
    /// What is there without it.
    beneath: u8,
    owners: Vec<Owner>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    /// None: it has ended, and left its breakpoint.
    connection: Option<u32>,
    stays: bool,
}

impl Breakpoints {
    /// The reply to a connection's call about breakpoints.
    pub fn answer(&mut self, domain: &mut impl Hypercalls, connection: u32, call: &Call) -> Reply {
        match *call {
            Call::SetBreakpoint { offset, .. } | Call::ClearBreakpoint { offset, .. }
                if usize::from(offset) >= PAGE_SIZE =>
            {
                refused(Errno::EINVAL, &format!("offset {offset} is not within a frame"))
            }
            Call::SetBreakpoint { gfn, offset, stays } => {
                self.set(domain, (connection, stays), Gpa(gfn.gpa().0 | u64::from(offset)))
            }
            Call::ClearBreakpoint { gfn, offset } => {
                self.clear(domain, connection, Gpa(gfn.gpa().0 | u64::from(offset)))
            }
            Call::Breakpoints { first } => Reply::Bytes(self.report(connection, first)),
            ref other => refused(Errno::EINVAL, &format!("{other} is about no breakpoint")),
        }
    }

    fn set(&mut self, domain: &mut impl Hypercalls, (connection, stays): (u32, bool), gpa: Gpa) -> Reply {
        let is_own = |owner: &Owner| owner.connection == Some(connection);
        let has = self.0.get(&gpa).is_some_and(|byte| byte.owners.iter().any(is_own));
        if !has {
            if self.0.values().filter(|byte| byte.owners.iter().any(is_own)).count() >= MOST {
                return refused(Errno::EBUSY, &format!("this connection has {MOST} breakpoints; clear some"));
            }
            // It stays where it is, lest the pager have the byte when it is to be taken back.
            match domain.control(connection, Control::Pin { gfn: gpa.gfn() }, None) {
                Outcome::Proceed => {}
                Outcome::Retry(_) => return refused(Errno::ENOENT, "the frame is on its way; call again"),
                other => return outcome(other),
            }
        }
        let put = self.put_over(domain, gpa).map(|beneath| {
            let byte = self.0.entry(gpa).or_insert(Byte { beneath, owners: Vec::new() });
            byte.beneath = beneath;
            byte.owners.retain(|owner| !is_own(owner));
            let others = byte.owners.len() as u64;
            byte.owners.push(Owner { connection: Some(connection), stays });
            Reply::Done([u64::from(beneath), others, domain.over_breakpoints().number(), 0, 0])
        });
        if put.is_err() && !has {
            unpin(domain, connection, gpa);
        }
        reply(put)
    }

    /// Puts the breakpoint over the byte; what is beneath.
    fn put_over(&self, domain: &mut impl Hypercalls, gpa: Gpa) -> Result<u8, Refusal> {
        let found = read(domain, gpa)?;
        match self.0.get(&gpa) {
            Some(byte) if found == INT3 => Ok(byte.beneath),
            // Nobody's: one of the guest's own is beneath itself. What the guest has written there since is what is beneath.
            _ => write(domain, gpa, INT3).map(|()| found),
        }
    }

    fn clear(&mut self, domain: &mut impl Hypercalls, connection: u32, gpa: Gpa) -> Reply {
        let owners = self.0.get(&gpa).map_or(&[][..], |byte| &byte.owners);
        let of = |owner: Option<u32>| owners.iter().position(|it| it.connection == owner);
        let Some(at) = of(Some(connection)).or_else(|| of(None)) else {
            return refused(Errno::EINVAL, &format!("this connection has no breakpoint at {gpa}"));
        };
        reply(self.remove(domain, connection, (gpa, at)).map(|left| Reply::Done([left, 0, 0, 0, 0])))
    }

    /// One of a byte's owners has no breakpoint there any more; how many others have.
    fn remove(
        &mut self,
        domain: &mut impl Hypercalls,
        connection: u32,
        (gpa, at): (Gpa, usize),
    ) -> Result<u64, Refusal> {
        let Some(byte) = self.0.get_mut(&gpa) else { return Ok(0) };
        let owner = byte.owners.remove(at);
        let (beneath, left) = (byte.beneath, byte.owners.len() as u64);
        if left == 0 {
            self.0.remove(&gpa);
        }
        // What the guest has written there meanwhile stays. Who stepped over it, and does not put it back, has taken it from the others.
        let (is, becomes) = if left == 0 { (INT3, beneath) } else { (beneath, INT3) };
        let changed = read(domain, gpa).and_then(|found| {
            let changes = found == is && is != becomes;
            if changes { write(domain, gpa, becomes) } else { Ok(()) }
        });
        if owner.connection.is_some() {
            unpin(domain, connection, gpa);
        }
        changed.map(|()| left)
    }

    /// A connection is gone: its bytes are as they were, but for those that were to stay.
    pub fn end(&mut self, domain: &mut impl Hypercalls, connection: u32) {
        let owned = |byte: &Byte| byte.owners.iter().position(|owner| owner.connection == Some(connection));
        let all: Vec<(Gpa, usize)> = self.0.iter().filter_map(|(gpa, byte)| Some((*gpa, owned(byte)?))).collect();
        for (gpa, at) in all {
            if let Some(owner) = self.0.get_mut(&gpa).map(|byte| &mut byte.owners[at])
                && owner.stays
            {
                owner.connection = None;
                unpin(domain, connection, gpa);
                continue;
            }
            let call = Call::ClearBreakpoint { gfn: gpa.gfn(), offset: gpa.offset() };
            let done = reply(self.remove(domain, connection, (gpa, at)).map(|left| Reply::Done([left, 0, 0, 0, 0])));
            domain.called(connection, &call, &done);
        }
    }

    /// Those from this address on, as far as one reply has room: of an address all or none.
    fn report(&self, connection: u32, first: Gpa) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (gpa, byte) in self.0.range(first..) {
            if (bytes.len() / BreakpointReport::BYTES) + byte.owners.len() > BreakpointReport::MOST {
                break;
            }
            for owner in &byte.owners {
                let report = BreakpointReport {
                    gpa: *gpa,
                    connection: owner.connection,
                    beneath: byte.beneath,
                    stays: owner.stays,
                    is_own: owner.connection == Some(connection),
                };
                bytes.extend(report.encode());
            }
        }
        bytes
    }
}

fn read(domain: &mut impl Hypercalls, gpa: Gpa) -> Result<u8, Refusal> {
    let mut byte = [0];
    domain.read(gpa.gfn(), gpa.offset(), &mut byte).map(|()| byte[0])
}

fn write(domain: &mut impl Hypercalls, gpa: Gpa, byte: u8) -> Result<(), Refusal> {
    domain.write(gpa.gfn(), gpa.offset(), &[byte])
}

fn unpin(domain: &mut impl Hypercalls, connection: u32, gpa: Gpa) {
    // It was pinned when the breakpoint was set.
    let _ = domain.control(connection, Control::Unpin { gfn: gpa.gfn() }, None);
}
