//! The pager: brings frames back when they are asked for, and evicts others to hold the guest to a target.
//!
//! Policy after xenpaging: a linear scan from the middle of memory that leaves out what came in lately. All requests are
//! answered first; frames are evicted in batches, when the engine says that the budget is used up.

use crate::pagefile::PageFile;
use crate::recent::Recent;
use anyhow::bail;
use mem_event::message::{Call, Reply};
use mem_event::{Control, Errno, Flags, Gfn, PAGE_SIZE, Request, Ring};
use mem_event_client::channel::{Channel, RingSettings};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Frames that are asked for, read or evicted with one round of calls.
const BATCH: usize = 64;
/// Calls sent ahead of their replies. The plugin drops a client whose replies it cannot send at once, and a socket holds
/// 208 KiB by default: not more than some thirty replies with a frame's content.
const AHEAD: usize = 16;
/// Frames below one mebibyte are the firmware's and devices'.
const FIRST_FRAME: u64 = 0x100;
/// xenpaging's number of frames that came in lately and stay.
const RECENT: usize = 16384;

/// What the pager did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Frames brought back.
    pub pages_in: u64,
    /// Frames evicted.
    pub pages_out: u64,
}

/// A pager with its ring and its page file.
#[derive(Debug)]
pub struct Pager {
    channel: Channel,
    file: PageFile,
    recent: Recent,
    ram: Ram,
    hand: u64,
    batch: usize,
    /// Frames whose load was sent and whose reply was not taken yet.
    loading: Vec<Gfn>,
    /// With a budget a load may be refused, so it is waited for before the answer goes out.
    budgeted: bool,
    /// What it did so far.
    pub figures: Figures,
}

/// The frames of RAM of QEMU's `q35` machine: from 0, and from 4 GiB where there are too many for below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ram {
    low: u64,
    high: u64,
}

impl Ram {
    fn of(bytes: u64) -> Ram {
        let frames = bytes / PAGE_SIZE as u64;
        let low = if frames >= 0xb_0000 { frames.min(0x8_0000) } else { frames };
        Ram { low, high: frames - low }
    }

    fn count(self) -> u64 {
        self.low.saturating_sub(FIRST_FRAME) + self.high
    }

    fn frame(self, index: u64) -> Gfn {
        let gfn = index + FIRST_FRAME;
        Gfn(if gfn < self.low { gfn } else { gfn - self.low + 0x10_0000 })
    }
}

impl Pager {
    /// Enables the paging ring.
    ///
    /// # Errors
    /// The plugin refuses, or no page file can be made.
    pub fn enable(socket: &Path, settings: RingSettings, memory: u64) -> anyhow::Result<Pager> {
        let file = PageFile::create()?;
        let channel = Channel::enable(socket, Ring::Paging, settings)?;
        let ram = Ram::of(memory);
        let (recent, figures) = (Recent::new(0), Figures::default());
        Ok(Pager {
            channel,
            file,
            recent,
            ram,
            hand: ram.count() / 2,
            batch: BATCH,
            loading: Vec::new(),
            budgeted: false,
            figures,
        })
    }

    /// Holds the guest to so many bytes from now on: sets the budget, then evicts what is above it.
    ///
    /// # Errors
    /// The connection ended, or the page file cannot be written.
    pub fn hold_to(&mut self, bytes: u64) -> anyhow::Result<()> {
        self.settle()?;
        let frames = bytes / PAGE_SIZE as u64;
        let share = |part: u64| usize::try_from(frames / part).unwrap_or(usize::MAX);
        self.recent = Recent::new(RECENT.min(share(4)));
        self.batch = BATCH.min(share(8)).max(1);
        self.budgeted = true;
        self.channel.client.values(&Call::Control(Control::SetBudget { frames }))?;
        loop {
            let resident = self.channel.client.info()?.resident;
            let above = usize::try_from(resident.saturating_sub(frames)).unwrap_or(usize::MAX);
            if above == 0 || self.make_room(above)? == 0 {
                return Ok(());
            }
        }
    }

    /// Whether a request waits.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.channel.is_pending()
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

    /// Does what a request asks for, answers it, and says what it did.
    ///
    /// # Errors
    /// The connection ended, or the content cannot be brought back.
    pub fn serve(&mut self, request: &Request) -> anyhow::Result<Vec<String>> {
        let gfn = request.gfn;
        if request.flags.contains(Flags::DROP_PAGE) {
            self.file.forget(gfn);
            self.answer(request)?;
            return Ok(vec!["forget".into()]);
        }
        if self.loading.contains(&gfn) {
            // Another vCPU's request for the same frame came just before.
            self.settle()?;
        }
        let Some(content) = self.file.content(gfn)? else {
            // It was evicted for nobody yet (EVICT_FAIL), or another vCPU's request has brought it back.
            self.answer(request)?;
            return Ok(Vec::new());
        };
        let load = Call::Load { gfn, content };
        self.figures.pages_in += 1;
        if self.budgeted {
            self.settle()?;
            self.load(&load)?;
            self.answer(request)?;
            self.file.forget(gfn);
            self.recent.add(gfn);
        } else {
            // The plugin serves what is posted before the response, so neither the answer nor this thread need wait for the reply:
            // it is taken after the next one's answer. To be woken for it would cost as much as the page-in.
            self.channel.post(&load)?;
            self.answer(request)?;
            self.settle()?;
            self.loading.push(gfn);
        }
        Ok(vec!["load".into()])
    }

    /// Takes the replies to loads that were sent ahead of them.
    fn settle(&mut self) -> anyhow::Result<()> {
        for gfn in std::mem::take(&mut self.loading) {
            match self.channel.client.reply()? {
                // ENOENT: the frame is back already.
                Reply::Done(_) | Reply::Bytes(_) | Reply::Refused(Errno::ENOENT, _) => self.file.forget(gfn),
                Reply::Refused(errno, why) => bail!("frame {gfn} cannot be loaded: {errno}, {why}"),
            }
        }
        Ok(())
    }

