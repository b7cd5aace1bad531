//! The thread that keeps time: what is to be done when something has lasted for a while.
//!
//! The service thread sleeps without a timer while this one keeps time for it: where machines are virtual, to set a timer and to take it back costs some
//! ten microseconds each, which is more than all else that a touched page takes.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::leave::STAY;
use crate::qemu::leaving;
use crate::service::follow::Follow;
use crate::service::provoker::{self, Provoker};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When nothing has happened for so long the trace is written out, and what nothing needs any more is taken out.
const IDLE: Duration = Duration::from_millis(100);

/// The thread.
pub struct Clock {
    hypervisor: &'static Hypervisor,
    follow: Arc<Follow>,
    provoker: Provoker,
    /// When something was last seen to have happened.
    busy: Instant,
    /// When the trace was last written out.
    idle: Instant,
}

impl Clock {
    /// Starts it.
    ///
    /// # Errors
    /// The kernel has no more threads.
    pub fn start(hypervisor: &'static Hypervisor, follow: Arc<Follow>) -> std::io::Result<()> {
        let (now, provoker) = (Instant::now(), Provoker::default());
        let clock = Clock { hypervisor, follow, provoker, busy: now, idle: now };
        std::thread::Builder::new().name("mem-event-clock".to_owned()).spawn(|| clock.run()).map(drop)
    }

    fn run(mut self) {
        loop {
            self.sleep();
            if self.hypervisor.host.alarm.has_happened() {
                self.busy = Instant::now();
            } else if self.busy.elapsed() >= IDLE && self.idle.elapsed() >= IDLE {
                self.idles();
            }
            self.hypervisor.have_them_leave();
            // Again: one that was going to sleep at the moment has missed it, and while clients call all the time nothing is ever idle.
            self.hypervisor.have_them_go_on();
            self.provoker.round(self.hypervisor);
        }
    }

    fn sleep(&self) {
        let Clock { hypervisor, busy, .. } = *self;
        let is_stopping = || leaving::is_there() && hypervisor.host.anything_is_stopped();
        let provokes = || Provoker::has_work(hypervisor);
        if provokes() {
            std::thread::sleep(provoker::ROUND);
        } else if is_stopping() || leaving::is_there() && busy.elapsed() < IDLE {
            // A while after the last touch too: the next one need not wake this thread.
            std::thread::sleep(STAY);
        } else {
            hypervisor.host.alarm.sleep(IDLE, || is_stopping() || provokes());
        }
    }

    fn idles(&mut self) {
        self.idle = Instant::now();
        self.hypervisor.flush_trace();
        self.hypervisor.disarm();
        self.follow.lets_go();
    }
}
