//! What a recording holds of the replies to a consumer's calls, for those calls that the engine does not know of.

use mem_event::message::{Call, Reply, Space};
use mem_event::registers::Context;
use mem_event::trace::remark::{Answer, Asked};
use mem_event::{Errno, Gla, Gpa, VcpuId};
use mem_event_server::hypercalls::Refusal;
use std::collections::{HashMap, VecDeque};

/// Recorded replies by what was asked, in their order.
#[derive(Clone, Debug, Default)]
pub struct Replies(HashMap<(u16, Vec<u64>), VecDeque<Reply>>);

impl Replies {
    /// A call and what it was answered, as far as that was kept.
    pub fn add(&mut self, call: &Asked, answer: &Answer) {
        let reply = match answer {
            Answer::Done(values) => {
                let mut all = [0; 5];
                all.iter_mut().zip(values).for_each(|(place, value)| *place = *value);
                Reply::Done(all)
            }
            Answer::Bytes(payload) => match &payload.bytes {
                Some(bytes) => Reply::Bytes(bytes.clone()),
                None => return,
            },
            Answer::Refused(errno, why) => Reply::Refused(*errno, why.clone()),
        };
        self.0.entry((call.operation, call.arguments.clone())).or_default().push_back(reply);
    }

    /// The next reply to this call; the last one comes again and again.
    pub fn next(&mut self, call: &Call) -> Option<Reply> {
        let Asked { operation, arguments, .. } = Asked::of(call);
        let replies = self.0.get_mut(&(operation, arguments))?;
        if replies.len() > 1 { replies.pop_front() } else { replies.front().cloned() }
    }

    /// The registers that the recorded consumer was told.
    ///
    /// # Errors
    /// EOPNOTSUPP: it did not ask.
    pub fn registers(&mut self, vcpu: VcpuId) -> Result<Context, Refusal> {
        let recorded = match self.next(&Call::Registers { vcpu }) {
            Some(Reply::Bytes(bytes)) => Context::decode(&bytes),
            _ => None,
        };
        recorded.ok_or_else(|| (Errno::EOPNOTSUPP, "the recording does not hold these registers".to_owned()))
    }

    /// Where the recorded consumer was told that an address leads.
    ///
    /// # Errors
    /// What it was refused with; EOPNOTSUPP: it did not ask.
    pub fn translation(&mut self, Space { vcpu, cr3 }: Space, address: Gla) -> Result<Gpa, Refusal> {
        match self.next(&Call::Translate { vcpu, cr3, address }) {
            Some(Reply::Done([gfn, offset, ..])) => Ok(Gpa(gfn << 12 | offset & 0xfff)),
            Some(Reply::Refused(errno, why)) => Err((errno, why)),
            _ => Err((Errno::EOPNOTSUPP, format!("the recording does not hold where {address} leads"))),
        }
    }
}
