//! When a pager dies, for tests of what outlives it.

use crate::scenario::settings::{PagerSettings, PagerStep};
use rustix::process::{Signal, getpid, kill_process};

/// How often a step of the protocol is still to be reached before the process kills itself there.
#[derive(Clone, Copy, Debug)]
pub struct Countdown(Option<(PagerStep, u64)>);

impl Countdown {
    /// As the settings say.
    #[must_use]
    pub fn new(settings: &PagerSettings) -> Countdown {
        Countdown(settings.dies.map(|at| (at, settings.dies_after)))
    }

    /// A step is done; the one at which the pager is to die is its last.
    ///
    /// # Errors
    /// The kernel does not kill.
    pub fn reached(&mut self, step: PagerStep) -> anyhow::Result<()> {
        let Some((_, left)) = self.0.as_mut().filter(|(at, _)| *at == step) else { return Ok(()) };
        *left = left.saturating_sub(1);
        if *left == 0 {
            println!("pager: dies when {step:?}");
            kill_process(getpid(), Signal::KILL)?;
        }
        Ok(())
    }
}
