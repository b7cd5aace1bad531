//! Boots: of a bare-metal scenario to its verdict, and of Linux with and without the plugin.

use crate::figure::{Figure, median};
use anyhow::bail;
use harness::corpus;
use harness::log::Silent;
use harness::qemu::{Boot, Machine};
use harness::run::{Job, run_machine};
use harness::scenario::Act;
use harness::verdict::Kind;
use mem_event::AccessType;
use mem_event_client::channel::RingSettings;
use std::time::Duration;

const SCENARIOS: usize = 15;
const BOOTS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(120);

/// One bare-metal scenario with a listener, from the start of QEMU to its verdict.
pub fn scenario_seconds() -> anyhow::Result<Figure> {
    let mut seconds = Vec::new();
    for _ in 0..SCENARIOS {
        let Some(scenario) = corpus::find("read_write") else { bail!("no scenario read_write") };
        let outcome = Job::new(scenario, None)?.run(&mut Silent, None)?;
        if outcome.verdict.kind != Kind::Success {
            bail!("read_write: {}", outcome.verdict);
        }
        seconds.push(outcome.took.as_secs_f64());
    }
    let detail = format!("read_write, boot to verdict, median of {SCENARIOS}");
    Ok(Figure { name: "scenario-seconds", value: median(seconds), unit: "s", goal: 0.4, detail })
}

/// A boot of Linux that does no work: without the plugin, with it and nothing armed, with every data access checked.
pub fn linux() -> anyhow::Result<Vec<Figure>> {
    let (mut without, mut unarmed, mut armed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..BOOTS {
        without.push(boot_without_plugin()?);
        unarmed.push(boot(false)?);
        armed.push(boot(true)?);
    }
    let (without, unarmed, armed) = (median(without), median(unarmed), median(armed));
    let detail =
        |with: f64| format!("{with:.2} s against {without:.2} s without the plugin, medians of {BOOTS}, alternating");
    Ok(vec![
        Figure {
            name: "unarmed-linux-boot",
            value: unarmed / without,
            unit: "ratio",
            goal: 1.03,
            detail: detail(unarmed),
        },
        Figure { name: "armed-linux-boot", value: armed / without, unit: "ratio", goal: 1.6, detail: detail(armed) },
    ])
}

fn idle(machine: Machine) -> Machine {
    let boot = match machine.boot {
        Boot::Linux { kernel, .. } => Boot::Linux { kernel, work: false },
        other @ Boot::Elf(_) => other,
    };
    Machine { boot, ..machine }
}

fn boot_without_plugin() -> anyhow::Result<f64> {
    let machine = idle(Job::new(corpus::linux(), None)?.machine_without_plugin()?);
    booted(run_machine(&machine, PATIENCE)?)
}

fn booted((took, console): (Duration, String)) -> anyhow::Result<f64> {
    if !console.contains("verdict: success: booted") {
        bail!("Linux did not boot:\n{console}");
    }
    Ok(took.as_secs_f64())
}

/// With the gate built in. Armed, frames all over memory are watched: some are touched, which is an event and opens them, and
/// some never, so that accesses are checked to the end.
fn boot(armed: bool) -> anyhow::Result<f64> {
    const WATCHED: u64 = 32;
    let mut scenario = corpus::linux();
    scenario.access = Some(RingSettings::default());
    if armed {
        let apart = scenario.memory / 4096 / (WATCHED + 1);
        let watch = |number| Act::SetAccess { range: format!("{:#x}", number * apart), access: AccessType::X };
        scenario.start = (1..=WATCHED).map(watch).collect();
    }
    let mut job = Job::new(scenario, None)?;
    job.linux_works = false;
    let outcome = job.run(&mut Silent, None)?;
    if outcome.verdict.kind != Kind::Success {
        bail!("Linux did not boot: {}", outcome.verdict);
    }
    if armed && outcome.counts.access >= WATCHED {
        bail!("Linux touched every watched frame: nothing was checked from then on");
    }
    booted((outcome.took, outcome.console))
}
