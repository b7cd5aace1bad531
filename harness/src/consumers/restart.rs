//! Consumers killed, started anew, held and let go on: faults that were asked for, and acts to processes of their own.

use super::Consumers;
use super::external::Running;
use crate::scenario::{Act, ConsumerAct, Role, Scenario};
use crate::toolstack::done::Done;
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
        let Some(at) = self.process_of(ring) else { return Ok(()) };
        self.kill(at)?;
        self.start_again(at, scenario)
    }

    /// Kills, brings back, holds or lets go on a consumer that is a process of its own, and says so; nothing for another act, or where
    /// the consumer is one of this program.
    ///
    /// # Errors
    /// As [`Consumers::restart`].
    pub(super) fn act_on_process(&mut self, act: &Act, scenario: &Scenario) -> anyhow::Result<Option<Done>> {
        let Some((role, at)) = act.consumer().and_then(|role| Some((role, self.process_of(role.ring())?))) else {
            return Ok(None);
        };
        let text = match act {
            Act::Consumer(ConsumerAct::Kill { .. }) => {
                self.kill(at)?;
                format!("kill the {role}")
            }
            Act::Consumer(ConsumerAct::Join { .. }) => {
                self.start_again(at, scenario)?;
                format!("the {role} joins")
            }
            Act::Consumer(ConsumerAct::Hold { .. }) => {
                self.external[at].hold()?;
                format!("hold the {role}")
            }
            Act::Consumer(ConsumerAct::Resume { .. }) => {
                self.external[at].resume();
                format!("the {role} goes on")
            }
            _ => return Ok(None),
        };
        Ok(Some(Done { text, failure: None }))
    }

    /// The process of its own that serves a ring.
    fn process_of(&self, ring: Ring) -> Option<usize> {
        self.external.iter().position(|one| one.has(ring))
    }

    /// Ends a process, in the middle of whatever it does, and waits until the plugin has seen that.
    fn kill(&mut self, at: usize) -> anyhow::Result<()> {
        self.external[at].kill();
        let rings: Vec<Ring> = Ring::ALL.into_iter().filter(|ring| self.external[at].has(*ring)).collect();
        self.wait_until_lost(&rings)
    }

    /// Starts a process in place of one that has ended.
    fn start_again(&mut self, at: usize, scenario: &Scenario) -> anyhow::Result<()> {
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
        if self.external[at].has(Ring::Paging) { self.hold_to_target(scenario) } else { Ok(()) }
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
