//! The subcommands: from arguments to a job, from an outcome to an exit code.

use super::arguments::{Attach, ConsumerOptions, Run};
use crate::consumers::solo;
use crate::guest::kernel::Kernel;
use crate::guest::kind::Kind as Image;
use crate::guest::linear::Linear;
use crate::guest::symbols::Symbols;
use crate::guest::{self, Guest};
use crate::machine::saved;
use crate::output::print;
use crate::pages::command::Wanted;
use crate::pages::touched::Pages;
use crate::refusal::Refusal;
use crate::run::attach;
use crate::run::report::{self, Live, Style};
use crate::run::signals::Signals;
use crate::run::{Job, Outcome};
use crate::scenario::amount::{bytes, mebibytes, number, size, time};
use crate::scenario::external::External;
use crate::scenario::settings::{BuiltIn, Consumer, PagerSettings};
use crate::scenario::xen_tool::XenTool;
use crate::scenario::{At, BreakBy, ConsumerAct, MemoryAct, Name, Scenario, Size, Stop, Time, named};
use crate::scenario::{corpus, range};
use crate::toolstack::log::Observer;
use crate::toolstack::transcript;
use crate::trace::explain;
use anyhow::Context;
use mem_event::{CpuEventKind, Layout, MonitorMode};
use std::path::Path;

/// The least memory that a guest image and its tables fit in.
const LEAST_MEMORY: u64 = 8 << 20;

/// `list`
///
/// # Errors
/// The output cannot be written.
pub fn list() -> anyhow::Result<u8> {
    let mut text = String::from("guests beside this program:\n");
    let guests = guest::built_in();
    if guests.is_empty() {
        text += "  none (ci/demo builds them)\n";
    }
    for name in guests {
        text += &format!("  {name}\n");
    }
    text += "  linux         (Debian's cloud kernel, installed by ci/setup)\n\nscenarios:\n";
    for scenario in corpus::all() {
        text += &format!("  {:<13} {}\n", scenario.name, scenario.title());
    }
    let saved = saved::names();
    if !saved.is_empty() {
        text += "\nsaved machines:\n";
    }
    for name in saved {
        text += &format!("  {name}\n");
    }
    print(&text)?;
    Ok(0)
}

/// `run`
///
/// # Errors
/// What a user can put right, as a [`Refusal`]; anything else that kept the run from having a verdict.
pub fn run(arguments: &Run) -> anyhow::Result<u8> {
    let wanted = arguments.touched.wanted(arguments.pages)?;
    let job = job(arguments, wanted.as_ref())?;
    let signals = Signals::catch().context("cannot catch signals")?;
    let style = Style::choose(arguments.consumers.json);
    let (mut outcome, pages) =
        gathered(&wanted, (style, &arguments.consumers), |observer| job.run(observer, Some(&signals)))?;
    if let Some(trace) = job.trace.as_deref().filter(|_| outcome.verdict.kind != job.scenario.verdict.0) {
        outcome.notes.extend(explain::sentences(trace));
    }
    // A recording that ended early fails no run, and is said.
    for line in outcome.said.lines().filter(|line| line.starts_with("mem-event: the trace ")) {
        eprintln!("{line}");
    }
    if arguments.console {
        print(&outcome.console)?;
    }
    if let Some((wanted, pages)) = wanted.zip(pages) {
        wanted.tell(&job.scenario.name, &pages, &job.symbols(), style)?;
    }
    show(&job.scenario, &outcome, &job.symbols(), style, arguments.consumers.sequence)?;
    Ok(outcome.verdict.kind.exit_code())
}

/// A run that is shown as it goes on, with the pages that were gathered meanwhile, if they are wanted.
fn gathered(
    wanted: &Option<Wanted<'_>>,
    (style, consumers): (Style, &ConsumerOptions),
    run: impl FnOnce(&mut dyn Observer) -> anyhow::Result<Outcome>,
) -> anyhow::Result<(Outcome, Option<Pages>)> {
    let mut live = Live::new(style).with_cpu_events(consumers.step.is_some() || !consumers.monitor.is_empty());
    let Some(wanted) = wanted else { return Ok((run(&mut live)?, None)) };
    let mut gathering = wanted.gathering(live)?;
    let outcome = run(&mut gathering)?;
    Ok((outcome, Some(gathering.pages)))
}

