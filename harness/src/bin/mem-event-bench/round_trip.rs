//! Events whose consumer is another process: from a guest's access to its next after the answer. The answer changes no right, so
//! the vCPU is stopped again by the same access as soon as it goes on, and what lies between two requests as the consumer takes
//! them is the whole way: the answer, the vCPU seeing it and having the engine take it, the access checked once more, the
//! request put and seen.

use crate::bare::{self, Handler};
use crate::cores;
use crate::figure::{Figure, median};
use crate::ping;
use crate::qemu;
use crate::served::{Answer, Order, Served};
use anyhow::{Context, bail};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::corpus;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

/// Each round is a boot.
const ROUNDS: usize = 5;
const EVENTS: usize = 20_000;
/// Events between sleepers take longer.
const SLEEPS: usize = 4_000;

/// Both sides spin as they do by themselves.
pub fn spin() -> anyhow::Result<Figure> {
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut micros = events("page_touch", "TOUCHED", "auto", None, EVENTS)?.micros;
        micros.sort_by(f64::total_cmp);
        medians.push(micros[micros.len() / 2]);
        tails.push(micros[micros.len() * 99 / 100]);
    }
    let (value, tail) = (median(medians), median(tails));
    let detail = format!(
        "access to the next access after its answer, consumer in another process; 1 in 100 takes more than {tail:.2} µs; \
         medians of {ROUNDS} boots of {EVENTS} events"
    );
    Ok(Figure { name: "roundtrip-spin-us", value, unit: "µs", goal: Some(2.0), detail })
}

/// The same where the host's MMU stops the vCPU, against a bare userfaultfd message that is answered by a handler that spins.
pub fn mmu_ratio() -> anyhow::Result<Figure> {
    /// Touches of the bare handler's pages.
    const TOUCHES: usize = 256;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(bare::touch(TOUCHES, Handler::Spinning)?);
        let gate = Gate::Mmu;
        let watch = Watch { name: "page_touch", symbol: "TOUCHED", vcpus: None, answer: Answer::Nothing, gate };
        ours.push(median(served(watch, "auto", None, EVENTS)?.micros));
    }
    let (ours, bare) = (median(ours), median(bare));
    let detail = format!(
        "gate=mmu: {ours:.2} µs an event whose answer changes nothing, {bare:.2} µs a bare touch, copied in by a handler that spins; \
         medians of {ROUNDS} rounds"
    );
    Ok(Figure { name: "roundtrip-mmu-ratio", value: ours / bare, unit: "ratio", goal: Some(1.2), detail })
}

/// Nobody spins, QEMU on one core and the consumer on another; against two processes that only wake each other.
pub fn sleep_ratio() -> anyhow::Result<Figure> {
    let Some(two) = cores::two()? else { bail!("roundtrip-sleep-ratio needs two cores") };
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(median(ping::pong(SLEEPS, two)?));
        ours.push(median(events("page_touch", "TOUCHED", "off", Some(two), SLEEPS)?.micros));
    }
    let (ours, bare) = (median(ours), median(bare));
    let detail = format!(
        "{ours:.1} µs an event, {bare:.1} µs a round trip of two processes by eventfds, both pinned to two cores; medians \
         of {ROUNDS} rounds of {SLEEPS}"
    );
    Ok(Figure { name: "roundtrip-sleep-ratio", value: ours / bare, unit: "ratio", goal: Some(1.3), detail })
}

/// How long each of so many events took where nobody spins, on whatever cores.
pub fn asleep(count: usize) -> anyhow::Result<Vec<f64>> {
    Ok(events("page_touch", "TOUCHED", "off", None, count)?.micros)
}

/// Eight vCPUs at once.
#[expect(clippy::cast_precision_loss, reason = "some tens of thousands of events")]
pub fn eight_vcpus() -> anyhow::Result<Figure> {
    let mut runs = Vec::new();
    for _ in 0..ROUNDS {
        runs.push(events("smp_storm", "STORM", "auto", None, EVENTS)?);
    }
    runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let Served { fill, fullest, seconds, .. } = &runs[ROUNDS / 2];
    let over_time: Vec<String> = fill.iter().map(|mean| format!("{mean:.1}")).collect();
    let detail = format!(
        "the median of {ROUNDS} runs of {EVENTS} events; requests on the ring over the run {}, at most {fullest}",
        over_time.join(" ")
    );
    Ok(Figure { name: "events-per-second-8-vcpus", value: EVENTS as f64 / seconds, unit: "1/s", goal: None, detail })
}

