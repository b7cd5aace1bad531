//! A whole run: boot, serve, end, verdict.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | a run from QEMU's start to its verdict |
//! | [`job`], [`facts`], [`trace_file`] | what is to be run, and what is told of it beforehand |
//! | [`serve`], [`signals`] | the loop that serves a domain |
//! | [`ending`], [`outcome`], [`report`] | what QEMU's end says; how it went; events as they come, and the summary |
//! | [`standing`] | how a long run stands, in one line on a terminal |
//! | [`attach`], [`status`] | a plugin in a QEMU of somebody else's: joined; asked, and freed of what a dead consumer left |

pub mod attach;
pub mod ending;
pub mod facts;
pub mod job;
pub mod outcome;
pub mod report;
pub mod serve;
pub mod signals;
pub mod standing;
pub mod status;
pub mod trace_file;

pub use self::job::Job;
pub use self::outcome::Outcome;

use self::ending::last_words;
use self::serve::{Ended, IN_ORDER};
use self::signals::Signals;
use self::trace_file::TraceFile;
use crate::consumers::Consumers;
use crate::consumers::figures::Figures;
use crate::machine::folder::RunFolder;
use crate::machine::process::Qemu;
use crate::machine::qemu::Machine;
use crate::machine::resident::Sampler;
use crate::machine::saved;
use crate::poll;
use crate::refusal::Refusal;
use crate::toolstack::log::{Log, Observer, Served};
use crate::toolstack::recording::Recording;
use crate::trace::contents;
use crate::verdict::{Kind, Verdict};
use anyhow::Context;
use mem_event_client::{Client, Lost};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a QEMU may take from closing its descriptors to its end.
const GRACE: Duration = Duration::from_secs(10);

/// How soon after an error a QEMU ends whose end belongs to it.
const MOMENT: Duration = Duration::from_millis(200);

impl Job {
    /// Runs it to its end.
    ///
    /// # Errors
    /// What a user can put right, as a [`Refusal`]; anything else that kept the run from having a verdict.
    pub fn run(&self, observer: &mut dyn Observer, signals: Option<&Signals>) -> anyhow::Result<Outcome> {
        let mut trace = TraceFile::open(self.trace.as_deref())?;
        let begun = Instant::now();
        let folder = RunFolder::create()?;
        // Every run is recorded: what is said of it is read from there. What goes into a pipe is for another reader.
        let record = self.trace.clone().filter(|_| trace.can_be_read()).unwrap_or_else(|| folder.file("trace"));
        let mut machine = self.machine()?;
        if let Some(plugin) = &mut machine.plugin {
            plugin.trace.get_or_insert_with(|| record.clone());
        }
        if let (Some(plugin), Some(_)) = (&mut machine.plugin, &self.trace) {
            plugin.facts = Some(facts::write(&self.scenario, self.guest.as_ref(), &self.symbols(), &folder)?);
        }
        let mut qemu = saved::start(&machine, self.from.as_ref(), &folder)?;
        let symbols = self.symbols();
        let socket = folder.file("socket");
        let recording = match &self.trace {
            Some(_) if !trace.can_be_read() => Recording::asked_of(Client::connect(&socket)?)?,
            _ => Recording::of(&record),
        };
        let mut log = Log::new(&symbols, recording, observer);
        let mut attended = Attended { job: self, resident: None, paged: Figures::default(), sleepers: Vec::new() };
        let verdict = match attended.serve(&socket, &mut qemu, &mut log, signals, begun) {
            Ok(verdict) => verdict,
            // Nothing worse is known: what a user can put right is told as such.
            Err(error) if Refusal::of(&error).is_some() && log.failures.is_empty() => return Err(error),
            Err(error) if is_the_end(&error, &qemu)? => ending::of_the_guest(self, &mut qemu)?,
            Err(error) => {
                let verdict = Verdict::new(Kind::Error, format!("{error:#}{}", last_words(&qemu)));
                // Where QEMU ended too, its end may be worse, and is no success in any case.
                if poll::readable(&qemu, Instant::now() + MOMENT)? {
                    ending::of_the_guest(self, &mut qemu)?.and(verdict)
                } else {
                    verdict
                }
            }
        };
        trace.keep();
        let read = log.finish().err().map(|error| Verdict::new(Kind::Error, format!("{error:#}")));
        let Attended { resident, paged, sleepers, .. } = attended;
        log.failures.extend(self.changed_contents(&record)?);
        let verdict = log.with_failures(read.into_iter().fold(verdict, Verdict::and));
        let (console, said) = (qemu.console(), qemu.errors());
        let (counts, records, mut notes) = (log.counts(), log.records, log.notes);
        notes.extend(self.notes_on_the_gate(&said));
        notes.extend(job::lines_of_the_plugin(&said, "code: "));
        notes.extend(self.notes_on_faults(&said));
        notes.extend(job::not_seen(&said));
        notes.extend(job::lines_of_the_plugin(&said, "a guest's guest: "));
        let cut = job::lines_of_the_plugin(&said, "the trace ").next();
        notes
            .extend(cut.as_ref().map(|_| "the record ended before the run did: what came later is not counted".into()));
        let took = begun.elapsed();
        Ok(Outcome { verdict, records, counts, paged, resident, sleepers, notes, cut, console, said, took })
    }
}

impl Job {
    /// What its trace says of frames that came back changed. A trace that went into a pipe is not there to be read.
    fn changed_contents(&self, recording: &Path) -> Result<Vec<String>, Refusal> {
        if self.checks_contents() && recording.is_file() {
            contents::judge(recording, &self.symbols())
        } else {
            Ok(Vec::new())
        }
    }
}

