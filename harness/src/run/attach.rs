//! Joins a plugin in a QEMU that somebody else started, and leaves it as it was.

use super::outcome::Outcome;
use super::serve::{self, Ended};
use super::signals::Signals;
use super::status;
use super::trace_file::TraceFile;
use crate::consumers::Consumers;
use crate::consumers::figures::Figures;
use crate::guest::symbols::Symbols;
use crate::machine::resident::Sampler;
use crate::refusal::Refusal;
use crate::scenario::{Scenario, Size};
use crate::toolstack::log::{Log, Observer, Served};
use crate::toolstack::recording::{Kept, Recording};
use crate::verdict::{Kind, Verdict};
use mem_event::PAGE_SIZE;
use mem_event::spin::Spin;
use mem_event_client::{Client, Lost};
use std::path::Path;
use std::time::Instant;

/// Serves a domain until it ends, the deadline passes, or a signal comes; then gives every page and right back. With a trace it is recorded meanwhile.
///
/// # Errors
/// Nobody listens at the socket, or the plugin refuses.
pub fn attach(
    socket: &Path,
    scenario: &mut Scenario,
    symbols: &Symbols,
    observer: &mut dyn Observer,
    signals: Option<&Signals>,
    (spin, trace): (Spin, Option<&Path>),
) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let mut client = Client::connect(socket).map_err(|error| {
        Refusal::usage(format!("{error:#}"), "name the socket that the plugin was given (its argument socket=PATH)")
    })?;
    let info = client.info()?;
    scenario.machine.memory = Size(info.frames * PAGE_SIZE as u64);
    scenario.machine.vcpus = u32::try_from(info.vcpus).unwrap_or(u32::MAX);
    let pid = rustix::net::sockopt::socket_peercred(&client)?.pid.as_raw_nonzero().get();
    let sampler = scenario.target().map(|_| Sampler::start(pid.unsigned_abs())).transpose()?;
    let mut file = TraceFile::open(trace)?;
    let kept = trace.map(|path| Kept::begin(socket, path)).transpose()?;
    file.keep();
    let mut log = Log::new(symbols, Recording::asked_of(client)?, observer);
    let mut consumers = Consumers::enable(socket, scenario, None, &mut log)?;
    consumers.spin = spin;
    consumers.hold_to_target(scenario)?;
    consumers.look(true, &log)?;
    if let Some(sampler) = &sampler {
        sampler.restart();
    }
    log.attached(scenario.machine.vcpus);
    log.served(&Served::of(scenario, pid.unsigned_abs(), None, begun));
    let deadline = begun + scenario.deadline.0;
    let ended = match serve::serve(&mut consumers, scenario, &mut log, None, signals, deadline) {
        Err(error) if error.is::<Lost>() => Ended::Gone,
        other => other?,
    };
    let paged: Figures = consumers.in_process.paged();
    // Before it is left: then every page comes back.
    let resident = sampler.map(|sampler| sampler.largest());
    let mut sleepers = Vec::new();
    let verdict = match ended {
        // Only a QEMU of one's own is seen to be held.
        Ended::Gone | Ended::Held => {
            // Another connection may have noticed its end before its last word was read here.
            let _ = consumers.hear(scenario, &mut log);
            if consumers.ended_in_order {
                Verdict::new(Kind::Success, "the domain ended")
            } else {
                Verdict::new(Kind::Crash, "QEMU ended without a word: it was killed, or it crashed")
            }
        }
        Ended::Fault(why) => {
            leave(consumers, socket, scenario, &mut log)?;
            Verdict::new(Kind::Failure, why)
        }
        Ended::Crashed => Verdict::new(Kind::Crash, log.crash.clone().unwrap_or_default()),
        Ended::Signal | Ended::Enough | Ended::Deadline => {
            if ended == Ended::Deadline {
                sleepers = consumers.sleepers(symbols)?;
            }
            leave(consumers, socket, scenario, &mut log)?;
            Verdict::new(Kind::Success, "left the domain")
        }
    };
    let read = log.finish().err().map(|error| Verdict::new(Kind::Error, format!("{error:#}")));
    let read = read
        .into_iter()
        .chain(kept.and_then(|kept| kept.end().err()).map(|error| Verdict::new(Kind::Error, format!("{error:#}"))));
    let verdict = log.with_failures(read.fold(verdict, Verdict::and));
    let (counts, records, notes) = (log.counts(), log.records, log.notes);
    let (console, said, took, cut) = (String::new(), String::new(), begun.elapsed(), None);
    Ok(Outcome { verdict, records, counts, paged, resident, sleepers, notes, cut, console, said, took })
}

/// Leaves the domain as it was. Consumers that are processes are ended, and what they leave behind is as [`status`] releases it.
fn leave(consumers: Consumers, socket: &Path, scenario: &Scenario, log: &mut Log<'_>) -> anyhow::Result<()> {
    consumers.leave(scenario, log)?;
    if !scenario.consumers.external.is_empty() {
        status::release_what_is_left(socket)?;
    }
    Ok(())
}
