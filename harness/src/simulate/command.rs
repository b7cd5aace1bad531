//! `simulate` on the command line.

use super::amount::count;
use super::arrival::Arrival;
use super::law::Law;
use super::page;
use super::recording::Recording;
use super::report;
use super::settings::{Dispatch, Settings};
use super::sweep::{Sweep, simulate_all};
use crate::output::print;
use crate::refusal::{Refusal, nearest};
use crate::trace::progress::Progress;
use clap::Args;
use mem_event::flow::FlowKind;
use std::path::{Path, PathBuf};

/// The policies in the order of their years, ours last.
const POLICIES: [FlowKind; 4] = [FlowKind::CheckRing, FlowKind::WaitQueueV5, FlowKind::Blocked2012, FlowKind::Queue];

/// `simulate`
#[derive(Clone, Debug, Args)]
pub struct Simulate {
    /// Flow control: queue (this engine's), check-ring (before 2011-12), wait-queue-v5 (the patch), blocked-2012 (what Xen took), several with
    /// commas, or all of them side by side.
    #[arg(long, value_name = "POLICY", default_value = "all")]
    pub policy: String,
    /// vCPUs, 0 to 4096; each stops at its event until it is answered. By default 8, or those of the trace.
    #[arg(long, value_name = "N")]
    pub vcpus: Option<String>,
    /// Slots a ring, 1 to 4096; above 64 a ring has several pages. By default 64, or those of the trace.
    #[arg(long, value_name = "N")]
    pub slots: Option<String>,
    /// Rings, 1 to 3: access, paging, sharing; each event is on one that is drawn.
    #[arg(long, value_name = "N", default_value = "1")]
    pub rings: String,
    /// Foreign producers, which cannot sleep and do not wait for answers.
    #[arg(long, value_name = "N", default_value = "0")]
    pub foreign: String,
    /// Tries of a foreign producer before it gives an event up.
    #[arg(long, value_name = "N", default_value = "1")]
    pub tries: String,
    /// Consumers a ring, 1 to 1024.
    #[arg(long, value_name = "N", default_value = "1")]
    pub consumers: String,
    /// Which consumer takes a request: any that has time, or always the same for a vCPU.
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    pub dispatch: Dispatch,
    /// Requests that a consumer takes at a time, and answers together.
    #[arg(long, value_name = "N", default_value = "1")]
    pub batch: String,
    /// The part of the requests that a consumer never answers (0.001).
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    pub loss: f64,
    /// The part of the events that stop no vCPU, as a register write that is only told of.
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    pub notices: f64,
    /// The part of the events that tell of a frame given back.
    #[arg(long, value_name = "PART", default_value_t = 0.0)]
    pub drops: f64,
    /// From a vCPU's running again to its next event: a time (2us), exp:MEAN, uniform:FROM..TO, lognormal:MEAN,DEVIATION, file:PATH. By default
    /// exp:100us, or as in the trace.
    #[arg(long, value_name = "TIMES")]
    pub think: Option<Law>,
    /// The same for foreign producers.
    #[arg(long, value_name = "TIMES", default_value = "exp:100us")]
    pub foreign_think: Law,
    /// What a consumer takes for a request; by default exp:2us, or as in the trace.
    #[arg(long, value_name = "TIMES")]
    pub service: Option<Law>,
    /// From a vCPU's being woken to its running; by default exp:2us, or as in the trace.
    #[arg(long, value_name = "TIMES")]
    pub wake: Option<Law>,
    /// From a claim to the request's being on the ring.
    #[arg(long, value_name = "TIMES", default_value = "0")]
    pub prepare: Law,
    /// From a request to the look of a consumer that slept.
    #[arg(long, value_name = "TIMES", default_value = "0")]
    pub signal: Law,
    /// Events that are made (100k, 5M).
    #[arg(long, value_name = "N", default_value = "100k")]
    pub events: String,
    /// What all chance comes from.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// A recorded run: how long its vCPUs worked and its consumer took, for as many vCPUs as are asked for.
    #[arg(long, value_name = "TRACE")]
    pub from: Option<PathBuf>,
    /// Vary a number: vcpus=1..1024 (doubling), slots=8..64+8, service=1us..50us*1.5, loss=0,0.01,0.1.
    #[arg(long, value_name = "NAME=VALUES")]
    pub sweep: Option<Sweep>,
    /// A line of JSON a run.
    #[arg(long)]
    pub json: bool,
    /// All figures as CSV, into this file; - for the standard output.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// The pictures in one page, into this file; - for the standard output.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// `simulate`
///
/// # Errors
/// Settings that cannot be simulated, a trace that cannot be used, a file that cannot be written.
pub fn simulate(arguments: &Simulate) -> anyhow::Result<u8> {
    let policies = policies(&arguments.policy)?;
    let recording = arguments.from.as_deref().map(Recording::read).transpose()?;
    let settings = settings(arguments, recording.as_ref())?;
    let points = match &arguments.sweep {
        Some(sweep) => sweep.points(&settings)?,
        None => {
            settings.check()?;
            vec![settings.clone()]
        }
    };
    let files = || arguments.csv.iter().chain(&arguments.html);
    let printed = files().filter(|path| path.as_path() == Path::new("-")).count();
    if printed + usize::from(arguments.json) > 1 {
        return Err(
            Refusal::usage("two outputs cannot share the standard output", "give --csv or --html a file").into()
        );
    }
    // What cannot be written is said before anything takes long.
    for path in files().filter(|path| path.as_path() != Path::new("-")) {
        write(path, "")?;
    }
    let progress = Progress::new("simulations", (points.len() * policies.len()) as u64);
    let runs = simulate_all(&points, &policies, |done| progress.one(done as u64));
    progress.end();
    let (record, sweep) = (recording.as_ref().map(|it| &it.figures), arguments.sweep.as_ref());
    if let Some(path) = &arguments.html {
        write(path, &page::page(&settings, record, sweep, &runs))?;
    }
    if let Some(path) = &arguments.csv {
        write(path, &report::csv(sweep, &runs))?;
    }
    if arguments.json {
        print(&report::json(record, &runs)?)?;
    } else if printed == 0 {
        print(&report::text(&settings, record, sweep, &runs))?;
    }
    Ok(0)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path == Path::new("-") {
        return print(text);
    }
    let cannot =
        |error| Refusal::usage(format!("cannot write {}: {error}", path.display()), "name a file that can be written");
    Ok(std::fs::write(path, text).map_err(cannot)?)
}

fn policies(text: &str) -> Result<Vec<FlowKind>, Refusal> {
    if text == "all" {
        return Ok(POLICIES.to_vec());
    }
    let policy = |name: &str| {
        let names = POLICIES.map(|kind| kind.to_string());
        let found = POLICIES.into_iter().find(|kind| kind.to_string() == name);
        found.ok_or_else(|| {
            let near = nearest(name, names.iter().map(String::as_str));
            let meant = near.first().map(|near| format!("did you mean {near}? ")).unwrap_or_default();
            Refusal::usage(format!("{name:?} is no policy"), format!("{meant}there are {}, and all", names.join(", ")))
        })
    };
    text.split(',').map(|name| policy(name.trim())).collect()
}

fn settings(arguments: &Simulate, recording: Option<&Recording>) -> Result<Settings, Refusal> {
    let number = |name: &str, text: &str| {
        let whole = count(text).and_then(|count| u32::try_from(count).ok());
        whole.ok_or_else(|| Refusal::usage(format!("--{name} {text:?} is no number"), "write a whole number, as 64"))
    };
    let events = count(&arguments.events);
    let events = events.ok_or_else(|| {
        Refusal::usage(format!("--events {:?} is no number", arguments.events), "write 100k, 5M or 20000")
    })?;
    let of_record = |of: fn(&Recording) -> u32, otherwise: u32| recording.map_or(otherwise, of);
    let optional =
        |name, text: &Option<String>, otherwise| text.as_deref().map_or(Ok(otherwise), |text| number(name, text));
    let law = |given: &Option<Law>, recorded: Option<&Law>, otherwise: Law| {
        given.clone().or(recorded.cloned()).unwrap_or(otherwise)
    };
    let think = match (&arguments.think, recording) {
        (Some(law), _) => Arrival::Law(law.clone()),
        (None, Some(recording)) => recording.think.clone(),
        (None, None) => Arrival::Law(Law::Exponential(100_000.0)),
    };
    Ok(Settings {
        vcpus: optional("vcpus", &arguments.vcpus, of_record(|it| it.figures.vcpus, 8))?,
        slots: optional("slots", &arguments.slots, of_record(|it| it.figures.slots, 64))?,
        rings: number("rings", &arguments.rings)?,
        foreign: number("foreign", &arguments.foreign)?,
        tries: number("tries", &arguments.tries)?,
        consumers: number("consumers", &arguments.consumers)?,
        dispatch: arguments.dispatch,
        batch: number("batch", &arguments.batch)?,
        loss: arguments.loss,
        notices: arguments.notices,
        drops: arguments.drops,
        think,
        foreign_think: arguments.foreign_think.clone(),
        prepare: arguments.prepare.clone(),
        service: law(&arguments.service, recording.map(|it| &it.service), Law::Exponential(2_000.0)),
        wake: law(&arguments.wake, recording.map(|it| &it.wake), Law::Exponential(2_000.0)),
        signal: arguments.signal.clone(),
        events,
        seed: arguments.seed,
    })
}