/// A run from its first control operation on, with what is known of it when it ends in an error.
struct Attended<'a> {
    job: &'a Job,
    resident: Option<(u64, u64)>,
    paged: Figures,
    sleepers: Vec<String>,
}

impl Attended<'_> {
    fn serve(
        &mut self,
        socket: &Path,
        qemu: &mut Qemu,
        log: &mut Log<'_>,
        signals: Option<&Signals>,
        begun: Instant,
    ) -> anyhow::Result<Verdict> {
        let scenario = &self.job.scenario;
        let guest = self.job.guest.as_ref().map(|guest| guest.path.as_path());
        let mut consumers = Consumers::enable(socket, scenario, guest, log)?;
        consumers.spin = self.job.spin;
        let sampler = scenario.target().map(|_| Sampler::start(qemu.pid())).transpose()?;
        consumers.hold_to_target(scenario)?;
        consumers.look(self.job.from.is_some(), log)?;
        if let Some(sampler) = &sampler {
            sampler.restart();
        }
        let deadline = begun + scenario.deadline.0;
        log.served(&Served::of(scenario, qemu.pid(), Some(qemu.console_file()), begun));
        let served = qemu
            .qmp
            .execute("cont")
            .and_then(|_| serve::serve(&mut consumers, scenario, log, Some(&mut *qemu), signals, deadline));
        if served.is_err() {
            // A domain that crashed and took QEMU with it said why before.
            let _ = consumers.hear(scenario, log);
        }
        let (ended, error) = match served {
            Err(error) if log.crash.is_some() => (Ok(Ended::Crashed), Some(error).filter(|error| !error.is::<Lost>())),
            Err(error) if is_the_end(&error, qemu)? => (Ok(Ended::Gone), None),
            other => (other, None),
        };
        self.paged = consumers.in_process.paged();
        self.resident = sampler.map(|sampler| sampler.largest());
        let verdict = match ended? {
            Ended::Gone => ending::of_the_guest(self.job, qemu)?,
            Ended::Fault(why) => {
                self.sleepers = consumers.sleepers(&self.job.symbols()).unwrap_or_default();
                Verdict::new(Kind::Failure, why)
            }
            Ended::Crashed => Verdict::new(Kind::Crash, log.crash.clone().unwrap_or_default()),
            end @ (Ended::Signal | Ended::Enough) => {
                // Who waits is answered until QEMU has ended: a vCPU that stands in the kernel would keep it from that.
                qemu.terminate();
                let until = Instant::now() + IN_ORDER;
                let _ = serve::serve(&mut consumers, scenario, log, Some(&mut *qemu), None, until);
                match end {
                    Ended::Enough => Verdict::new(Kind::Success, "told as much as was wanted"),
                    _ => Verdict::new(Kind::Error, "interrupted by a signal"),
                }
            }
            Ended::Held => {
                self.sleepers = consumers.sleepers(&self.job.symbols()).unwrap_or_default();
                consumers.end_trace();
                qemu.kill();
                ending::of_its_end(self.job, qemu, None)?
            }
            Ended::Deadline => self.of_the_deadline(&mut consumers, qemu),
        };
        qemu.end(IN_ORDER);
        let verdict = [error, consumers.finish().map(|faults| log.failures.extend(faults)).err()]
            .into_iter()
            .flatten()
            .fold(verdict, |verdict, error| verdict.and(Verdict::new(Kind::Error, format!("{error:#}"))));
        // A guest that cannot run here comes to no checkpoint, and says why.
        let missed = consumers.not_reached(scenario).filter(|_| verdict.kind != Kind::Skip);
        Ok(match missed {
            Some(missed) => verdict.worst(Verdict::new(Kind::Error, missed)),
            None => verdict,
        })
    }

    fn of_the_deadline(&mut self, consumers: &mut Consumers, qemu: &mut Qemu) -> Verdict {
        let limit = self.job.scenario.deadline.0;
        self.sleepers = consumers
            .sleepers(&self.job.symbols())
            .unwrap_or_else(|error| vec![format!("the plugin does not tell: {error:#}")]);
        // Who waits in the kernel keeps QEMU from its own end.
        consumers.end_trace();
        let who = match self.sleepers.as_slice() {
            [] if qemu.qmp.hear().is_ok() && qemu.qmp.is_asleep() => "the guest sleeps (S3)".into(),
            [] => "no vCPU sleeps".into(),
            sleepers => sleepers.join("; "),
        };
        Verdict::new(Kind::Failure, format!("the deadline of {limit:?} passed; {who}"))
    }
}

/// Whether the error is that QEMU has ended, which a connection notices first. Waits for the end. No other error is one, however soon
/// after it QEMU ends: a guest's verdict does not undo what was refused.
fn is_the_end(error: &anyhow::Error, qemu: &Qemu) -> anyhow::Result<bool> {
    Ok(error.is::<Lost>() && poll::readable(qemu, Instant::now() + GRACE)?)
}

/// Boots a job's guest without the plugin, for measuring what the plugin costs; how long it took and the console.
///
/// # Errors
/// QEMU cannot be started, or the guest does not end before the deadline.
pub fn run_machine(machine: &Machine, deadline: Duration) -> anyhow::Result<(Duration, String)> {
    let begun = Instant::now();
    let folder = RunFolder::create()?;
    let mut qemu = machine.start(&folder)?;
    qemu.qmp.execute("cont")?;
    if serve::wait_for_end(&qemu, begun + deadline)? != Ended::Gone {
        anyhow::bail!("the guest did not end within {deadline:?}");
    }
    qemu.wait().context("cannot wait for QEMU")?;
    Ok((begun.elapsed(), qemu.console()))
}
