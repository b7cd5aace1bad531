//! What is simulated.

use super::arrival::Arrival;
use super::law::Law;
use crate::refusal::Refusal;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt;

/// Which of a ring's consumers takes a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Dispatch {
    /// The first that has time.
    #[default]
    Any,
    /// Always the same for a vCPU: its number modulo that of the consumers.
    Vcpu,
}

/// A domain with its rings and consumers, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// vCPUs, each of which makes one event at a time and stops until it is answered.
    pub vcpus: u32,
    /// Rings, of access, paging and sharing; each event is on one that is drawn.
    pub rings: u32,
    /// Slots a ring.
    pub slots: u32,
    /// Producers that are no vCPU of the domain: they do not wait for answers.
    pub foreign: u32,
    /// Consumers a ring.
    pub consumers: u32,
    /// Which of them takes a request.
    pub dispatch: Dispatch,
    /// Requests that a consumer takes at a time, and answers together.
    pub batch: u32,
    /// The part of the requests that a consumer takes and never answers.
    pub loss: f64,
    /// Tries of a foreign producer before it gives an event up.
    pub tries: u32,
    /// From a vCPU's running again to its next event.
    pub think: Arrival,
    /// From one event of a foreign producer to its next, and from one try to the next.
    pub foreign_think: Law,
    /// The part of the events that stop no vCPU (a write of a control register that is only told of).
    pub notices: f64,
    /// The part of the events that tell the pager of a frame that the guest has given back. They stop no vCPU either.
    pub drops: f64,
    /// From a slot's being claimed to the request's being put.
    pub prepare: Law,
    /// What a consumer takes for one request.
    pub service: Law,
    /// From a vCPU's being woken to its running.
    pub wake: Law,
    /// From a request's being put to the look of a consumer that slept.
    pub signal: Law,
    /// Events that are made.
    pub events: u64,
    /// What all draws come from.
    pub seed: u64,
}

/// The least and the most of what may be asked for.
pub const LIMITS: [(&str, u64, u64); 8] = [
    ("vcpus", 0, 4096),
    ("rings", 1, 3),
    ("slots", 1, 4096),
    ("foreign", 0, 4096),
    ("consumers", 1, 1024),
    ("batch", 1, 4096),
    ("tries", 1, 1000),
    ("events", 1, 1_000_000_000),
];

impl Settings {
    /// One ring of 64 slots and one consumer, in a world where nothing else takes time.
    #[must_use]
    pub fn plain(vcpus: u32, think: Law, service: Law) -> Settings {
        Settings {
            vcpus,
            rings: 1,
            slots: 64,
            foreign: 0,
            consumers: 1,
            dispatch: Dispatch::Any,
            batch: 1,
            loss: 0.0,
            tries: 1,
            think: Arrival::Law(think.clone()),
            foreign_think: think,
            notices: 0.0,
            drops: 0.0,
            prepare: Law::Constant(0),
            service,
            wake: Law::Constant(0),
            signal: Law::Constant(0),
            events: 400_000,
            seed: 1,
        }
    }

    /// Whether it can be simulated.
    ///
    /// # Errors
    /// What is out of its range, with the range.
    pub fn check(&self) -> Result<(), Refusal> {
        let numbers =
            [self.vcpus, self.rings, self.slots, self.foreign, self.consumers, self.batch, self.tries].map(u64::from);
        for ((name, least, most), number) in LIMITS.into_iter().zip(numbers.into_iter().chain([self.events])) {
            if !(least..=most).contains(&number) {
                let range = format!("give --{name} a number from {least} to {most}");
                return Err(Refusal::usage(format!("{number} {name} cannot be simulated"), range));
            }
        }
        if self.vcpus == 0 && self.foreign == 0 {
            return Err(Refusal::usage("nobody makes an event", "give --vcpus or --foreign a number above 0"));
        }
        for (name, part) in [
            ("loss", self.loss),
            ("notices", self.notices),
            ("drops", self.drops),
            ("notices and drops", self.notices + self.drops),
        ] {
            if !(0.0..=1.0).contains(&part) {
                return Err(Refusal::usage(
                    format!("{part} is no part of the events: {name}"),
                    "give a number from 0 to 1 (0.01 is one in a hundred)",
                ));
            }
        }
        // Else time stands still, and what is made in no time is no load.
        if self.think.mean() + self.service.mean() + self.wake.mean() < 1.0 && self.vcpus > 0 {
            return Err(Refusal::usage(
                "a vCPU's event takes no time at all",
                "give --think, --service or --wake a time above 0",
            ));
        }
        if self.foreign > 0 && self.foreign_think.mean() < 1.0 {
            return Err(Refusal::usage(
                "a foreign producer makes all its events at once",
                "give --foreign-think a time above 0",
            ));
        }
        Ok(())
    }
}

/// What is simulated, in a sentence.
impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |count: u32| if count == 1 { "" } else { "s" };
        let Settings { vcpus, rings, slots, consumers, foreign, events, seed, .. } = self;
        write!(f, "{vcpus} vCPU{} that work {} between events", s(*vcpus), self.think)?;
        if *foreign > 0 {
            write!(
                f,
                "; {foreign} foreign producer{} ({}, {} tr{})",
                s(*foreign),
                self.foreign_think,
                self.tries,
                if self.tries == 1 { "y" } else { "ies" }
            )?;
        }
        write!(f, "; {rings} ring{} of {slots} slot{}", s(*rings), s(*slots))?;
        write!(f, "; {consumers} consumer{} a ring (service {}", s(*consumers), self.service)?;
        if *consumers > 1 && self.dispatch == Dispatch::Vcpu {
            write!(f, ", each with its own vCPUs")?;
        }
        if self.batch > 1 {
            write!(f, ", {} at a time", self.batch)?;
        }
        write!(f, "); woken vCPUs run after {}", self.wake)?;
        for (name, part) in
            [("never answered", self.loss), ("only told of", self.notices), ("frames given back", self.drops)]
        {
            if part > 0.0 {
                write!(f, "; {} % {name}", part * 100.0)?;
            }
        }
        for (name, law) in [("claim to put", &self.prepare), ("signal to look", &self.signal)] {
            if law.mean() > 0.0 {
                write!(f, "; {name} {law}")?;
            }
        }
        write!(f, "; {events} events, seed {seed}")
    }
}
