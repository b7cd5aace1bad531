//! Boots: of a bare-metal scenario to its verdict, and of Linux with and without the plugin.

use crate::figure::{Figure, median};
use crate::qemu;
use anyhow::bail;
use harness::machine::folder::RunFolder;
use harness::machine::qemu::{Boot, Gate, Machine, plugin_library};
use harness::refusal::{Blame, Refusal};
use harness::run::{Job, run_machine};
use harness::scenario::corpus;
use harness::scenario::{Contents, MemoryAct, Name, Scenario, Size};
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use mem_event::{AccessType, CpuEventKind, MonitorMode};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SCENARIOS: usize = 15;
const BOOTS: usize = 5;
const LONG_BOOTS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);

/// One bare-metal scenario with a listener, from the start of QEMU to its verdict.
pub fn scenario_seconds() -> anyhow::Result<Figure> {
    let mut seconds = Vec::new();
    for _ in 0..SCENARIOS {
        let Some(scenario) = corpus::find("read_write") else { bail!("no scenario read_write") };
        let outcome = Job::new(scenario, qemu::named())?.run(&mut Silent, None)?;
        if outcome.verdict.kind != Kind::Success {
            bail!("read_write: {}", outcome.verdict);
        }
        seconds.push(outcome.took.as_secs_f64());
    }
    let detail = format!("read_write, boot to verdict, median of {SCENARIOS}");
    Ok(Figure { name: "scenario-seconds", value: median(seconds), unit: "s", goal: Some(0.4), detail })
}

/// How Linux is booted beside a boot without the plugin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// With the plugin, nothing armed.
    Unarmed,
    /// The same of a guest that declares checkpoints: its code is looked at as it is translated.
    Checkpoints,
    /// Every data access and fetch checked.
    Armed(Gate),
    /// One page watched for reads and writes, by the host's MMU.
    Watched,
    /// A thousand pages watched for fetches too, by the host's MMU.
    WatchedForAll,
    /// Single steps are monitored, as by a tool between two of its breakpoints, and no vCPU is stepped.
    Steps,
    /// The same as all checked, with registers read through the plugin API.
    ArmedByApi,
    /// Another plugin, which is told of each access after it.
    Peer,
}

/// The rows; a name of the armed boot gives all of them.
const ROWS: [(&str, Way, Option<f64>); 8] = [
    ("unarmed-linux-boot", Way::Unarmed, Some(1.03)),
    ("unarmed-linux-boot-checkpoints", Way::Checkpoints, Some(1.06)),
    ("armed-linux-boot", Way::Armed(Gate::Callback), Some(1.6)),
    ("armed-linux-boot-mmu", Way::Watched, Some(1.06)),
    ("armed-linux-boot-mmu-fetches", Way::WatchedForAll, Some(1.06)),
    ("steps-linux-boot", Way::Steps, Some(1.06)),
    ("armed-linux-boot-api", Way::ArmedByApi, None),
    ("armed-linux-boot-peer", Way::Peer, None),
];

