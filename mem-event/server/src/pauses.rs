//! How often a connection has paused the domain.

use crate::answer;
use crate::hypercalls::Hypercalls;
use mem_event::Errno;
use mem_event::message::{Call, Reply};

/// The pauses of a connection that it has not taken back.
#[derive(Debug, Default)]
pub struct Pauses(u32);

impl Pauses {
    /// One more, or one less.
    pub fn answer(&mut self, domain: &mut impl Hypercalls, call: &Call) -> Reply {
        if *call == Call::Pause { self.pause(domain) } else { self.unpause(domain) }
    }

    fn pause(&mut self, domain: &mut impl Hypercalls) -> Reply {
        let paused = domain.pause();
        self.0 += u32::from(paused.is_ok());
        answer::done(paused)
    }

    fn unpause(&mut self, domain: &mut impl Hypercalls) -> Reply {
        let Some(left) = self.0.checked_sub(1) else {
            return answer::refused(Errno::EINVAL, "this connection has not paused the domain");
        };
        self.0 = left;
        domain.unpause();
        Reply::Done([0; 5])
    }

    /// The connection is gone, and all of its pauses with it.
    pub fn end(&mut self, domain: &mut impl Hypercalls) {
        for _ in 0..std::mem::take(&mut self.0) {
            domain.unpause();
        }
    }
}
