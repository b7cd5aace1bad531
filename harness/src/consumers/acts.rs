//! What the toolstack does to consumers and rings while the guest runs: they leave, they join, rings end, vCPUs are waited for.

use super::Consumers;
use super::listener::Listener;
use super::pager::Pager;
use crate::scenario::amount::mebibytes;
use crate::scenario::{Act, Place, Role};
use crate::toolstack::done::{Done, operate};
use crate::toolstack::log::Log;
use anyhow::{Context, ensure};
use mem_event::message::Standing;
use mem_event::{Control, Gfn, Ring};
use mem_event_client::channel::{Channel, RingSettings};
use mem_event_client::socket::Client;
use std::time::{Duration, Instant};

/// How long what is waited for may take: only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks, where somebody else's turn must come first.
const RETRY: Duration = Duration::from_millis(1);

impl Consumers {
    /// Carries out what concerns the consumers as a whole; `None` for what does not.
    pub(super) fn act_on_consumers(&mut self, act: &Act, log: &mut Log<'_>) -> anyhow::Result<Option<Done>> {
        let text = match act {
            Act::PageOut { frames } => {
                let list: Vec<Gfn> = frames.frames(log.symbols)?.iter().collect();
                let pager = self.pager.as_mut().context("a page-out without a pager; add [consumers.pager]")?;
                let gone = pager.page_out(&list)?;
                format!("page out {gone} of {} frames of {frames}", list.len())
            }
            Act::Target { memory } => {
                let pager = self.pager.as_mut().context("a target without a pager; add [consumers.pager]")?;
                pager.hold_to(memory.0)?;
                format!("hold to {}", mebibytes(memory.0))
            }
            Act::Map { frames } => {
                self.map(frames, log)?;
                format!("map {frames}")
            }
            Act::Enable { ring, refused } => {
                let ring = ring.0;
                let RingSettings { layout, slots } = self.scenario.rings.of(ring).settings();
                let enable = Control::Enable { ring, layout, slots };
                let due = refused.map(|errno| errno.0);
                return operate(&mut self.toolstack, enable, due, &format!("enable {ring}")).map(Some);
            }
            Act::Disable { ring, drain, refused } => {
                let ring = ring.0;
                let how = if *drain { ", draining" } else { "" };
                let disable = Control::Disable { ring, drain: *drain };
                let done = operate(
                    &mut self.toolstack,
                    disable,
                    refused.map(|errno| errno.0),
                    &format!("disable {ring}{how}"),
                )?;
                if done.failure.is_none() && refused.is_none() && !drain {
                    self.drop_consumer(ring)?;
                }
                return Ok(Some(done));
            }
            Act::Kill { consumer } => {
                self.drop_consumer(consumer.ring())?;
                format!("kill the {consumer}")
            }
            Act::Join { consumer } => {
                self.join(*consumer)?;
                format!("the {consumer} joins")
            }
            Act::Hold { consumer } => {
                self.held.push(consumer.ring());
                format!("hold the {consumer}")
            }
            Act::Resume { consumer } => {
                self.held.retain(|held| *held != consumer.ring());
                self.serve(log)?;
                format!("the {consumer} goes on")
            }
            Act::ExpectEvents { ring, count } => {
                let seen = log.counts.of(ring.0);
                let failure = (seen != *count).then(|| format!("{seen} events of {} where {count} are due", ring.0));
                return Ok(Some(Done { text: format!("see {seen} events of {}", ring.0), failure }));
            }
            Act::WaitUntil { vcpus, wait_for } => {
                let text = format!("{vcpus} vCPUs wait for {}", wait_for.name());
                let failure = self.wait_until(*vcpus, wait_for.0)?;
                return Ok(Some(Done { text, failure }));
            }
            _ => return Ok(None),
        };
        Ok(Some(Done { text, failure: None }))
    }

    /// Closes the connection of a ring's consumer, and returns when the engine knows.
    fn drop_consumer(&mut self, ring: Ring) -> anyhow::Result<()> {
        let leaving = match ring {
            Ring::Access => self.listener.as_mut().map(Listener::channel),
            Ring::Paging => self.pager.as_mut().map(Pager::channel),
            Ring::Sharing => self.helper.as_mut(),
        };
        // Not by closing alone: other threads start other scenarios' programs, and each holds all descriptors until its exec.
        if let Some(channel) = leaving {
            channel.client.hang_up();
        }
        match ring {
            Ring::Access => self.listener = None,
            Ring::Paging => self.pager = None,
            Ring::Sharing => self.helper = None,
        }
        // The plugin serves its clients in the order in which they came: a later one's first call comes after the end of this.
        Client::connect(&self.socket)?.info().map(drop)
    }

    /// A consumer of this program enables its ring, and serves it from now on.
    pub(super) fn join(&mut self, role: Role) -> anyhow::Result<()> {
        let settings = self.scenario.rings.of(role.ring()).settings();
        let socket = &self.socket;
        match role {
            Role::Listener => {
                let rules = self.scenario.consumers.listener.as_ref().map(|it| it.rules.clone()).unwrap_or_default();
                self.listener = Some(Listener::enable(socket, settings, &rules)?);
            }
            Role::Pager => {
                let pager = self.scenario.consumers.pager.clone().unwrap_or_default();
                self.pager = Some(Pager::enable(socket, settings, &pager, self.scenario.machine.memory.0)?);
            }
            Role::Helper => self.helper = Some(Channel::enable(socket, Ring::Sharing, settings)?),
        }
        Ok(())
    }

    /// Waits until so many vCPUs wait for something, without serving any ring; what is wrong if they do not.
    fn wait_until(&mut self, vcpus: usize, wanted: Standing) -> anyhow::Result<Option<String>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let waiting = self.toolstack.vcpus()?.iter().filter(|report| report.standing == wanted).count();
            if waiting >= vcpus {
                return Ok(None);
            }
            if Instant::now() > until {
                return Ok(Some(format!("{waiting} vCPUs wait where {vcpus} are due, after {PATIENCE:?}")));
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Foreign mappings begin. What is paged out comes back first: its pager is served by this very thread, or by its own.
    fn map(&mut self, frames: &Place, log: &mut Log<'_>) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        for gfn in frames.frames(log.symbols)?.iter() {
            while !self.toolstack.pin(gfn)? {
                if !self.serve(log)? {
                    std::thread::sleep(RETRY);
                }
                ensure!(
                    Instant::now() < until,
                    "frame {gfn} is not paged in within {PATIENCE:?}, so it cannot be mapped"
                );
            }
        }
        Ok(())
    }
}