fn show(scenario: &Scenario, outcome: &Outcome, symbols: &Symbols, style: Style, sequence: bool) -> anyhow::Result<()> {
    if sequence && style != Style::Json {
        print(&transcript::text(&outcome.records, scenario.machine.vcpus, symbols))?;
    }
    match style {
        Style::Json => print(&(report::summary_json(&scenario.name, outcome, scenario.target()) + "\n")),
        Style::Terminal | Style::Quiet => print(&report::summary(&scenario.name, outcome, scenario.target())),
    }
}

fn job(arguments: &Run, pages: Option<&Wanted<'_>>) -> Result<Job, Refusal> {
    let wanted = &arguments.consumers;
    let plain = pages.is_none()
        && arguments.xen_tool.is_empty()
        && wanted.watch.is_empty()
        && wanted.page_out.is_empty()
        && wanted.paging_target.is_none()
        && wanted.breaks.is_empty()
        && wanted.step.is_none()
        && wanted.monitor.is_empty();
    let mut scenario = match corpus::find_or_load(&arguments.guest)? {
        Some(scenario) if plain => scenario,
        // What the guest needs stays, what the consumers do is asked for.
        Some(Scenario { name, source, folder, deadline, machine, .. }) => {
            Scenario { name, source, folder, deadline, machine, ..Scenario::bare("") }
        }
        None => Scenario::bare(&arguments.guest),
    };
    let machine = &mut scenario.machine;
    machine.from = arguments.from.clone().or_else(|| machine.from.take());
    machine.vcpus = arguments.vcpus.unwrap_or(machine.vcpus);
    if let Some(memory) = &arguments.memory {
        machine.memory = Size(size(memory)?);
    }
    if machine.memory.0 < LEAST_MEMORY {
        let what = format!("{} of memory are too few for a guest", mebibytes(machine.memory.0));
        return Err(Refusal::usage(what, format!("give at least {}", mebibytes(LEAST_MEMORY))));
    }
    add_consumers(&mut scenario, wanted)?;
    bring_registers(&mut scenario, wanted);
    for text in &arguments.consumer {
        scenario.consumers.external.push(External::parse(text)?);
    }
    let tool = |command: &String| XenTool { command: command.clone(), version: None, repair_xenpaging: false };
    scenario.consumers.xen.extend(arguments.xen_tool.iter().map(tool));
    if let Some(seed) = arguments.chaos {
        scenario.chaos.impose(seed);
    }
    if let Some(pages) = pages {
        pages.add_to(&mut scenario);
    }
    let mut job = Job::new(scenario, arguments.qemu.as_deref())?;
    job.count_touches_from_the_entry();
    if job.scenario.source.is_none() {
        job.scenario.name = job.guest.as_ref().map_or_else(|| "linux".into(), |guest| guest.name.clone());
    }
    job.trace = arguments
        .trace
        .as_deref()
        .map(std::path::absolute)
        .transpose()
        .map_err(|error| Refusal::usage(format!("the trace's path is none: {error}"), "name a file"))?;
    job.trace_limit = arguments.trace_limit.as_deref().map(bytes).transpose()?;
    job.record_reads = arguments.record_reads;
    job.gate = arguments.gate;
    job.contents = arguments.contents;
    job.plugin.clone_from(&arguments.plugin);
    job.spin = arguments.consumers.spin;
    job.extra.clone_from(&arguments.extra);
    job.extra.extend(arguments.gdb.iter().flat_map(|address| ["-gdb".into(), address.clone()]));
    Ok(job)
}