/// Instructions that are let through alone, one after the other and four vCPUs at once.
#[expect(clippy::cast_precision_loss, reason = "some hundreds of events")]
pub fn alone((name, vcpus): (&'static str, u32)) -> anyhow::Result<Figure> {
    // Fewer than the guest makes on its vCPUs' own pages.
    let events = 90 * vcpus as usize;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        let watch = Watch {
            name: "alone_crowd",
            symbol: "OWN",
            vcpus: Some(vcpus),
            answer: Answer::Emulate,
            gate: Gate::default(),
        };
        rates.push(events as f64 / served(watch, "auto", None, events)?.seconds);
    }
    let detail = format!(
        "{vcpus} vCPUs, each addition an event that is answered with EMULATE; median of {ROUNDS} boots of {events}"
    );
    Ok(Figure { name, value: median(rates), unit: "1/s", goal: None, detail })
}

/// Events that are answered by a right, also after the vCPU's registers were asked for: from a page's first access to that of the next page, both
/// spinning.
pub fn grant((name, answer, gate): (&'static str, Answer, Gate)) -> anyhow::Result<Figure> {
    /// Of the guest's 256 pages.
    const PAGES: usize = 250;
    let (mut medians, mut tails) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let watch = Watch { name: "page_touch", symbol: "TOUCHED", vcpus: None, answer, gate };
        let mut micros = served(watch, "auto", None, PAGES)?.micros;
        micros.sort_by(f64::total_cmp);
        medians.push(micros[micros.len() / 2]);
        tails.push(micros[micros.len() * 9 / 10]);
    }
    let (value, tail) = (median(medians), median(tails));
    let is_asked = answer == Answer::GrantAsked;
    let asked = if is_asked { "the vCPU's registers asked for, " } else { "" };
    let detail = format!(
        "gate={gate}: an access, {asked}its page opened with the answer, the next page's access; 1 in 10 takes more than {tail:.1} µs; \
         medians of {ROUNDS} boots of {PAGES} events"
    );
    Ok(Figure { name, value, unit: "µs", goal: (!is_asked).then_some(20.0), detail })
}

/// The rows of [`grant`], each with its answer and its gate.
pub const GRANTS: [(&str, Answer, Gate); 4] = [
    ("grant-us", Answer::Grant, Gate::Callback),
    ("grant-us-mmu", Answer::Grant, Gate::Mmu),
    ("registers-us", Answer::GrantAsked, Gate::Callback),
    ("registers-us-mmu", Answer::GrantAsked, Gate::Mmu),
];

/// The rows of [`alone`], with how many vCPUs.
pub const ALONE: [(&str, u32); 2] = [("alone-per-second", 1), ("alone-per-second-4-vcpus", 4)];

/// Whose pages are watched, of a guest that has so many vCPUs or as many as its scenario says.
struct Watch<'a> {
    name: &'a str,
    symbol: &'a str,
    vcpus: Option<u32>,
    answer: Answer,
    gate: Gate,
}

fn events(name: &str, symbol: &str, spin: &str, pinned: Option<[usize; 2]>, events: usize) -> anyhow::Result<Served> {
    let watch = Watch { name, symbol, vcpus: None, answer: Answer::Nothing, gate: Gate::default() };
    served(watch, spin, pinned, events)
}

/// A guest whose pages are watched from its first checkpoint on, and a consumer that answers so many events.
fn served(watch: Watch<'_>, spin: &str, pinned: Option<[usize; 2]>, events: usize) -> anyhow::Result<Served> {
    let Watch { name, symbol, vcpus, answer, gate } = watch;
    let mut scenario = corpus::find(name).with_context(|| format!("no scenario {name}"))?;
    scenario.machine.vcpus = vcpus.unwrap_or(scenario.machine.vcpus);
    // So that the gate is built in; who listens is the other process.
    scenario.consumers.listener.get_or_insert_default();
    let mut job = Job::new(scenario, qemu::named())?;
    job.gate = gate;
    job.spin = spin.parse().map_err(anyhow::Error::msg)?;
    let symbols = job.symbols();
    let watched = symbols.find(symbol)?;
    let folder = RunFolder::create()?;
    let mut qemu = job.machine()?.start(&folder)?;
    let order = Order {
        socket: folder.file("socket"),
        first: watched.gpa.0 / 4096,
        count: watched.size.div_ceil(4096),
        events,
        answer,
        spin: spin.to_owned(),
        core: pinned.map(|[_, there]| there),
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["served", &serde_json::to_string(&order)?]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut consumer = command.spawn().context("cannot start the consumer")?;
    let mut said = BufReader::new(consumer.stdout.take().context("no output")?).lines();
    if said.next().transpose()?.as_deref() != Some("ready") {
        bail!("the consumer did not begin: {}", consumer.wait()?);
    }
    if let Some([here, _]) = pinned {
        cores::keep_on(qemu.pid(), here)?;
    }
    qemu.qmp.execute("cont")?;
    let result = said.next().transpose()?.context("the consumer told nothing")?;
    consumer.wait()?;
    qemu.wait()?;
    serde_json::from_str(&result).context("the consumer told no result")
}
