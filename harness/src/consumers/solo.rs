//! A built-in consumer as a process of its own: `mem-event consumer`. It is handed its rings by `run --consumer`, or joins a plugin
//! at its socket.

use super::faulty::Faulty;
use super::helper;
use super::pager::Pager;
use super::watcher::Watcher;
use crate::refusal::Refusal;
use crate::scenario::settings::{Consumer, HelperSettings, PagerSettings};
use anyhow::Context;
use mem_event::{Gfn, PAGE_SIZE, Ring};
use mem_event_client::handed::{Ready, SOCKET_FD};
use mem_event_client::{Channel, Handed, Lost, Order, Orders, RingSettings};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Runs a consumer until its domain ends. `target_file` holds the pager's target, read again at SIGHUP.
///
/// # Errors
/// What a user can put right, as a [`Refusal`]; the plugin refuses something.
pub fn consume(consumer: &Consumer, socket: Option<&Path>, target_file: Option<&Path>) -> anyhow::Result<u8> {
    let ended = rings(consumer, socket)
        .and_then(|(channels, orders, ready)| serve(consumer, channels, orders, ready, target_file));
    match ended {
        // The domain may end in the middle of a call, too.
        Err(error) if error.is::<Lost>() => Ok(0),
        other => other.map(|()| 0),
    }
}

type Rings = (Vec<(Ring, Channel)>, Option<Orders>, Option<Ready>);

fn rings(consumer: &Consumer, socket: Option<&Path>) -> anyhow::Result<Rings> {
    if let Some(socket) = socket {
        let enable = |ring| Ok((ring, Channel::enable(socket, ring, RingSettings::default())?));
        return Ok((consumer.rings().into_iter().map(enable).collect::<anyhow::Result<_>>()?, None, None));
    }
    if std::env::var_os(SOCKET_FD).is_none() {
        let remedy = "start it with `mem-event run GUEST --consumer …`, or name the plugin's socket with --socket";
        return Err(Refusal::usage("no ring was handed over", remedy).into());
    }
    let mut handed = Handed::take()?;
    let orders = handed.orders.take();
    let (channels, ready) = handed.into_channels()?;
    Ok((channels, orders, Some(ready)))
}

fn serve(
    consumer: &Consumer,
    mut channels: Vec<(Ring, Channel)>,
    orders: Option<Orders>,
    ready: Option<Ready>,
    target_file: Option<&Path>,
) -> anyhow::Result<()> {
    let mut take = |wanted: Ring| -> anyhow::Result<Channel> {
        let at = channels.iter().position(|(ring, _)| *ring == wanted);
        Ok(channels.remove(at.with_context(|| format!("no {wanted} ring was handed over"))?).1)
    };
    let say = |ready: Option<Ready>| ready.map_or(Ok(()), Ready::say);
    match consumer {
        Consumer::Listener(settings) => {
            let mut watcher = Watcher::new(take(Ring::Access)?, settings)?;
            say(ready)?;
            watcher.serve()
        }
        Consumer::Helper(settings) => {
            let mut channel = take(Ring::Sharing)?;
            say(ready)?;
            raise(&mut channel, settings)
        }
        Consumer::Pager(settings) => {
            let (channel, helper) = (take(Ring::Paging)?, take(Ring::Sharing).ok());
            let mut pager = LonePager::new(channel, helper, orders, settings, target_file)?;
            say(ready)?;
            pager.serve()
        }
        Consumer::Faulty(settings) => {
            let (_, channel) = channels.pop().context("no ring was handed over")?;
            let mut faulty = Faulty::new(channel, settings.clone());
            say(ready)?;
            faulty.serve()
        }
    }
}

/// The helper: the budget grows each time the domain has used it up.
fn raise(channel: &mut Channel, settings: &HelperSettings) -> anyhow::Result<()> {
    while channel.wait()? {
        while let Some(request) = channel.take() {
            let (budget, frames) = helper::raise(&mut channel.client, settings)?;
            println!("{budget} frames are used up: {frames} from now on");
            channel.answer(&request.answer());
            channel.kick()?;
        }
    }
    Ok(())
}

/// A pager with what it needs where no harness is around it.
struct LonePager {
    pager: Pager,
    helper: Option<Channel>,
    orders: Option<Orders>,
    target_file: Option<(PathBuf, UnixStream)>,
    churn: Option<Churn>,
}

/// Evictions by the clock.
struct Churn {
    every: Duration,
    next: Instant,
}

impl Churn {
    /// Most frames at a time: what is asked for meanwhile waits.
    const MOST: u32 = 8;

    fn new(every: Duration) -> Churn {
        Churn { every, next: Instant::now() + every }
    }

