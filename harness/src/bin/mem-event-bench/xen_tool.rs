//! What a tool of Xen's pays for the library that answers it, against our own client doing the same.

use crate::figure::{Figure, median};
use crate::qemu;
use crate::round_trip;
use anyhow::{Context, bail};
use harness::guest::symbols::Symbols;
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::run::Job;
use harness::scenario::corpus;
use mem_event::message::{Call, Notice};
use mem_event::{Control, Gfn};
use mem_event_client::Client;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Each round is a boot.
const ROUNDS: usize = 5;
const MAPPINGS: usize = 20_000;
/// Events between sleepers.
const EVENTS: usize = 4_000;

/// The rows that are wanted; none where this machine has no headers of Xen's libraries.
pub fn rows(is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Figure>> {
    let (mapping, event) = (is_wanted("xen-mapping-ratio"), is_wanted("xen-event-ratio"));
    if !(mapping || event) {
        return Ok(Vec::new());
    }
    if !Path::new("/usr/include/xenforeignmemory.h").is_file() {
        println!(
            "xen-mapping-ratio and xen-event-ratio are not measured: there are no headers of Xen's libraries (libxen-dev)"
        );
        return Ok(Vec::new());
    }
    let folder = RunFolder::create()?;
    let tool = built(&folder)?;
    let mut figures = Vec::new();
    if mapping {
        figures.push(mappings(&tool)?);
    }
    if event {
        figures.push(events(&tool)?);
    }
    Ok(figures)
}

fn built(folder: &RunFolder) -> anyhow::Result<PathBuf> {
    let (here, tool) = (Path::new(env!("CARGO_MANIFEST_DIR")), folder.file("through"));
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-w", "-I"]).arg(here.join("../xen/examples")).arg("-o").arg(&tool);
    cc.arg(here.join("src/bin/mem-event-bench/through.c"));
    cc.args(["-lxenctrl", "-lxenevtchn", "-lxenforeignmemory"]);
    if !cc.status().context("cannot start cc")?.success() {
        bail!("the tool on Xen's libraries does not build");
    }
    Ok(tool)
}

/// A guest at its first checkpoint.
struct Domain {
    qemu: Qemu,
    toolstack: Client,
    symbols: Symbols,
    folder: RunFolder,
}

impl Domain {
    fn start() -> anyhow::Result<Domain> {
        let mut scenario = corpus::find("page_touch").context("no scenario page_touch")?;
        // So that the gate is built in; who listens is the tool.
        scenario.consumers.listener.get_or_insert_default();
        let mut job = Job::new(scenario, qemu::named())?;
        job.plugin.push("foreign=map".to_owned());
        job.spin = "off".parse().map_err(anyhow::Error::msg)?;
        let (symbols, folder) = (job.symbols(), RunFolder::create()?);
        let mut qemu = job.machine()?.start(&folder)?;
        let mut toolstack = Client::connect(&folder.file("socket"))?;
        toolstack.values(&Call::Subscribe)?;
        qemu.qmp.execute("cont")?;
        let mut domain = Domain { qemu, toolstack, symbols, folder };
        domain.checkpoint()?;
        Ok(domain)
    }

    /// The vCPU comes to a checkpoint; false: the guest has ended.
    fn checkpoint(&mut self) -> anyhow::Result<bool> {
        loop {
            match self.toolstack.notice()? {
                Some(Notice::Checkpoint { .. }) => return Ok(true),
                _ if self.toolstack.has_ended() => return Ok(false),
                _ => {}
            }
            rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&self.toolstack, PollFlags::IN)], None))?;
        }
    }

    fn frames(&self) -> anyhow::Result<[u64; 2]> {
        let touched = self.symbols.find("TOUCHED")?;
        Ok([touched.gpa.0 / 4096, touched.gpa.0 / 4096 + touched.size.div_ceil(4096) - 1])
    }

    fn tool(&self, tool: &Path, arguments: &[String]) -> anyhow::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?.with_file_name("mem-event"));
        command.args(["xen", "--domain", &format!("1={}", self.folder.file("socket").display()), "--"]);
        command.arg(tool).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        command.spawn().context("cannot start mem-event xen")
    }
}

/// The tool's next line.
fn line(said: &mut impl Iterator<Item = std::io::Result<String>>) -> anyhow::Result<String> {
    said.next().transpose()?.context("the tool told nothing")
}

fn mappings(tool: &Path) -> anyhow::Result<Figure> {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut domain = Domain::start()?;
        let [frame, _] = domain.frames()?;
        ours.push(calls(&mut domain.toolstack, Gfn(frame))?);
        let mut child = domain.tool(tool, &["maps".into(), MAPPINGS.to_string(), frame.to_string()])?;
        let mut said = BufReader::new(child.stdout.take().context("no output")?).lines();
        theirs.push(line(&mut said)?.parse()?);
        child.wait()?;
        domain.qemu.kill();
    }
    let (theirs, ours) = (median(theirs), median(ours));
    let detail = format!(
        "{theirs:.1} µs a frame that a tool on Xen's libraries maps and unmaps, {:.0} a second; {ours:.1} µs `Map` and `Unpin` by the client; medians of \
         {ROUNDS} rounds of {MAPPINGS}",
        1e6 / theirs
    );
    Ok(Figure { name: "xen-mapping-ratio", value: theirs / ours, unit: "ratio", goal: None, detail })
}

/// By the client: the two calls that the library makes of a tool's mapping and its end.
#[expect(clippy::cast_precision_loss, reason = "some tens of thousands of mappings")]
fn calls(client: &mut Client, gfn: Gfn) -> anyhow::Result<f64> {
    let begun = Instant::now();
    for _ in 0..MAPPINGS {
        client.map(gfn, false)?.map_err(|(_, why)| anyhow::Error::msg(why))?;
        client.values(&Call::Control(Control::Unpin { gfn }))?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / MAPPINGS as f64)
}

fn events(tool: &Path) -> anyhow::Result<Figure> {
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(median(round_trip::asleep(EVENTS)?));
        let mut domain = Domain::start()?;
        let [first, last] = domain.frames()?;
        let mut child =
            domain.tool(tool, &["events".into(), EVENTS.to_string(), first.to_string(), last.to_string()])?;
        let mut said = BufReader::new(child.stdout.take().context("no output")?).lines();
        if line(&mut said)? != "ready" {
            bail!("the tool did not begin");
        }
        loop {
            // The guest may end before it replies.
            let _ = domain.toolstack.call(&Call::Release { vcpu: mem_event::VcpuId(0) });
            if !domain.checkpoint()? {
                break;
            }
        }
        theirs.push(line(&mut said)?.parse()?);
        child.wait()?;
        domain.qemu.wait()?;
    }
    let (theirs, ours) = (median(theirs), median(ours));
    let detail = format!(
        "{theirs:.1} µs an event by a tool on Xen's libraries, {:.0} a second; {ours:.1} µs by the client; nobody spins; medians of {ROUNDS} \
         boots of {EVENTS}",
        1e6 / theirs
    );
    Ok(Figure { name: "xen-event-ratio", value: theirs / ours, unit: "ratio", goal: None, detail })
}
