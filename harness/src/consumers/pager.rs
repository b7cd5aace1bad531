//! The pager: brings frames back when they are asked for, and evicts others to hold the guest to a target.
//!
//! All requests are answered first; frames are evicted in batches, when the engine says that the budget is used up. Which ones is
//! the policy's affair. A page file that is full ends the target, not the guest; a frame that cannot be read leaves its vCPU stopped.

use super::calls;
use super::countdown::Countdown;
use super::ending;
use super::figures::Figures;
use super::loads::Loads;
use super::pagefile::PageFile;
use super::policy::{Chooser, Ram};
use super::resident::Resident;
use super::room::Room;
use crate::scenario::settings::{PagerSettings, PagerStep};
use anyhow::bail;
use mem_event::message::{Call, Reply};
use mem_event::{Control, Errno, Flags, Gfn, PAGE_SIZE, Request, Ring};
use mem_event_client::{Channel, Client, RingSettings};
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

/// Frames that are asked for, read or evicted with one round of calls.
const BATCH: usize = 64;
/// How often a frame is loaded for which there is no memory.
const TRIES: u32 = 1000;
/// Between two of these, where nothing could be evicted.
const PAUSE: Duration = Duration::from_millis(1);

/// A pager with its ring and its page file.
#[derive(Debug)]
pub struct Pager {
    channel: Channel,
    file: PageFile,
    chooser: Chooser,
    batch: usize,
    prefetch: u32,
    /// Contents that were handed over.
    loads: Loads,
    /// Where none is left, a load may be refused, and it is waited for before the answer goes out.
    room: Room,
    /// The page file took no more: nothing is evicted until there is a new target.
    full: bool,
    /// What it could not do for the guest, in words.
    pub faults: Vec<String>,
    /// What else is to be said.
    pub notes: Vec<String>,
    /// What it did so far.
    pub figures: Figures,
    /// When it is to die.
    end: Countdown,
}

impl Pager {
    /// Enables the paging ring of a domain with so many bytes of memory.
    ///
    /// # Errors
    /// The plugin refuses, or no page file can be made.
    pub fn enable(socket: &Path, ring: RingSettings, settings: &PagerSettings, memory: u64) -> anyhow::Result<Pager> {
        Pager::on(Channel::enable(socket, Ring::Paging, ring)?, settings, memory)
    }

    /// A pager on a paging ring that is enabled. What a pager before it has evicted is its own; what that one nominated and did not
    /// come to evict goes now, since nobody else can nominate it again.
    ///
    /// # Errors
    /// No page file can be made.
    pub fn on(mut channel: Channel, settings: &PagerSettings, memory: u64) -> anyhow::Result<Pager> {
        let (file, nominated) = PageFile::take_over(&mut channel.client, settings)?;
        let mut pager = Pager {
            channel,
            file,
            chooser: Chooser::new(settings.policy, settings.seed, Ram::of(memory)),
            batch: BATCH,
            prefetch: settings.prefetch,
            loads: Loads::default(),
            room: Room::default(),
            full: false,
            faults: Vec::new(),
            notes: Vec::new(),
            figures: Figures::default(),
            end: Countdown::new(settings),
        };
        for batch in nominated.chunks(BATCH) {
            pager.evict(batch)?;
        }
        Ok(pager)
    }

    /// Holds the guest to so many bytes from now on: sets the budget, then evicts what is above it. A target may be changed at
    /// any time.
    ///
    /// # Errors
    /// The connection ended.
    pub fn hold_to(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.settle()?;
        let frames = bytes / PAGE_SIZE as u64;
        self.chooser.hold_to(frames);
        self.batch = BATCH.min(usize::try_from(frames / 8).unwrap_or(usize::MAX)).max(1);
        self.room.is_used_up();
        self.full = false;
        self.set_budget(frames)?;
        loop {
            let resident = self.channel.client.info()?.resident;
            let above = usize::try_from(resident.saturating_sub(frames)).unwrap_or(usize::MAX);
            if above == 0 || self.make_room(above)? == 0 {
                self.room = Room::of(frames, resident);
                return Ok(());
            }
        }
    }

    fn set_budget(&mut self, frames: u64) -> anyhow::Result<()> {
        self.channel.client.values(&Call::Control(Control::SetBudget { frames })).map(drop)
    }