/// Boots of a Linux that does no work, against boots without the plugin, alternating.
pub fn linux(is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Figure>> {
    let mut rows: Vec<_> = ROWS.into_iter().filter(|(name, ..)| is_wanted(name)).collect();
    // That plugin is for one version of the API.
    if rows.iter().any(|(_, way, _)| *way == Way::Peer)
        && let Err(error) = boot(Way::Peer)
    {
        let Some(lacking) = Refusal::of(&error).filter(|refusal| refusal.blame == Blame::Machine) else {
            return Err(error);
        };
        println!("armed-linux-boot-peer is left out: {}", lacking.what);
        rows.retain(|(_, way, _)| *way != Way::Peer);
    }
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut without = Vec::new();
    let mut seconds = vec![Vec::new(); rows.len()];
    for _ in 0..BOOTS {
        without.push(boot_without_plugin(None)?);
        for ((_, way, _), seconds) in rows.iter().zip(&mut seconds) {
            seconds.push(boot(*way)?);
        }
    }
    let without = median(without);
    let figure = |((name, way, goal), seconds): ((&'static str, Way, Option<f64>), Vec<f64>)| {
        let with = median(seconds);
        let detail = format!(
            "{with:.2} s against {without:.2} s without the plugin, medians of {BOOTS}, alternating{}",
            way.note()
        );
        Figure { name, value: with / without, unit: "ratio", goal, detail }
    };
    let mut figures: Vec<Figure> = rows.into_iter().zip(seconds).map(figure).collect();
    let value = |name| figures.iter().find(|figure| figure.name == name).map(|figure| figure.value);
    if let Some(peer) = value("armed-linux-boot-peer") {
        // Stopping an access must not cost more than hearing of it.
        for figure in figures.iter_mut().filter(|figure| figure.name == "armed-linux-boot") {
            figure.goal = figure.goal.map(|goal| goal.min(peer));
        }
    }
    Ok(figures)
}

impl Way {
    fn note(self) -> &'static str {
        match self {
            Way::Peer => "; QEMU's callback after each access, its physical address looked up in a bitmap",
            Way::ArmedByApi => "; registers=api",
            Way::Checkpoints => "; checkpoints=on",
            Way::Steps => "; steps are monitored, and nobody is stepped",
            Way::Watched => "; one page watched for reads and writes, and never touched",
            Way::WatchedForAll => "; 1,000 pages watched for fetches too",
            Way::Unarmed | Way::Armed(_) => "",
        }
    }
}

fn boot(way: Way) -> anyhow::Result<f64> {
    match way {
        Way::Unarmed => boot_with_plugin(None, &NOTHING, &[], None),
        Way::Checkpoints => boot_with_plugin(None, &NOTHING, &["checkpoints=on".to_owned()], None),
        Way::Armed(gate) => boot_with_plugin(Some(gate), &SPREAD, &[], None),
        Way::Watched => boot_with_plugin(Some(Gate::Mmu), &ONE, &[], None),
        Way::WatchedForAll => boot_with_plugin(Some(Gate::Mmu), &THOUSAND, &[], None),
        Way::Steps => boot_with_plugin(None, &STEPS, &[], None),
        Way::ArmedByApi => boot_with_plugin(Some(Gate::Callback), &SPREAD, &["registers=api".to_owned()], None),
        Way::Peer => boot_without_plugin(Some(&peer()?)),
    }
}

/// The peer's library, an example of the plugin's package.
fn peer() -> anyhow::Result<PathBuf> {
    let library = plugin_library()?.with_file_name("examples").join("libpeer.so");
    if !library.is_file() {
        bail!("no {}: cargo build --release -p mem-event-plugin --example peer", library.display());
    }
    Ok(library)
}

/// Linux with as much memory as the rows have always had.
fn in_512_mib() -> Scenario {
    let mut scenario = corpus::linux();
    scenario.machine.memory = Size(512 << 20);
    scenario
}

fn idle(machine: Machine) -> Machine {
    let boot = match machine.boot {
        Boot::Linux { kernel, append, .. } => Boot::Linux { kernel, append, work: false },
        other => other,
    };
    Machine { boot, ..machine }
}

fn boot_without_plugin(other: Option<&Path>) -> anyhow::Result<f64> {
    let mut machine = idle(Job::new(in_512_mib(), qemu::named())?.machine_without_plugin()?);
    if let Some(library) = other {
        machine.extra.extend(["-plugin".into(), library.into()]);
    }
    booted(run_machine(&machine, PATIENCE)?)
}

fn booted((took, console): (Duration, String)) -> anyhow::Result<f64> {
    if !console.contains("verdict: success: booted") {
        bail!("Linux did not boot:\n{console}");
    }
    Ok(took.as_secs_f64())
}

/// The armed boot with a trace, against the same without.
pub fn record_overhead() -> anyhow::Result<Figure> {
    let folder = RunFolder::create()?;
    let file = folder.file("trace");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        without.push(boot_with_plugin(Some(Gate::Callback), &SPREAD, &[], None)?);
        with.push(boot_with_plugin(Some(Gate::Callback), &SPREAD, &[], Some(&file))?);
    }
    let (without, with) = (median(without), median(with));
    let detail = format!("{with:.2} s with a trace against {without:.2} s, medians of {BOOTS}, alternating");
    Ok(Figure { name: "record-overhead", value: with / without, unit: "ratio", goal: Some(1.05), detail })
}

