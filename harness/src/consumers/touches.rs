//! Which pages a guest touches: all of its memory without rights, so that the first touch of each kind is an event, which gives that right; and
//! all rights taken back when a window of time has passed.

use crate::scenario::Touching;
use crate::scenario::range::Frames;
use crate::toolstack::memory;
use mem_event::{AccessType, Control, Event, Gfn, Gpa, Request, Rights};
use mem_event_client::{Channel, Client};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// What a listener does who finds it out.
#[derive(Debug)]
pub struct Touches {
    window: Duration,
    entry: Option<Gpa>,
    ram: Vec<Frames>,
    /// What was given in this window.
    given: HashMap<Gfn, Rights>,
    /// When this window began; none before the guest's entry.
    since: Option<Instant>,
}

impl Touches {
    /// As it is wanted; nothing is done yet.
    #[must_use]
    pub fn new(wanted: &Touching) -> Touches {
        let Touching { window, entry } = *wanted;
        Touches { window, entry, ram: Vec::new(), given: HashMap::new(), since: None }
    }

    /// The guest is about to start, or runs already: then, and where nobody knows its entry, all that it does counts from now on.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn begin(&mut self, is_running: bool, client: &mut Client) -> anyhow::Result<()> {
        self.ram = memory::ram(client)?;
        match self.entry.filter(|_| !is_running) {
            // Firmware executes nothing there.
            Some(entry) => client.set_access(entry.gfn(), AccessType::Rw),
            None => self.take_back(client),
        }
    }

    /// Hears of an event before anybody else does; whether it is a touch.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn hears(&mut self, request: &Request, channel: &mut Channel) -> anyhow::Result<bool> {
        let Event::Violation { gfn, rights, .. } = request.event else { return Ok(false) };
        if self.since.is_none() {
            // The entry, which is fetched anew, and then is a touch.
            return self.take_back(&mut channel.client).map(|()| true);
        }
        let given = self.given.entry(gfn).or_default();
        *given = given.union(rights);
        if given.contains(Rights::W) {
            // No mapping of the host's can say that a page may be written and not read.
            *given = given.union(Rights::R);
        }
        channel.set_access(gfn, AccessType::N.with(*given))?;
        Ok(true)
    }

    /// A moment has passed, and perhaps the window.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn tick(&mut self, client: &mut Client) -> anyhow::Result<()> {
        let Some(since) = self.since.filter(|since| since.elapsed() >= self.window) else { return Ok(()) };
        if self.given.is_empty() {
            self.since = Some(since + self.window);
            return Ok(());
        }
        self.take_back(client)
    }

    fn take_back(&mut self, client: &mut Client) -> anyhow::Result<()> {
        // Before the rights: a vCPU may be through its first touch when this returns.
        self.since = Some(Instant::now());
        self.given.clear();
        self.set(AccessType::N, client)
    }

    /// The guest has its memory back.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn end(&mut self, client: &mut Client) -> anyhow::Result<()> {
        self.set(AccessType::Rwx, client)
    }

    fn set(&self, access: AccessType, client: &mut Client) -> anyhow::Result<()> {
        let control = |Frames { first, count }| Control::SetAccess { first, count, access };
        self.ram.iter().try_for_each(|frames| memory::set_access(client, *frames, control))
    }
}
