//! A pager of one's own: it evicts frames when it is ordered to or when the guest may hold no more, and brings back what is touched.
//!
//! `mem-event run page_in --paging-target 2M --consumer paging,sharing=target/release/examples/pager`
//!
//! docs/pagers.md of mem-event tells a pager's life in this file's order.

use anyhow::{Context, bail};
use mem_event::message::{Call, Reply};
use mem_event::{Control, Errno, Flags, Gfn, P2mType, PAGE_SIZE, Ring};
use mem_event_client::{Channel, Client, Handed, Lost, Order, Orders};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Frames that one call tells of.
const CHUNK: u64 = 4096;
/// Below one mebibyte are firmware and devices.
const FIRST: u64 = 0x100;
/// Frames that are evicted at a time when the guest may hold no more.
const BATCH: u64 = 16;

struct Pager {
    /// The page file: a frame lies at its number times 4096.
    file: File,
    /// Frames there are.
    frames: u64,
    /// Frames whose content is in the page file and nowhere else.
    out: HashSet<Gfn>,
    /// Frames that came in lately, and stay.
    recent: VecDeque<Gfn>,
    /// Where the scan goes on.
    hand: u64,
    /// The page file took no more.
    full: bool,
}

impl Pager {
    /// Takes what a pager before this one has left: its page file, its evicted frames, its nominated ones.
    fn take_over(client: &mut Client) -> anyhow::Result<Pager> {
        let kept = client.page_file()?;
        let types = client.types()?;
        let frames = |is: fn(P2mType, bool) -> bool| {
            let numbered = (0..).map(Gfn).zip(&types).filter(move |(_, (kind, held))| is(*kind, *held));
            numbered.map(|(gfn, _)| gfn)
        };
        let out: HashSet<Gfn> =
            frames(|kind, held| !held && matches!(kind, P2mType::RamPaged | P2mType::RamPagingIn)).collect();
        if kept.is_none() && !out.is_empty() {
            bail!("{} frames are out, and the pager before this one handed no page file over", out.len());
        }
        let file = match kept {
            Some(file) => file.into(),
            None => temporary_file().context("cannot make a page file")?,
        };
        client.set_page_file(&file)?;
        let (count, recent) = (types.len() as u64, VecDeque::new());
        let mut pager = Pager { file, frames: count, out, recent, hand: FIRST.max(count / 2), full: false };
        for gfn in frames(|kind, _| kind == P2mType::RamPagingOut) {
            pager.finish_evicting(client, gfn)?;
        }
        Ok(pager)
    }

    // Out.

    /// Whether the frame went. It did not where the guest needs it, somebody has it mapped, or the file is full.
    fn evict(&mut self, client: &mut Client, gfn: Gfn) -> anyhow::Result<bool> {
        Ok(client.control(Control::Nominate { gfn })?.is_ok() && self.finish_evicting(client, gfn)?)
    }

    /// The frame is nominated: a touch from now on is reported, and makes `Evict` fail. Its content is kept before it goes. Refused are
    /// frames that were touched meanwhile (a request with EVICT_FAIL is on the ring) or ballooned out (one with DROP_PAGE).
    fn finish_evicting(&mut self, client: &mut Client, gfn: Gfn) -> anyhow::Result<bool> {
        let Reply::Bytes(content) = client.call(&Call::ReadFrame { gfn, offset: 0, len: 4096 })? else {
            return Ok(false);
        };
        if let Err(error) = self.file.write_all_at(&content, place(gfn)) {
            // It stays nominated. Its next touch says EVICT_FAIL, and the answer makes it an ordinary frame again.
            if !self.full {
                eprintln!("nothing more is evicted, the page file cannot be written: {error}");
            }
            self.full = true;
            return Ok(false);
        }
        let gone = client.control(Control::Evict { gfn })?.is_ok();
        if gone {
            self.out.insert(gfn);
        }
        Ok(gone)
    }

    /// Evicts so many frames, if once around there are as many. How many went.
    fn make_room(&mut self, client: &mut Client, wanted: u64) -> anyhow::Result<u64> {
        let (mut gone, mut chunk, mut types) = (0, None, Vec::new());
        for _ in 0..self.frames {
            if gone == wanted || self.full {
                break;
            }
            let gfn = Gfn(self.hand);
            self.hand = if self.hand + 1 < self.frames { self.hand + 1 } else { FIRST };
            if chunk != Some(gfn.0 / CHUNK) {
                // Asked before frames are nominated: most may have no memory behind them, and would be refused one by one.
                chunk = Some(gfn.0 / CHUNK);
                types = client.types_from(Gfn(gfn.0 / CHUNK * CHUNK))?;
            }
            let is_ordinary = types.get(usize::try_from(gfn.0 % CHUNK)?) == Some(&(P2mType::RamRw, true));
            if is_ordinary && !self.recent.contains(&gfn) && self.evict(client, gfn)? {
                gone += 1;
            }
        }
        if gone == 0 {
            // The guest is not to wait for a frame that no eviction will give it.
            eprintln!("there is nothing to evict, so the target is given up");
            set_budget(client, u64::MAX)?;
        }
        Ok(gone)
    }

