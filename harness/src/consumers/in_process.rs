//! The consumers of this program, served by one thread: the pager, the listener, the out-of-memory helper.

use super::figures::Figures;
use super::helper;
use super::listener::Listener;
use super::looking::Looking;
use super::pager::Pager;
use crate::scenario::{MemoryAct, Rings, Role, Roles, Scenario};
use crate::toolstack::log::Log;
use anyhow::Context;
use mem_event::{CpuEventKind, Ring};
use mem_event_client::channel::{Channel, RingSettings};
use mem_event_client::socket::Client;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Those of this program's consumers that have joined.
#[derive(Debug)]
pub struct InProcess {
    socket: PathBuf,
    rings: Rings,
    settings: Roles,
    /// What is done when the guest's kernel is there, and the monitors that the scenario sets.
    later: Vec<MemoryAct>,
    monitors: Vec<CpuEventKind>,
    memory: u64,
    pager: Option<Pager>,
    listener: Option<Listener>,
    helper: Option<Channel>,
    /// What pagers did that are gone.
    earlier: Figures,
    /// The connections that consumers of this program made, by their numbers in the trace.
    connections: Vec<u32>,
    /// Rings whose consumers take nothing for now.
    held: Vec<Ring>,
    /// The listener has told enough, and that is known.
    has_enough: bool,
}

impl InProcess {
    /// None has joined yet; they have what the scenario says of them.
    #[must_use]
    pub fn new(socket: &Path, scenario: &Scenario) -> InProcess {
        InProcess {
            socket: socket.to_owned(),
            rings: scenario.rings.clone(),
            settings: scenario.consumers.clone(),
            later: scenario.later().cloned().collect(),
            monitors: scenario.monitors(),
            memory: scenario.machine.memory.0,
            pager: None,
            listener: None,
            helper: None,
            earlier: Figures::default(),
            connections: Vec::new(),
            held: Vec::new(),
            has_enough: false,
        }
    }

    /// What a ring is enabled with.
    #[must_use]
    pub fn ring(&self, ring: Ring) -> RingSettings {
        self.rings.of(ring).settings()
    }

