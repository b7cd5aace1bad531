//! Consumers that misbehave, each in one way: what an engine must survive. They give the page of a violation the rights that were
//! asked for first, where that is not the fault itself, so what is wrong is the answer alone.

use crate::scenario::settings::{Fault, FaultySettings};
use mem_event::message::Call;
use mem_event::wire::response_bytes;
use mem_event::{Control, CpuEventKind, Event, Flags, Gfn, Layout, MonitorMode, Request, Response};
use mem_event_client::Channel;
use rustix::process::{Signal, getpid, kill_process};
use std::time::Duration;

/// Calls of one that nags, before each answer.
const NAGS: u64 = 1_500;

/// One that misbehaves.
#[derive(Debug)]
pub struct Faulty {
    channel: Channel,
    settings: FaultySettings,
    seen: u64,
}

impl Faulty {
    /// One on a ring that is enabled.
    #[must_use]
    pub fn new(channel: Channel, settings: FaultySettings) -> Faulty {
        Faulty { channel, settings, seen: 0 }
    }

    /// Serves, in its way, until the domain ends.
    ///
    /// # Errors
    /// The connection ended, or the plugin refuses something.
    pub fn serve(&mut self) -> anyhow::Result<()> {
        while self.channel.wait()? {
            let mut waiting: Vec<Request> = std::iter::from_fn(|| self.channel.take()).collect();
            if self.settings.fault == Fault::OutOfOrder && self.seen + 1 >= self.settings.at {
                waiting.reverse();
            }
            for request in waiting {
                self.seen += 1;
                let is_right = self.seen < self.settings.at
                    || (self.settings.fault == Fault::Forgetful && self.seen > self.settings.at);
                if is_right || self.settings.fault != Fault::NoRights {
                    self.open(&request)?;
                }
                if is_right {
                    self.answer(&request.answer())?;
                } else {
                    self.misbehave(&request)?;
                    // For a test that waits until it has happened.
                    println!("event {}: {:?}", self.seen, self.settings.fault);
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, request: &Request) -> anyhow::Result<()> {
        if let Event::Violation { gfn, rights, .. } = request.event {
            self.channel.client.grant(gfn, rights)?;
        }
        Ok(())
    }

    fn answer(&mut self, response: &Response) -> anyhow::Result<()> {
        self.channel.answer(response);
        self.channel.kick()
    }

    fn misbehave(&mut self, request: &Request) -> anyhow::Result<()> {
        let right = request.answer();
        let (ring, settings) = self.channel.shape();
        match self.settings.fault {
            Fault::Slow => {
                std::thread::sleep(Duration::from_millis(self.settings.delay));
                self.answer(&right)
            }
            Fault::OutOfOrder => self.answer(&right),
            Fault::Silent => Ok(()),
            Fault::Dying => die(),
            Fault::DyingMapped => {
                while let Some(gfn) = request.frame()
                    && !self.channel.client.pin(gfn)?
                {}
                die()
            }
            Fault::DyingAnswered => {
                self.channel.answer(&right);
                die()
            }
            Fault::Duplicate => {
                let bytes = response_bytes(settings.layout, ring, &right);
                self.channel.back().write_raw(&bytes);
                self.channel.back().answer_raw(&bytes);
                self.channel.kick()
            }
            Fault::Malformed => {
                self.channel.back().answer_raw(&vec![0xff; settings.layout.slot_bytes()]);
                self.channel.kick()
            }
            Fault::WrongVcpu => self.answer(&Response { vcpu: right.vcpu + 1, ..right }),
            Fault::DyingMonitoring => {
                let (kind, mode) = (CpuEventKind::Cr3, MonitorMode::Sync);
                let monitor = Control::Monitor { kind, mode, on_change_only: false };
                self.channel.client.values(&Call::Control(monitor))?;
                die()
            }
            Fault::NotPaused => self.answer(&Response { flags: Flags(right.flags.0 & !Flags::VCPU_PAUSED.0), ..right }),
            Fault::OtherVersion => {
                anyhow::ensure!(
                    settings.layout == Layout::VmEvent7,
                    "only vm_event7 has versions; give access:vm_event7"
                );
                let mut bytes = response_bytes(settings.layout, ring, &right);
                bytes[0] ^= 1;
                self.channel.back().answer_raw(&bytes);
                self.channel.kick()
            }
            Fault::Unsignalled => {
                self.channel.answer(&right);
                Ok(())
            }
            Fault::NoRights => self.answer(&right),
            Fault::Forgetful => Ok(()),
            Fault::Nagging => self.nag(request, &right),
        }
    }

    /// Calls that are refused, as there is no pager's ring (ENODEV), and then the answer.
    fn nag(&mut self, request: &Request, right: &Response) -> anyhow::Result<()> {
        for _ in 0..NAGS {
            let gfn = request.frame().unwrap_or(Gfn(0));
            let _refused = self.channel.client.control(Control::Nominate { gfn })?;
        }
        self.answer(right)
    }
}

fn die() -> anyhow::Result<()> {
    Ok(kill_process(getpid(), Signal::KILL)?)
}
