//! Consumers that misbehave, each in one way: what an engine must survive. They give the page of a violation the rights that were
//! asked for first, so what is wrong is the answer alone.

use crate::scenario::settings::{Fault, FaultySettings};
use mem_event::wire::response_bytes;
use mem_event::{Event, Request, Response};
use mem_event_client::Channel;
use rustix::process::{Signal, getpid, kill_process};
use std::time::Duration;

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
                self.open(&request)?;
                if self.seen < self.settings.at {
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
        }
    }
}

fn die() -> anyhow::Result<()> {
    Ok(kill_process(getpid(), Signal::KILL)?)
}