    /// Closes the connection of a ring's consumer, as if its process were killed; returns when the engine knows.
    ///
    /// # Errors
    /// The plugin does not answer.
    pub fn part_with(&mut self, ring: Ring) -> anyhow::Result<()> {
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
            Ring::Paging => {
                self.earlier = self.paged();
                self.pager = None;
            }
            Ring::Sharing => self.helper = None,
        }
        // The plugin serves its clients in the order in which they came: a later one's first call comes after the end of this.
        Client::connect(&self.socket)?.info().map(drop)
    }

    /// A consumer of this program enables its ring, and serves it from now on.
    ///
    /// # Errors
    /// The plugin refuses the ring.
    pub fn join(&mut self, role: Role) -> anyhow::Result<()> {
        let settings = self.ring(role.ring());
        let socket = &self.socket;
        match role {
            Role::Listener => {
                let wanted = self.settings.listener.clone().unwrap_or_default();
                let looking = Looking::new(&wanted, self.later.clone(), self.monitors.clone());
                let listener = self.listener.insert(Listener::enable(socket, settings, &wanted, looking)?);
                self.connections.push(listener.channel().client.number());
            }
            Role::Pager => {
                let pager = self.settings.pager.clone().unwrap_or_default();
                let pager = self.pager.insert(Pager::enable(socket, settings, &pager, self.memory)?);
                self.connections.push(pager.client().number());
            }
            Role::Helper => {
                let helper = self.helper.insert(Channel::enable(socket, Ring::Sharing, settings)?);
                self.connections.push(helper.client.number());
            }
        }
        Ok(())
    }

    /// The listener, for what it does besides answering.
    pub fn listener(&mut self) -> Option<&mut Listener> {
        self.listener.as_mut()
    }

    /// Whether the listener has told as much as was wanted; once.
    #[must_use]
    pub fn comes_to_its_end(&mut self) -> bool {
        let has_enough = self.listener.as_ref().is_some_and(Listener::has_enough);
        !std::mem::replace(&mut self.has_enough, has_enough) && has_enough
    }

    /// The connections that consumers of this program have made, by their numbers in the trace.
    #[must_use]
    pub fn connections(&self) -> &[u32] {
        &self.connections
    }

    /// A consumer takes no request until [`InProcess::resume`].
    pub fn hold(&mut self, role: Role) {
        self.held.push(role.ring());
    }

    /// A consumer that was held goes on, with all that waits.
    ///
    /// # Errors
    /// As [`InProcess::serve`].
    pub fn resume(&mut self, role: Role, log: &mut Log<'_>) -> anyhow::Result<()> {
        self.held.retain(|held| *held != role.ring());
        self.serve(log).map(drop)
    }

    /// The pager, for what it does besides answering.
    pub fn pager(&mut self) -> Option<&mut Pager> {
        self.pager.as_mut()
    }

    /// Whether the ring's consumer is not held.
    fn goes_on(&self, ring: Ring) -> bool {
        !self.held.contains(&ring)
    }

    /// Whether a request waits on a ring: read from memory alone.
    #[must_use]
    pub fn is_pending(&mut self) -> bool {
        self.channels().any(|channel| channel.is_pending())
    }

    /// From now on the rings are polled: the engine need not signal.
    pub fn begin_polling(&mut self) {
        self.channels().for_each(Channel::begin_polling);
    }

    /// The rings are no longer polled; whether a request came meanwhile.
    #[must_use = "a request that came meanwhile may not be signalled"]
    pub fn end_polling(&mut self) -> bool {
        // Each of them, also after one where a request came.
        self.channels().filter_map(|channel| channel.end_polling().then_some(())).count() > 0
    }

    /// The rings of the consumers that are not held.
    fn channels(&mut self) -> impl Iterator<Item = &mut Channel> {
        let held = &self.held;
        let goes_on = |ring| !held.contains(&ring);
        let pager = self.pager.as_mut().filter(|_| goes_on(Ring::Paging)).map(Pager::channel);
        let listener = self.listener.as_mut().filter(|_| goes_on(Ring::Access)).map(Listener::channel);
        [pager, listener, self.helper.as_mut().filter(|_| goes_on(Ring::Sharing))].into_iter().flatten()
    }

    /// Serves every request that waits. Whether there was one.
    ///
    /// # Errors
    /// The connection ended, or a consumer cannot do its part.
    pub fn serve(&mut self, log: &mut Log<'_>) -> anyhow::Result<bool> {
        let mut busy = false;
        while self.goes_on(Ring::Paging)
            && let Some(request) = self.pager.as_mut().and_then(Pager::take)
        {
            busy = true;
            self.pager.as_mut().map(|pager| pager.serve(&request)).transpose()?;
        }
        while self.goes_on(Ring::Sharing)
            && let Some(request) = self.helper.as_mut().and_then(Channel::take)
        {
            busy = true;
            self.relieve(&request)?;
        }
        if self.goes_on(Ring::Access)
            && let Some(listener) = &mut self.listener
        {
            while let Some(request) = listener.take() {
                busy = true;
                log.failures.extend(listener.serve(&request, log.symbols)?);
            }
            listener.tick()?;
        }
        self.note(log);
        Ok(busy)
    }

    /// No frame was found: the helper raises the budget, or the pager evicts others; then it is answered.
    fn relieve(&mut self, request: &mem_event::Request) -> anyhow::Result<()> {
        let helper = self.helper.as_mut().context("no helper")?;
        match (&self.settings.helper, &mut self.pager) {
            (Some(settings), _) => {
                helper::raise(&mut helper.client, settings)?;
                helper.client.note(&format!("raise the budget by {} frames", settings.frames))?;
            }
            (None, Some(pager)) => {
                let evicted = request.frame().map_or(Ok(0), |gfn| pager.relieve(gfn))?;
                if evicted > 0 {
                    // By the pager, on another connection.
                    helper.client.note("evict others")?;
                }
            }
            (None, None) => {}
        }
        helper.answer(&request.answer());
        helper.kick()
    }

    /// What the pager has to say besides.
    fn note(&mut self, log: &mut Log<'_>) {
        if let Some(pager) = &mut self.pager {
            log.notes.append(&mut pager.notes);
            log.notes.extend(pager.faults.iter().cloned());
            log.failures.append(&mut pager.faults);
        }
    }

    /// Forgets the signals of those rings whose descriptors, in the order of [`InProcess::wait_for`], were readable; whether there was one.
    pub fn clear_signals(&mut self, readable: &[bool]) -> bool {
        let came = readable.iter().zip(self.wait_for()).any(|(readable, _)| *readable);
        let mut readable = readable.iter();
        if let Some(pager) = self.pager.as_mut().filter(|_| readable.next() == Some(&true)) {
            pager.clear_signal();
        }
        if let Some(listener) = self.listener.as_mut().filter(|_| readable.next() == Some(&true)) {
            listener.clear_signal();
        }
        if let Some(helper) = self.helper.as_mut().filter(|_| readable.next() == Some(&true)) {
            helper.clear_signal();
        }
        came
    }

    /// What the pager did, and those before it.
    #[must_use]
    pub fn paged(&self) -> Figures {
        self.pager.as_ref().map_or(self.earlier, |pager| self.earlier.and(pager.figures))
    }

    /// The descriptors that become readable when a request comes.
    pub fn wait_for(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let rings = [
            self.pager.as_ref().map(AsFd::as_fd),
            self.listener.as_ref().map(AsFd::as_fd),
            self.helper.as_ref().map(AsFd::as_fd),
        ];
        rings.into_iter().flatten()
    }

    /// The consumer of a ring, in words, where it is one of this program's.
    #[must_use]
    pub fn name(&self, ring: Ring) -> Option<String> {
        let is_here = match ring {
            Ring::Paging => self.pager.is_some(),
            Ring::Access => self.listener.is_some(),
            Ring::Sharing => self.helper.is_some(),
        };
        let held = if self.goes_on(ring) { "" } else { ", which is held" };
        is_here.then(|| format!("this program's {}{held}", Role::of(ring)))
    }

    /// Leaves a domain that goes on: what waits is answered, paged-out frames come back, the rings end. Whether the sharing ring,
    /// which only the toolstack can end, was served here.
    ///
    /// # Errors
    /// The connection ended.
    pub fn leave(mut self, log: &mut Log<'_>) -> anyhow::Result<bool> {
        self.serve(log)?;
        self.listener.take().map(Listener::finish).transpose()?;
        self.pager.take().map(Pager::finish).transpose()?;
        Ok(self.helper.is_some())
    }
}
