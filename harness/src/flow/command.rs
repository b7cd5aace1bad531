//! `mem-event flow`: a scenario's guest, or a recorded run's events, under each flow control.

use super::page::{amount, list, page};
use super::told::Told;
use super::{again, measure};
use crate::machine::folder::RunFolder;
use crate::output::{self, print};
use crate::refusal::Refusal;
use crate::run::Job;
use crate::run::report::{Live, Style};
use crate::run::signals::Signals;
use crate::scenario::amount::time;
use crate::scenario::{Name, Scenario, Time, corpus};
use crate::trace::open;
use crate::verdict::Kind;
use anyhow::Context;
use clap::Args;
use comfy_table::Table;
use mem_event::flow::FlowKind;
use std::path::{Path, PathBuf};

/// `flow`
#[derive(Clone, Debug, Args)]
pub struct FlowOptions {
    /// A scenario (a file or a built-in one), which is run four times; or a trace, whose events are done again without a guest.
    pub subject: String,
    /// A line of JSON for each flow control.
    #[arg(long)]
    pub json: bool,
    /// A page with four time lines on one axis.
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
    /// How long each run of a scenario may take before its vCPUs count as hung; the scenario's deadline by default.
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// The schedule of a trace's events.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// A folder that gets a trace of each run.
    #[arg(long, value_name = "FOLDER")]
    pub traces: Option<PathBuf>,
    /// Slots of the ring, a power of two; those of the scenario or the trace by default.
    #[arg(long)]
    pub slots: Option<u32>,
    /// The QEMU of a scenario's runs.
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

/// `flow`; 0 when it is told, whatever it is.
///
/// # Errors
/// No such scenario or trace, a run that cannot be, a page that cannot be written.
pub fn flow(arguments: &FlowOptions) -> anyhow::Result<u8> {
    let (runs, vcpus) = match corpus::find_or_load(&arguments.subject)? {
        Some(scenario) => run_each(&scenario, arguments)?,
        None => again_each(Path::new(&arguments.subject), arguments)?,
    };
    if let Some(path) = &arguments.page {
        let text = page(&arguments.subject, &runs, vcpus);
        std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    print(&if arguments.json {
        runs.iter().map(|told| Ok(output::json(told)? + "\n")).collect::<serde_json::Result<String>>()?
    } else {
        table(&runs)
    })?;
    Ok(0)
}

/// Where a run's trace is kept, if it is.
fn kept(arguments: &FlowOptions, flow: FlowKind) -> Option<PathBuf> {
    arguments.traces.as_ref().map(|folder| folder.join(format!("{flow}.trace")))
}

fn again_each(path: &Path, arguments: &FlowOptions) -> anyhow::Result<(Vec<Told>, usize)> {
    let mut tape = open(path)?;
    let vcpus = tape.header().config.vcpus as usize;
    let events = again::of(&mut tape);
    let run = |flow| again::run(&events, flow, arguments.seed, arguments.slots, kept(arguments, flow).as_deref());
    Ok((FlowKind::ALL.into_iter().map(run).collect::<anyhow::Result<_>>()?, vcpus))
}

fn run_each(scenario: &Scenario, arguments: &FlowOptions) -> anyhow::Result<(Vec<Told>, usize)> {
    let signals = Signals::catch().context("cannot catch signals")?;
    let vcpus = scenario.machine.vcpus as usize;
    let mut runs = Vec::new();
    for flow in FlowKind::ALL {
        let mut scenario = scenario.clone();
        for ring in [&mut scenario.rings.access, &mut scenario.rings.paging, &mut scenario.rings.sharing] {
            ring.flow = Name(flow);
            ring.slots = arguments.slots.unwrap_or(ring.slots);
        }
        if let Some(text) = &arguments.deadline {
            scenario.deadline = Time(time(text)?);
        }
        runs.push(run_one(scenario, flow, arguments, &signals)?);
    }
    Ok((runs, vcpus))
}

fn run_one(scenario: Scenario, flow: FlowKind, arguments: &FlowOptions, signals: &Signals) -> anyhow::Result<Told> {
    let mut job = Job::new(scenario, arguments.qemu.as_deref())?;
    let folder = RunFolder::create()?;
    let path = kept(arguments, flow).unwrap_or_else(|| folder.file("trace"));
    job.trace = Some(path.clone());
    let outcome = job.run(&mut Live::new(Style::Quiet), Some(signals))?;
    let told = open(&path).map(|mut tape| {
        // What is no fault of the flow control's is told with its cause.
        let kind = match outcome.verdict.kind {
            Kind::Error => outcome.verdict.to_string(),
            kind => format!("{kind:?}").to_lowercase(),
        };
        measure::measure(&mut tape, flow, kind)
    });
    let remedy = "run the scenario by itself first";
    told.map_err(|error| Refusal::usage(format!("the run under {flow} left no trace: {error}"), remedy).into())
}

fn table(runs: &[Told]) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    let head = ["flow", "events", "lost", "refused", "in vain", "longest wait", "fairness", "hung", "ended"];
    table.set_header(head);
    for told in runs {
        let hung = if told.hung.is_empty() { "-".to_owned() } else { format!("vCPU {}", list(&told.hung)) };
        table.add_row([
            told.flow.to_string(),
            told.events.to_string(),
            told.lost.to_string(),
            told.refused.to_string(),
            told.in_vain.to_string(),
            amount(told.longest, told.unit),
            format!("{:.3}", told.fairness),
            hung,
            told.ended.clone(),
        ]);
    }
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}
