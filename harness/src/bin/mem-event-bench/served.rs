//! A consumer in a process of its own, as users' are: answers so many events without changing a right, so that the vCPU stops
//! again at once, or lets each instruction through alone, or opens its page, also after it has asked for registers; then opens everything. Tells how long each took, and how full
//! the ring was.

use anyhow::{Context, bail};
use mem_event::message::{Call, Notice};
use mem_event::spin::{Spin, Window};
use mem_event::{AccessType, Control, Event, Flags, Gfn, Ring};
use mem_event_client::channel::{Channel, RingSettings};
use mem_event_client::poll::poll_until;
use mem_event_client::{Client, Lost};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Slices of a run, of each of which the mean fill of the ring is told.
const SLICES: usize = 8;

/// How an event is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// With nothing: the same access makes the next.
    Nothing,
    /// The instruction is let through alone.
    Emulate,
    /// Its page gets all rights: the next event is that of another page.
    Grant,
    /// The same, and the vCPU's registers are asked for before.
    GrantAsked,
}

/// What is to be served.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The control socket.
    pub socket: PathBuf,
    /// The first watched frame.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// How many events are answered before the frames are opened.
    pub events: usize,
    /// How each is answered.
    pub answer: Answer,
    /// `auto`, `off` or microseconds.
    pub spin: String,
    /// The core to stay on.
    pub core: Option<usize>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Served {
    /// From one event to the next, in microseconds.
    pub micros: Vec<f64>,
    /// Requests on the ring when one was taken, the mean of each slice of the run.
    pub fill: Vec<f64>,
    /// The most.
    pub fullest: u32,
    /// All events together.
    pub seconds: f64,
}

/// Serves an order, which is the text of the argument, says `ready` and at the end what came of it.
pub fn main(order: &str) -> anyhow::Result<()> {
    let order: Order = serde_json::from_str(order).context("not an order")?;
    if let Some(core) = order.core {
        crate::cores::stay_on(None, core)?;
    }
    let mut toolstack = Client::connect(&order.socket)?;
    toolstack.values(&Call::Subscribe)?;
    let channel = Channel::enable(&order.socket, Ring::Access, RingSettings::default())?;
    println!("ready");
    std::io::stdout().flush()?;
    let spin: Spin = order.spin.parse().map_err(anyhow::Error::msg)?;
    let mut run = Run { toolstack, channel, window: Window::new(spin), times: Vec::new(), fill: Vec::new(), order };
    match run.serve() {
        Err(error) if error.is::<Lost>() => {}
        other => other?,
    }
    println!("{}", serde_json::to_string(&run.result()?)?);
    Ok(())
}

struct Run {
    toolstack: Client,
    channel: Channel,
    window: Window,
    order: Order,
    /// When each request was taken.
    times: Vec<Instant>,
    /// How many were there then.
    fill: Vec<u32>,
}

impl Run {
    fn serve(&mut self) -> anyhow::Result<()> {
        let mut served = Instant::now();
        loop {
            if !self.wait()? {
                continue;
            }
            self.window.waited(served.elapsed());
            while let Some(request) = self.channel.take() {
                if self.times.len() < self.order.events {
                    self.times.push(Instant::now());
                    self.fill.push(self.channel.unanswered());
                    if self.times.len() == self.order.events {
                        self.set_access(AccessType::Rwx)?;
                    }
                }
                let how = if self.order.answer == Answer::Emulate { Flags::EMULATE } else { Flags::NONE };
                if self.order.answer == Answer::GrantAsked {
                    let _ = self.channel.client.registers(request.vcpu)?;
                }
                if matches!(self.order.answer, Answer::Grant | Answer::GrantAsked)
                    && let Event::Violation { gfn, .. } = request.event
                {
                    self.channel.set_access(gfn, AccessType::Rwx)?;
                }
                self.channel.answer(&request.answer().with(how));
                self.channel.kick()?;
            }
            served = Instant::now();
        }
    }

    /// Until a request is there; false where it was something else.
    fn wait(&mut self) -> anyhow::Result<bool> {
        if !self.window.length().is_zero() {
            self.channel.begin_polling();
            if poll_until(&mut self.window, || self.channel.is_pending()) {
                return Ok(true);
            }
        }
        if self.channel.end_polling() {
            return Ok(true);
        }
        let mut fds = [PollFd::new(&self.channel, PollFlags::IN), PollFd::new(&self.toolstack, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut fds, None))?;
        let [ring, socket] = fds.map(|fd| !fd.revents().is_empty());
        if ring {
            self.channel.clear_signal();
        }
        if socket {
            self.hear()?;
        }
        Ok(ring)
    }

    fn hear(&mut self) -> anyhow::Result<()> {
        while let Some(notice) = self.toolstack.notice()? {
            match notice {
                Notice::Checkpoint { vcpu, number, .. } => {
                    if number == 1 {
                        self.set_access(AccessType::N)?;
                    }
                    self.toolstack.values(&Call::Release { vcpu })?;
                }
                Notice::Place { vcpu, .. } => drop(self.toolstack.values(&Call::Release { vcpu })?),
                Notice::Ended | Notice::Kill(_) => {}
                Notice::Crashed(why) => bail!("the domain crashed: {why}"),
            }
        }
        if self.toolstack.has_ended() { Err(Lost.into()) } else { Ok(()) }
    }

    fn set_access(&mut self, access: AccessType) -> anyhow::Result<()> {
        let Order { first, count, .. } = self.order;
        self.channel.client.values(&Call::Control(Control::SetAccess { first: Gfn(first), count, access }))?;
        Ok(())
    }

    #[expect(clippy::cast_precision_loss, reason = "some tens of thousands of events")]
    fn result(&self) -> anyhow::Result<Served> {
        let [first, .., last] = self.times[..] else { bail!("no events came") };
        if self.times.len() < self.order.events {
            bail!("{} events came where {} were due", self.times.len(), self.order.events);
        }
        let micros = self.times.windows(2).map(|two| (two[1] - two[0]).as_secs_f64() * 1e6).collect();
        let slices = self.fill.chunks(self.fill.len().div_ceil(SLICES).max(1));
        let fill = slices.map(|slice| f64::from(slice.iter().sum::<u32>()) / slice.len() as f64).collect();
        let fullest = self.fill.iter().copied().max().unwrap_or(0);
        Ok(Served { micros, fill, fullest, seconds: (last - first).as_secs_f64() })
    }
}