fn add_consumers(scenario: &mut Scenario, wanted: &ConsumerOptions) -> Result<(), Refusal> {
    for watch in &wanted.watch {
        let (range, accesses) = watch.rsplit_once('=').ok_or_else(|| {
            Refusal::usage(
                format!("watch {watch:?} names no access"),
                "write RANGE=r, RANGE=w, RANGE=x or several of these letters",
            )
        })?;
        let stop = Stop(range::left_by_watching(accesses)?);
        scenario.start.push(MemoryAct::Watch { frames: range.into(), stop, view: None }.into());
        scenario.consumers.listener.get_or_insert_default();
    }
    look(scenario, wanted)?;
    let given = &wanted.pager;
    for range in &wanted.page_out {
        scenario.start.push(ConsumerAct::PageOut { frames: range.as_str().into() }.into());
        scenario.consumers.pager.get_or_insert_default();
    }
    if let Some(target) = &wanted.paging_target {
        let target = size(target)?;
        let memory = scenario.machine.memory.0;
        if target > memory {
            let sizes = format!("{} above its memory of {}", mebibytes(target), mebibytes(memory));
            return Err(Refusal::usage(format!("a paging target of {sizes}"), "give a smaller --paging-target"));
        }
        scenario.consumers.pager.get_or_insert_default().target = Some(Size(target));
    }
    if let Some(pager) = scenario.consumers.pager.as_mut().filter(|_| *given != PagerSettings::default()) {
        *pager = PagerSettings { target: pager.target, ..given.clone() };
    }
    if let Some(deadline) = &wanted.deadline {
        scenario.deadline = Time(time(deadline)?);
    }
    Ok(())
}

/// What is looked at in the guest.
fn look(scenario: &mut Scenario, wanted: &ConsumerOptions) -> Result<(), Refusal> {
    let symbols = wanted.symbols.as_deref().filter(|symbols| *symbols != "guest");
    let symbols = symbols.map(std::path::absolute).transpose();
    let symbols =
        symbols.map_err(|error| Refusal::usage(format!("the symbols' path is none: {error}"), "name a file"))?;
    if let Some(symbols) = symbols.map(|path| path.display().to_string()).or_else(|| wanted.symbols.clone()) {
        scenario.machine.symbols = Some(symbols);
    }
    for event in &wanted.monitor {
        let (name, msr) = event.split_once(':').map_or((event.as_str(), None), |(name, msr)| (name, Some(msr)));
        if let Some(msr) = msr {
            let msr =
                number(msr).filter(|_| name == "msr").and_then(|msr| u32::try_from(msr).ok()).ok_or_else(|| {
                    Refusal::usage(format!("{event:?} names no register"), "write msr:NUMBER, as in msr:0xc0000082")
                })?;
            scenario.consumers.listener.get_or_insert_default().msrs.push(msr);
        }
        let kind = named::<CpuEventKind>(name).ok_or_else(|| {
            let known: Vec<&str> = CpuEventKind::ALL.iter().map(|kind| kind.name()).collect();
            Refusal::usage(format!("no CPU event is called {event:?}"), format!("write some of {}", known.join(", ")))
        })?;
        let (event, mode) = (Name(kind), Name(MonitorMode::Sync));
        scenario
            .start
            .push(MemoryAct::Monitor { event, mode, on_change_only: false, ignore: None, register: None }.into());
    }
    let looks = wanted.symbols.is_some()
        || wanted.process
        || wanted.step.is_some()
        || !wanted.breaks.is_empty()
        || !wanted.monitor.is_empty();
    if looks || scenario.consumers.listener.is_some() {
        let listener = scenario.consumers.listener.get_or_insert_default();
        listener.breaks.extend(wanted.breaks.iter().map(|place| place.as_str().into()));
        if wanted.break_by != BreakBy::default() {
            listener.break_by = wanted.break_by;
        }
        listener.strings.extend(wanted.string.iter().cloned());
        listener.process |= wanted.process;
        listener.steps = wanted.step.or(listener.steps);
        listener.count = wanted.count.or(listener.count);
    }
    Ok(())
}

/// Requests bring the registers where each event is told with who made it: by other layouts they are asked for, each time.
fn bring_registers(scenario: &mut Scenario, wanted: &ConsumerOptions) {
    if !wanted.breaks.is_empty() || !wanted.monitor.is_empty() && wanted.process {
        scenario.rings.access.layout = Name(Layout::VmEvent7);
    }
}