    fn answer(&mut self, request: &Request) -> anyhow::Result<()> {
        self.channel.answer(&request.answer());
        self.channel.kick()
    }

    fn load(&mut self, load: &Call) -> anyhow::Result<()> {
        loop {
            match self.channel.client.call(load)? {
                // ENOENT: the frame is back already.
                Reply::Done(_) | Reply::Bytes(_) | Reply::Refused(Errno::ENOENT, _) => return Ok(()),
                Reply::Refused(Errno::ENOMEM, _) if self.make_room(self.batch)? > 0 => {}
                Reply::Refused(errno, why) => bail!("a frame cannot be loaded: {errno}, {why}"),
            }
        }
    }

    /// A first touch found no frame within the budget: evicts some others. The frame itself counts as come in lately.
    ///
    /// # Errors
    /// As [`Pager::page_out`].
    pub fn relieve(&mut self, touched: Gfn) -> anyhow::Result<usize> {
        self.recent.add(touched);
        self.make_room(self.batch)
    }

    /// Evicts up to so many frames of the scan's choice; fewer if once around there are no more.
    fn make_room(&mut self, wanted: usize) -> anyhow::Result<usize> {
        let mut evicted = self.scan(wanted, true)?;
        if evicted == 0 {
            evicted = self.scan(wanted, false)?;
        }
        Ok(evicted)
    }

    fn scan(&mut self, wanted: usize, spare_recent: bool) -> anyhow::Result<usize> {
        let count = self.ram.count();
        let (mut looked, mut evicted) = (0, 0);
        while evicted < wanted && looked < count {
            let mut candidates = Vec::with_capacity(BATCH);
            while candidates.len() < BATCH.min(wanted - evicted) && looked < count {
                let gfn = self.ram.frame(self.hand);
                self.hand = (self.hand + 1) % count;
                looked += 1;
                let spared = spare_recent && self.recent.holds(gfn);
                if !(spared || self.file.holds(gfn)) {
                    candidates.push(gfn);
                }
            }
            evicted += self.page_out(&candidates)?;
        }
        Ok(evicted)
    }

    /// Nominates frames, copies their content, evicts them; those that cannot be are left. How many went.
    ///
    /// # Errors
    /// The connection ended, or the page file cannot be written.
    pub fn page_out(&mut self, frames: &[Gfn]) -> anyhow::Result<usize> {
        self.settle()?;
        let mut evicted = 0;
        for batch in frames.chunks(BATCH) {
            let nominated = self.all(batch, |gfn| Call::Control(Control::Nominate { gfn }))?;
            let length = u16::try_from(PAGE_SIZE).unwrap_or(0);
            let nominated: Vec<Gfn> = nominated.into_iter().map(|(gfn, _)| gfn).collect();
            let mut kept = Vec::with_capacity(nominated.len());
            for (gfn, reply) in self.all(&nominated, |gfn| Call::ReadFrame { gfn, offset: 0, len: length })? {
                if let Reply::Bytes(content) = reply {
                    self.file.keep(gfn, &content)?;
                    kept.push(gfn);
                }
            }
            let gone = self.all(&kept, |gfn| Call::Control(Control::Evict { gfn }))?;
            evicted += gone.len();
            let gone: std::collections::HashSet<Gfn> = gone.into_iter().map(|(gfn, _)| gfn).collect();
            for gfn in kept.into_iter().filter(|gfn| !gone.contains(gfn)) {
                self.file.forget(gfn);
            }
        }
        self.figures.pages_out += evicted as u64;
        Ok(evicted)
    }

    /// The same call for several frames, sent ahead of the replies; those that were not refused.
    fn all(&mut self, frames: &[Gfn], call: impl Fn(Gfn) -> Call) -> anyhow::Result<Vec<(Gfn, Reply)>> {
        let mut accepted = Vec::with_capacity(frames.len());
        for ahead in frames.chunks(AHEAD) {
            for gfn in ahead {
                self.channel.client.send(&call(*gfn))?;
            }
            for gfn in ahead {
                match self.channel.client.reply()? {
                    Reply::Refused(..) => {}
                    reply => accepted.push((*gfn, reply)),
                }
            }
        }
        Ok(accepted)
    }

    /// Brings every frame back, lifts the budget and ends the ring, as xenpaging does when it is told to stop.
    ///
    /// # Errors
    /// The connection ended.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.settle()?;
        self.channel.client.values(&Call::Control(Control::SetBudget { frames: u64::MAX }))?;
        for gfn in self.file.frames() {
            if let Some(content) = self.file.content(gfn)? {
                self.load(&Call::Load { gfn, content })?;
            }
        }
        while let Some(request) = self.take() {
            self.answer(&request)?;
        }
        self.channel.client.values(&Call::Control(Control::Disable { ring: Ring::Paging, drain: true }))?;
        Ok(())
    }
}

impl AsFd for Pager {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::Ram;
    use mem_event::Gfn;

    #[test]
    fn memory_that_does_not_fit_below_goes_on_at_four_gibibytes() {
        let small = Ram::of(64 << 20);
        assert_eq!((small.count(), small.frame(small.count() - 1)), (0x4000 - 0x100, Gfn(0x3fff)));
        let large = Ram::of(3 << 30);
        assert_eq!(large.frame(0x8_0000 - 0x100 - 1), Gfn(0x7_ffff));
        assert_eq!(large.frame(0x8_0000 - 0x100), Gfn(0x10_0000));
        assert_eq!(large.frame(large.count() - 1), Gfn(0x13_ffff));
    }
}
