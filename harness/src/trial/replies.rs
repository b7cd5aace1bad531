//! What a recording holds of the replies to a consumer's calls, for those calls that the engine does not know of.

use mem_event::message::{Call, Reply};
use mem_event::trace::remark::{Answer, Asked};
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
}