/// `consumer`
///
/// # Errors
/// As [`run`].
pub fn consumer(built_in: &BuiltIn, socket: Option<&Path>) -> anyhow::Result<u8> {
    let mut file = None;
    let consumer = match built_in {
        BuiltIn::Pager { settings, target, target_file } => {
            file = target_file.as_deref();
            let target = target.as_deref().map(size).transpose()?.map(Size);
            Consumer::Pager(PagerSettings { target, ..settings.clone() })
        }
        BuiltIn::Listener(settings) => Consumer::Listener(settings.clone()),
        BuiltIn::Helper(settings) => Consumer::Helper(settings.clone()),
        BuiltIn::Faulty(settings) => Consumer::Faulty(settings.clone()),
        BuiltIn::Json { settings } => serde_json::from_str(settings).map_err(|error| {
            Refusal::usage(format!("{settings} is no consumer: {error}"), "docs/consumers.md lists kinds and settings")
        })?,
    };
    solo::consume(&consumer, socket, file)
}

/// A scenario for a guest that runs already.
fn to_join(path: &Path) -> Result<Scenario, Refusal> {
    let scenario = Scenario::load(path)?;
    let consumers = &scenario.consumers;
    let refuse = |what: &str, remedy: &str| Err(Refusal::usage(format!("{} {what}", path.display()), remedy));
    if scenario.steps.iter().any(|step| matches!(step.at, At::Place(_))) {
        return refuse(
            "waits at a place, which the plugin is told before its guest starts",
            "take breaks, or checkpoints",
        );
    }
    if !consumers.external.is_empty() || !consumers.process.is_empty() || !consumers.xen.is_empty() {
        let remedy = "start them beside it: mem-event consumer … --socket SOCKET, or mem-event xen";
        return refuse("has consumers that are processes of their own, which nobody would end", remedy);
    }
    Ok(scenario)
}

/// The symbols of a guest's image, which is asked for nothing else.
fn symbols_of(path: &Path) -> Result<Symbols, Refusal> {
    let guest = Guest::open(path)?;
    match guest.kind {
        Image::Elf | Image::Multiboot => Ok(guest.symbols),
        Image::BzImage | Image::Disk(_) | Image::Efi => Err(Refusal::usage(
            format!("{} has no symbols: it is no ELF", path.display()),
            "name a kernel by --symbols FILE, or --symbols guest for the table that the guest holds",
        )),
    }
}

/// `attach`
///
/// # Errors
/// As [`run`].
pub fn attach(arguments: &Attach) -> anyhow::Result<u8> {
    let symbols = match &arguments.guest {
        Some(path) => symbols_of(path)?,
        None => Symbols::default(),
    };
    let mut scenario = match &arguments.scenario {
        Some(path) => to_join(path)?,
        None => Scenario::bare("attached"),
    };
    // What the guest has is asked when it is there; until then no target is too large.
    scenario.machine.memory = Size(u64::MAX);
    scenario.deadline = Time::FOREVER;
    add_consumers(&mut scenario, &arguments.consumers)?;
    if arguments.scenario.is_none() {
        bring_registers(&mut scenario, &arguments.consumers);
    }
    for text in &arguments.consumer {
        scenario.consumers.external.push(External::parse(text)?);
    }
    let wanted = arguments.touched.wanted(arguments.pages)?;
    if let Some(pages) = &wanted {
        pages.add_to(&mut scenario);
    }
    let symbols = match scenario.machine.symbols.as_deref() {
        Some("guest") => symbols.with(Linear::wanted(None)),
        Some(path) => symbols.with(Linear::wanted(Some(Kernel::open(Path::new(path))?))),
        None if scenario.wants_kernel() => symbols.with(Linear::wanted(None)),
        None => symbols,
    };
    scenario.check(&symbols)?;
    let signals = Signals::catch().context("cannot catch signals")?;
    let style = Style::choose(arguments.consumers.json);
    let how = (arguments.consumers.spin, arguments.trace.as_deref());
    let run = |observer: &mut dyn Observer| {
        attach::attach(&arguments.socket, &mut scenario, &symbols, observer, Some(&signals), how)
    };
    let (outcome, pages) = gathered(&wanted, (style, &arguments.consumers), run)?;
    if let Some((wanted, pages)) = wanted.zip(pages) {
        wanted.tell(&arguments.socket.display().to_string(), &pages, &symbols, style)?;
    }
    show(&scenario, &outcome, &symbols, style, arguments.consumers.sequence)?;
    Ok(outcome.verdict.kind.exit_code())
}