    /// The connection that holds the ring.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.channel.client
    }

    /// Forgets the engine's signals.
    pub fn clear_signal(&mut self) {
        self.channel.clear_signal();
    }

    /// Its ring.
    pub fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// The next request.
    pub fn take(&mut self) -> Option<Request> {
        self.channel.take()
    }

    /// Does what a request asks for and answers it; one that cannot be brought back stays without an answer.
    ///
    /// # Errors
    /// The connection ended.
    pub fn serve(&mut self, request: &Request) -> anyhow::Result<()> {
        let Some(gfn) = request.frame() else { return self.answer(request) };
        self.end.reached(PagerStep::Taken)?;
        if request.flags.contains(Flags::DROP_PAGE) {
            self.file.forget(gfn);
            // No call tells of it.
            self.channel.client.note("forget")?;
            return self.answer(request);
        }
        if request.flags.contains(Flags::EVICT_FAIL) {
            self.chooser.used(gfn);
        }
        if self.loads.contain(gfn) {
            // Another vCPU's request for the same frame came just before.
            self.settle()?;
        }
        let content = match self.file.read(gfn) {
            Ok(Some(content)) => content,
            // It was evicted for nobody yet (EVICT_FAIL), or another vCPU's request has brought it back.
            Ok(None) => return self.answer(request),
            Err(error) => {
                self.faults.push(format!("frame {gfn} cannot be brought back: {error:#}"));
                return self.channel.client.note("cannot be read").map(drop);
            }
        };
        self.figures.pages_in += 1;
        let mut earlier = std::mem::take(&mut self.loads);
        let must_wait = self.room.is_none() || self.prefetch > 0;
        if must_wait || !self.loads.hand_over(&mut self.channel, gfn, &content) {
            self.learn(&mut earlier)?;
            self.load(&Call::Load { gfn, content })?;
            self.file.forget(gfn);
            self.chooser.used(gfn);
            self.end.reached(PagerStep::Loaded)?;
            // Before the answer: else it is chance whether the vCPU meets a frame that is on its way.
            self.prefetch(gfn)?;
            self.answer(request)
        } else {
            // The plugin takes contents before responses, so the answer need not wait for what became of it. That is looked at
            // after the next one's answer.
            self.chooser.used(gfn);
            self.room.comes_in();
            self.end.reached(PagerStep::Loaded)?;
            self.answer(request)?;
            self.learn(&mut earlier)
        }
    }

    /// Brings back those of the next frames that are here, as far as the budget has room.
    fn prefetch(&mut self, gfn: Gfn) -> anyhow::Result<()> {
        if self.prefetch == 0 {
            return Ok(());
        }
        self.settle()?;
        let info = self.channel.client.info()?;
        let mut room = info.budget.saturating_sub(info.resident);
        let mut fetched = 0;
        for next in (1..=u64::from(self.prefetch)).map(|ahead| Gfn(gfn.0 + ahead)) {
            if room == 0 {
                break;
            }
            // One that cannot be read is the affair of the vCPU that asks for it.
            let Ok(Some(content)) = self.file.content(next) else { continue };
            self.load(&Call::Load { gfn: next, content })?;
            self.file.forget(next);
            self.chooser.used(next);
            room -= 1;
            fetched += 1;
        }
        self.figures.pages_in += fetched;
        self.figures.prefetched += fetched;
        Ok(())
    }

    /// Learns what became of the contents that were handed over.
    ///
    /// # Errors
    /// The connection ended, or a load was refused.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        let mut loads = std::mem::take(&mut self.loads);
        self.learn(&mut loads)
    }

    fn learn(&mut self, loads: &mut Loads) -> anyhow::Result<()> {
        // Where memory was short once it may be again.
        if !loads.settle(&mut self.channel, &mut self.file)? {
            self.room.is_used_up();
        }
        Ok(())
    }

    fn answer(&mut self, request: &Request) -> anyhow::Result<()> {
        self.channel.answer(&request.answer());
        self.end.reached(PagerStep::Answered)?;
        self.channel.kick()
    }

    fn load(&mut self, load: &Call) -> anyhow::Result<()> {
        for _ in 0..TRIES {
            match self.channel.client.call(load)? {
                // ENOENT: the frame is back already.
                Reply::Done(_) | Reply::Bytes(_) => {
                    self.room.comes_in();
                    return Ok(());
                }
                Reply::Refused(Errno::ENOENT, _) => return Ok(()),
                Reply::Refused(Errno::ENOMEM, _) if self.make_room(self.batch)? > 0 || self.full => {}
                // Nothing can go, but the host may find a frame in a moment.
                Reply::Refused(Errno::ENOMEM, _) => std::thread::sleep(PAUSE),
                Reply::Refused(errno, why) => bail!("a frame cannot be loaded: {errno}, {why}"),
            }
        }
        bail!("a frame cannot be loaded: there is no memory for it")
    }

    /// Evicts those of the next so many frames of the policy's choice that can be, whatever the guest holds. How many went.
    ///
    /// # Errors
    /// As [`Pager::page_out`].
    pub fn churn(&mut self, frames: usize) -> anyhow::Result<usize> {
        if self.full {
            return Ok(0);
        }
        let mut resident = Resident::default();
        let mut chosen = Vec::with_capacity(frames);
        for _ in 0..frames {
            chosen.extend(self.candidate(true, &mut resident)?);
        }
        self.page_out(&chosen)
    }

    /// A touch found no frame within the budget: evicts some others, unless there is room by now, as after a load that this pager has
    /// made room for itself. The frame itself counts as come in lately.
    ///
    /// # Errors
    /// As [`Pager::page_out`].
    pub fn relieve(&mut self, touched: Gfn) -> anyhow::Result<usize> {
        self.chooser.used(touched);
        let info = self.channel.client.info()?;
        self.room = Room::of(info.budget, info.resident);
        let evicted = if info.resident < info.budget { 0 } else { self.make_room(self.batch)? };
        self.room.comes_in();
        Ok(evicted)
    }

    /// Evicts up to so many frames of the policy's choice; fewer if once around there are no more.
    fn make_room(&mut self, wanted: usize) -> anyhow::Result<usize> {
        let mut evicted = self.scan(wanted, true)?;
        if evicted == 0 && !self.full {
            evicted = self.scan(wanted, false)?;
        }
        self.room.go(evicted);
        if evicted == 0 && self.full {
            // The guest is not to wait for a frame that no eviction will give it.
            self.set_budget(u64::MAX)?;
            self.room = Room::default();
        }
        Ok(evicted)
    }

    fn scan(&mut self, wanted: usize, spare: bool) -> anyhow::Result<usize> {
        let count = self.chooser.count();
        let (mut looked, mut evicted) = (0, 0);
        let mut resident = Resident::default();
        while evicted < wanted && looked < count && !self.full {
            let mut candidates = Vec::with_capacity(BATCH);
            while candidates.len() < BATCH.min(wanted - evicted) && looked < count {
                looked += 1;
                candidates.extend(self.candidate(spare, &mut resident)?);
            }
            evicted += self.page_out(&candidates)?;
        }
        Ok(evicted)
    }

    /// The next frame of the policy's choice, where it is one that can be nominated.
    fn candidate(&mut self, spare: bool, resident: &mut Resident) -> anyhow::Result<Option<Gfn>> {
        let Some(gfn) = self.chooser.next(spare).filter(|gfn| !self.file.holds(*gfn)) else { return Ok(None) };
        Ok(resident.take(&mut self.channel.client, gfn)?.then_some(gfn))
    }

    /// Nominates frames, copies their content, evicts them; those that cannot be, or cannot be kept, are left. How many went.
    ///
    /// # Errors
    /// The connection ended.
    pub fn page_out(&mut self, frames: &[Gfn]) -> anyhow::Result<usize> {
        self.settle()?;
        let mut evicted = 0;
        for batch in frames.chunks(BATCH) {
            let nominated =
                calls::of_each(&mut self.channel.client, batch, |gfn| Call::Control(Control::Nominate { gfn }))?;
            let nominated: Vec<Gfn> = nominated.into_iter().map(|(gfn, _)| gfn).collect();
            if !nominated.is_empty() {
                self.end.reached(PagerStep::Nominated)?;
                evicted += self.evict(&nominated)?;
            }
            if self.full {
                break;
            }
        }
        Ok(evicted)
    }

    /// Copies the content of nominated frames and evicts them; those that cannot be, or cannot be kept, are left. How many went.
    fn evict(&mut self, nominated: &[Gfn]) -> anyhow::Result<usize> {
        let length = u16::try_from(PAGE_SIZE).unwrap_or(0);
        let mut kept = Vec::with_capacity(nominated.len());
        for (gfn, reply) in
            calls::of_each(&mut self.channel.client, nominated, |gfn| Call::ReadFrame { gfn, offset: 0, len: length })?
        {
            let Reply::Bytes(content) = reply else { continue };
            match self.file.keep(gfn, &content) {
                Ok(()) => kept.push(gfn),
                // It stays nominated: the next touch says EVICT_FAIL, and the answer makes it ordinary again.
                Err(error) if !self.full => {
                    self.full = true;
                    self.notes.push(format!("nothing more is evicted: {error:#}"));
                }
                Err(_) => {}
            }
        }
        self.end.reached(PagerStep::Kept)?;
        let gone = calls::of_each(&mut self.channel.client, &kept, |gfn| Call::Control(Control::Evict { gfn }))?;
        let gone: HashSet<Gfn> = gone.into_iter().map(|(gfn, _)| gfn).collect();
        for gfn in kept.into_iter().filter(|gfn| !gone.contains(gfn)) {
            self.file.forget(gfn);
        }
        self.figures.pages_out += gone.len() as u64;
        self.end.reached(PagerStep::Evicted)?;
        Ok(gone.len())
    }

    /// Brings every frame back, lifts the budget and ends the ring, as xenpaging does when it is told to stop.
    ///
    /// # Errors
    /// The connection ended.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.settle()?;
        self.set_budget(u64::MAX)?;
        for gfn in self.file.frames() {
            if let Some(content) = self.file.read(gfn)? {
                self.load(&Call::Load { gfn, content })?;
            }
        }
        ending::in_order(&mut self, Pager::channel, |pager| match pager.take() {
            Some(request) => pager.answer(&request).map(|()| true),
            None => Ok(false),
        })
    }
}

impl AsFd for Pager {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
