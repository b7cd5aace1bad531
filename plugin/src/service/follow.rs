//! The service thread follows the vCPU that it serves from core to core.
//!
//! A vCPU that stopped in the kernel sleeps while the service and the consumer work for it. If the service sits on another core, that
//! core may have to be woken for each touch, and the vCPU's core for each answer, which costs more than all the work between
//! (in a virtual machine 30 µs each); on one core both are a mere switch. The scheduler sees an idle core and prefers it. So
//! while one vCPU alone touches pages, the service stays where it is; as soon as another thread does, or none, it goes where the
//! scheduler likes.

use crate::host::thread::core_of;
use rustix::thread::{CpuSet, Pid, gettid, sched_getaffinity, sched_setaffinity};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Touches of one vCPU in a row, after each of which its core is asked for: that costs as much as a touch.
const ROW: u32 = 32;

/// The vCPU that a thread follows.
#[derive(Debug)]
pub struct Follow {
    /// Who.
    thread: Pid,
    /// Where it may run; nothing where that cannot be asked, or is one core.
    home: Option<CpuSet>,
    followed: Mutex<Followed>,
}

#[derive(Debug, Default)]
struct Followed {
    /// The core that it stays on.
    core: Option<usize>,
    /// The thread of the vCPU that stopped last.
    last: Option<i32>,
    row: u32,
}

impl Follow {
    /// None yet; to be called by the thread that is to follow.
    pub fn none() -> Follow {
        let home = sched_getaffinity(None).ok().filter(|cores| cores.count() > 1);
        Follow { thread: gettid(), home, followed: Mutex::default() }
    }

    /// A thread stopped in the kernel: a vCPU's, or nothing for any other.
    pub fn stopped(&self, thread: Option<i32>) {
        let mut followed = self.followed();
        let Some(thread) = thread else { return self.let_go(&mut followed) };
        if followed.last != Some(thread) {
            self.let_go(&mut followed);
            followed.last = Some(thread);
        }
        followed.row += 1;
        if followed.row.is_multiple_of(ROW)
            && self.home.is_some()
            && let Some(core) = core_of(thread)
            && followed.core != Some(core)
        {
            let mut there = CpuSet::new();
            there.set(core);
            followed.core = sched_setaffinity(Some(self.thread), &there).is_ok().then_some(core);
        }
    }

    /// No vCPU is followed any more.
    pub fn lets_go(&self) {
        self.let_go(&mut self.followed());
    }

    fn let_go(&self, followed: &mut Followed) {
        if let (Some(home), Some(_)) = (&self.home, followed.core) {
            // Refused only where the cores are no longer this process's: then the kernel has put the thread elsewhere already.
            let _ = sched_setaffinity(Some(self.thread), home);
        }
        *followed = Followed::default();
    }

    fn followed(&self) -> MutexGuard<'_, Followed> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