    /// How long nothing is due.
    fn rest(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// How many evictions are due now. Those that there was no time for are left out.
    fn due(&mut self) -> usize {
        let now = Instant::now();
        let mut due = 0;
        while self.next <= now && due < Churn::MOST {
            self.next += self.every;
            due += 1;
        }
        self.next = self.next.max(now);
        due as usize
    }
}

impl LonePager {
    fn new(
        mut channel: Channel,
        helper: Option<Channel>,
        orders: Option<Orders>,
        settings: &PagerSettings,
        target_file: Option<&Path>,
    ) -> anyhow::Result<LonePager> {
        let memory = channel.client.info()?.frames * PAGE_SIZE as u64;
        let mut pager = Pager::on(channel, settings, memory)?;
        if let Some(target) = settings.target {
            pager.hold_to(target.0)?;
        }
        let target_file = target_file.map(|path| anyhow::Ok((path.to_owned(), hang_ups()?))).transpose()?;
        let churn = settings.evict_every.map(|every| Churn::new(Duration::from_micros(every.max(1))));
        let mut lone = LonePager { pager, helper, orders, target_file, churn };
        lone.read_target()?;
        Ok(lone)
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        loop {
            let mut waited =
                vec![PollFd::new(&self.pager, PollFlags::IN), PollFd::new(self.pager.client(), PollFlags::IN)];
            waited.extend(self.target_file.iter().map(|(_, hang_ups)| PollFd::new(hang_ups, PollFlags::IN)));
            let helper_at = waited.len();
            waited.extend(self.helper.iter().map(|helper| PollFd::from_borrowed_fd(helper.as_fd(), PollFlags::IN)));
            waited.extend(self.orders.iter().map(|orders| PollFd::new(orders, PollFlags::IN)));
            let rest = self.churn.as_ref().map(Churn::rest);
            let rest = rest.map(Timespec::try_from).transpose().context("no such time")?;
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, rest.as_ref()))?;
            let ready: Vec<bool> = waited.iter().map(|one| !one.revents().is_empty()).collect();
            if ready[1] {
                // Nobody calls now: what can be read is the end.
                return Ok(());
            }
            if ready[0] {
                self.pager.clear_signal();
            }
            if ready[2..helper_at].contains(&true) {
                self.read_target()?;
            }
            self.requests()?;
            self.obey()?;
            if let Some(due) = self.churn.as_mut().map(Churn::due).filter(|due| *due > 0) {
                self.pager.churn(due)?;
            }
        }
    }

    fn requests(&mut self) -> anyhow::Result<()> {
        while let Some(request) = self.pager.take() {
            self.pager.serve(&request)?;
        }
        if let Some(helper) = &mut self.helper {
            helper.clear_signal();
            while let Some(request) = helper.take() {
                if let Some(gfn) = request.frame() {
                    self.pager.relieve(gfn)?;
                }
                helper.answer(&request.answer());
                helper.kick()?;
            }
        }
        self.pager.settle()?;
        for line in self.pager.notes.drain(..).chain(self.pager.faults.drain(..)) {
            eprintln!("pager: {line}");
        }
        Ok(())
    }

    /// What the toolstack has ordered.
    fn obey(&mut self) -> anyhow::Result<()> {
        while let Some(order) = self.orders.as_ref().map(Orders::take).transpose()?.flatten() {
            let before = self.pager.figures.pages_out;
            match order {
                Order::PageOut { first, count } => {
                    let frames: Vec<Gfn> = (first.0..first.0.saturating_add(count)).map(Gfn).collect();
                    self.pager.page_out(&frames)?;
                }
                Order::Target { frames } => self.pager.hold_to(frames.saturating_mul(PAGE_SIZE as u64))?,
            }
            let evicted = self.pager.figures.pages_out - before;
            self.orders.as_ref().map_or(Ok(()), |orders| orders.done(evicted))?;
        }
        Ok(())
    }

    /// The target that the file names; one that names none is left alone, and said.
    fn read_target(&mut self) -> anyhow::Result<()> {
        let Some((path, hang_ups)) = &self.target_file else { return Ok(()) };
        let _ = rustix::io::read(hang_ups, &mut [0; 64]);
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read the target {}", path.display()))?;
        match crate::scenario::amount::size(text.trim()) {
            Ok(target) => {
                eprintln!("pager: the target is {}", crate::scenario::amount::mebibytes(target));
                self.pager.hold_to(target)
            }
            Err(error) => {
                eprintln!("pager: {error}");
                Ok(())
            }
        }
    }
}

/// Readable when SIGHUP came.
fn hang_ups() -> anyhow::Result<UnixStream> {
    let (read, write) = UnixStream::pair()?;
    read.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGHUP, write)?;
    Ok(read)
}
