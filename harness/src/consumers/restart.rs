//! A ring's consumer killed and started anew: a fault that was asked for.

use super::Consumers;
use super::external::Running;
use crate::scenario::{Role, Scenario};
use crate::toolstack::log::Log;
use anyhow::ensure;
use mem_event::Ring;
use mem_event::message::{RingReport, RingState};
use std::time::{Duration, Instant};

/// How long the plugin may take to see the end of a process: only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two polls.
const RETRY: Duration = Duration::from_millis(1);

impl Consumers {
    /// Kills a ring's consumer, in the middle of whatever it does, and starts another in its place.
    ///
    /// # Errors
    /// The plugin does not answer, or the successor does not come to serve.
    pub(super) fn restart(&mut self, ring: Ring, scenario: &Scenario, log: &mut Log<'_>) -> anyhow::Result<()> {
        if self.in_process.name(ring).is_some() {
            self.in_process.part_with(ring)?;
            self.in_process.join(Role::of(ring))?;
            if ring == Ring::Paging {
                self.hold_to_target(scenario)?;
            }
            return self.in_process.serve(log).map(drop);
        }
        let Some(at) = self.external.iter().position(|one| one.has(ring)) else { return Ok(()) };
        self.external[at].kill();
        let rings: Vec<Ring> = Ring::ALL.into_iter().filter(|ring| self.external[at].has(*ring)).collect();
        self.wait_until_lost(&rings)?;
        let external = &self.started[at];
        let started =
            Running::start(&self.socket, external, scenario, self.guest.as_deref()).and_then(|mut running| {
                running.wait_until_ready(Instant::now() + scenario.deadline.0)?;
                Ok(running)
            });
        match started {
            Ok(running) => self.external[at] = running,
            // The domain may have ended meanwhile; then that is what is wrong.
            Err(error) => return Err(self.toolstack.info().err().unwrap_or(error)),
        }
        // What its predecessor was ordered died with that.
        if rings.contains(&Ring::Paging) { self.hold_to_target(scenario) } else { Ok(()) }
    }

    /// Waits until the plugin has seen the end of the process that held these rings, and done what that had asked for.
    fn wait_until_lost(&mut self, rings: &[Ring]) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let reports = self.toolstack.rings()?;
            let is_held = |report: &&RingReport| rings.contains(&report.ring) && report.state == RingState::Live;
            let Some(held) = reports.iter().find(is_held) else { return Ok(()) };
            ensure!(Instant::now() < until, "the {} ring is still held by a consumer that was killed", held.ring);
            std::thread::sleep(RETRY);
        }
    }
}