/// A boot under a paging target whose contents are compared, against one whose are not; both with a trace.
pub fn contents_overhead() -> anyhow::Result<Figure> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        without.push(paged_boot(Contents::Own)?);
        with.push(paged_boot(Contents::Check)?);
    }
    let (without, with) = (median(without), median(with));
    let detail = format!("{with:.2} s with contents compared against {without:.2} s, medians of {BOOTS}, alternating");
    Ok(Figure { name: "contents-overhead", value: with / without, unit: "ratio", goal: Some(1.05), detail })
}

fn paged_boot(contents: Contents) -> anyhow::Result<f64> {
    let folder = RunFolder::create()?;
    let mut scenario = in_512_mib();
    scenario.consumers.pager.get_or_insert_default().target = Some(Size(64 << 20));
    let mut job = Job::new(scenario, qemu::named())?;
    job.linux_works = false;
    (job.trace, job.contents) = (Some(folder.file("trace")), Some(contents));
    let outcome = job.run(&mut Silent, None)?;
    if outcome.verdict.kind != Kind::Success || outcome.paged.pages_in == 0 {
        bail!("Linux did not boot, or nothing was paged: {}", outcome.verdict);
    }
    booted((outcome.took, outcome.console))
}

/// Linux at work in 512 MiB: held to 128 of them, and the same with a pager that has nothing to do; alternating.
pub fn paged() -> anyhow::Result<Figure> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut pages_in = 0;
    for _ in 0..LONG_BOOTS {
        without.push(at_work(None)?.0);
        let (seconds, pages) = at_work(Some(Size(128 << 20)))?;
        with.push(seconds);
        pages_in = pages;
    }
    let (without, with) = (median(without), median(with));
    let detail = format!(
        "512 MiB held to 128: {with:.2} s, {pages_in} pages in, against {without:.2} s; medians of {LONG_BOOTS}, alternating"
    );
    Ok(Figure { name: "linux-paged", value: with / without, unit: "ratio", goal: None, detail })
}

/// Its seconds, and how many pages came in.
fn at_work(target: Option<Size>) -> anyhow::Result<(f64, u64)> {
    let mut scenario = in_512_mib();
    scenario.consumers.pager.get_or_insert_default().target = target;
    let outcome = Job::new(scenario, qemu::named())?.run(&mut Silent, None)?;
    if outcome.verdict.kind != Kind::Success || outcome.paged.pages_in == 0 && target.is_some() {
        bail!("Linux did not do its work, or nothing was paged: {}", outcome.verdict);
    }
    Ok((outcome.took.as_secs_f64(), outcome.paged.pages_in))
}