    /// Holds the guest to so many frames: what it has above them goes now, and more whenever it touches others.
    fn hold_to(&mut self, client: &mut Client, budget: u64) -> anyhow::Result<u64> {
        self.full = false;
        set_budget(client, budget)?;
        let mut all = 0;
        loop {
            let above = client.info()?.resident.saturating_sub(budget);
            match if above == 0 { 0 } else { self.make_room(client, above)? } {
                0 => return Ok(all),
                gone => all += gone,
            }
        }
    }

    // In.

    /// Brings a frame back. Where the budget has no room for it, others go first.
    fn load(&mut self, client: &mut Client, gfn: Gfn) -> anyhow::Result<()> {
        let mut content = vec![0; PAGE_SIZE].into_boxed_slice();
        let lost = || format!("frame {gfn} is not in the page file, and its vCPU stays stopped");
        self.file.read_exact_at(&mut content, place(gfn)).with_context(lost)?;
        let load = Call::Load { gfn, content };
        loop {
            match client.call(&load)? {
                // ENOENT: it is back already.
                Reply::Done(_) | Reply::Bytes(_) | Reply::Refused(Errno::ENOENT, _) => break,
                Reply::Refused(Errno::ENOMEM, _) => self.make_room(client, BATCH).map(drop)?,
                Reply::Refused(errno, why) => bail!("frame {gfn} cannot be loaded: {errno}, {why}"),
            }
        }
        self.out.remove(&gfn);
        self.recent.push_back(gfn);
        if self.recent.len() as u64 > BATCH {
            self.recent.pop_front();
        }
        Ok(())
    }

    /// The paging ring: frames that are touched, and frames that are gone for good.
    fn serve(&mut self, paging: &mut Channel) -> anyhow::Result<()> {
        while let Some(request) = paging.take() {
            if let Some(gfn) = request.frame() {
                if request.flags.contains(Flags::DROP_PAGE) {
                    self.out.remove(&gfn);
                } else if !request.flags.contains(Flags::EVICT_FAIL) && self.out.contains(&gfn) {
                    self.load(&mut paging.client, gfn)?;
                }
                // Else it is there: touched before it went (EVICT_FAIL), or brought back for another vCPU. The answer is all it needs.
            }
            paging.answer(&request.answer());
            paging.kick()?;
        }
        Ok(())
    }

    /// The sharing ring: the guest touched a frame for the first time, and may hold no more.
    fn relieve(&mut self, client: &mut Client, sharing: &mut Channel) -> anyhow::Result<()> {
        while let Some(request) = sharing.take() {
            let info = client.info()?;
            if info.resident >= info.budget {
                self.make_room(client, BATCH)?;
            }
            sharing.answer(&request.answer());
            sharing.kick()?;
        }
        Ok(())
    }

    /// What the toolstack orders, a target or frames to evict; the reply is how many went.
    fn obey(&mut self, client: &mut Client, orders: &Orders) -> anyhow::Result<()> {
        while let Some(order) = orders.take()? {
            let mut gone = 0;
            match order {
                Order::Target { frames } => gone = self.hold_to(client, frames)?,
                Order::PageOut { first, count } => {
                    for gfn in (first.0..first.0 + count).map(Gfn) {
                        gone += u64::from(self.evict(client, gfn)?);
                    }
                }
            }
            orders.done(gone)?;
        }
        Ok(())
    }
}

fn set_budget(client: &mut Client, frames: u64) -> anyhow::Result<()> {
    client.values(&Call::Control(Control::SetBudget { frames })).map(drop)
}

/// Where a frame lies in the page file.
fn place(gfn: Gfn) -> u64 {
    gfn.0 * PAGE_SIZE as u64
}

/// A file without a name, which is gone with its last descriptor.
fn temporary_file() -> anyhow::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR)?.into())
}

fn run() -> anyhow::Result<()> {
    let mut handed = Handed::take()?;
    let orders = handed.orders.take().context("no paging ring was handed over")?;
    let (channels, ready) = handed.into_channels()?;
    let (mut paging, mut sharing) = (None, None);
    for (ring, channel) in channels {
        match ring {
            Ring::Paging => paging = Some(channel),
            Ring::Sharing => sharing = Some(channel),
            Ring::Access => bail!("a pager has no use for the access ring"),
        }
    }
    let mut paging = paging.context("no paging ring was handed over")?;
    let mut pager = Pager::take_over(&mut paging.client)?;
    ready.say()?;
    loop {
        // Before the first wait: requests that a pager before this one left are on the ring without a signal.
        paging.clear_signal();
        pager.serve(&mut paging)?;
        if let Some(sharing) = &mut sharing {
            sharing.clear_signal();
            pager.relieve(&mut paging.client, sharing)?;
        }
        pager.obey(&mut paging.client, &orders)?;
        let mut waited = vec![PollFd::new(&paging.client, PollFlags::IN), PollFd::new(&paging, PollFlags::IN)];
        waited.push(PollFd::new(&orders, PollFlags::IN));
        waited.extend(sharing.iter().map(|ring| PollFd::new(ring, PollFlags::IN)));
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, None))?;
        if !waited[0].revents().is_empty() {
            // No reply is due: what can be read is the end.
            return Ok(());
        }
    }
}

fn main() -> anyhow::Result<()> {
    match run() {
        // The domain may end in the middle of a call, too.
        Err(error) if error.is::<Lost>() => Ok(()),
        other => other,
    }
}