/// Linux with all its memory watched, each page opened when it is first touched, against a boot without the plugin; alternating.
pub fn all_watched((name, gate, goal): (&'static str, Gate, Option<f64>)) -> anyhow::Result<Figure> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut events = 0;
    for _ in 0..LONG_BOOTS {
        without.push(boot_without_plugin(None)?);
        let (seconds, told) = boot_all_watched(gate)?;
        with.push(seconds);
        events = told;
    }
    let (without, with) = (median(without), median(with));
    let detail = format!(
        "gate={gate}: {with:.2} s, {events} events, against {without:.2} s without the plugin; medians of {LONG_BOOTS}, alternating"
    );
    Ok(Figure { name, value: with / without, unit: "ratio", goal, detail })
}

/// The rows of [`all_watched`], each with its gate.
pub const ALL_WATCHED: [(&str, Gate, Option<f64>); 2] =
    [("linux-all-watched", Gate::Callback, None), ("linux-all-watched-mmu", Gate::Mmu, Some(1.5))];

fn boot_all_watched(gate: Gate) -> anyhow::Result<(f64, u64)> {
    let mut scenario = in_512_mib();
    scenario.consumers.listener.get_or_insert_default();
    let end = scenario.machine.memory.0 / 4096;
    // All but the VGA and ROM window.
    let watched = |frames: &str| {
        let access = Name(AccessType::X);
        MemoryAct::SetAccess { frames: frames.into(), access, view: None, refused: None }.into()
    };
    scenario.start = vec![watched("0x0..0xa0"), watched(&format!("0x100..{end:#x}"))];
    let mut job = Job::new(scenario, qemu::named())?;
    (job.gate, job.linux_works) = (gate, false);
    let outcome = job.run(&mut Silent, None)?;
    if outcome.verdict.kind != Kind::Success || outcome.counts.access == 0 {
        bail!("Linux did not boot, or nothing was told: {}", outcome.verdict);
    }
    Ok((booted((outcome.took, outcome.console))?, outcome.counts.access))
}

/// The frames that are watched in a boot, spread over memory, and what is left of their rights.
struct Watch {
    frames: u64,
    access: AccessType,
    /// Linux is told to leave them alone. Else some may be touched, which is an event and opens them; if all are, nothing is stopped any more.
    are_reserved: bool,
    /// Steps are monitored.
    steps: bool,
}

const NOTHING: Watch = Watch { frames: 0, access: AccessType::Rwx, are_reserved: false, steps: false };
const STEPS: Watch = Watch { steps: true, ..NOTHING };
const SPREAD: Watch = Watch { frames: 32, access: AccessType::N, ..NOTHING };
const ONE: Watch = Watch { frames: 1, access: AccessType::X, are_reserved: true, ..NOTHING };
const THOUSAND: Watch = Watch { frames: 1000, access: AccessType::N, ..NOTHING };

/// With the gate built in.
fn boot_with_plugin(
    armed: Option<Gate>,
    watch: &Watch,
    arguments: &[String],
    trace: Option<&Path>,
) -> anyhow::Result<f64> {
    let mut scenario = in_512_mib();
    scenario.consumers.listener.get_or_insert_default();
    let apart = scenario.machine.memory.0 / 4096 / (watch.frames + 1);
    let frames = (1..=watch.frames).map(|number| number * apart);
    let watched = |gfn| {
        let frames = format!("{gfn:#x}").as_str().into();
        MemoryAct::SetAccess { frames, access: Name(watch.access), view: None, refused: None }.into()
    };
    scenario.start = frames.clone().map(watched).collect();
    if watch.steps {
        let (event, mode) = (Name(CpuEventKind::SingleStep), Name(MonitorMode::Sync));
        let monitor = MemoryAct::Monitor { event, mode, on_change_only: false, ignore: None, register: None };
        scenario.start.push(monitor.into());
    }
    if watch.are_reserved {
        let reserved = frames.map(|gfn| format!("memmap=4K${:#x}", gfn * 4096));
        scenario.machine.append = Some(reserved.collect::<Vec<_>>().join(" "));
    }
    let mut job = Job::new(scenario, qemu::named())?;
    job.gate = armed.unwrap_or_default();
    job.plugin = arguments.to_vec();
    job.linux_works = false;
    job.trace = trace.map(Path::to_owned);
    let outcome = job.run(&mut Silent, None)?;
    if outcome.verdict.kind != Kind::Success {
        bail!("Linux did not boot: {}", outcome.verdict);
    }
    let most = if watch.are_reserved { 0 } else { watch.frames.saturating_sub(1) };
    if outcome.counts.access > most {
        bail!("Linux touched {} of {} watched frames", outcome.counts.access, watch.frames);
    }
    booted((outcome.took, outcome.console))
}
