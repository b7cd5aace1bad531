//! `status`: who waits for what in a domain that goes on, and what a consumer that died has left behind.

use crate::consumers::pager::Pager;
use crate::consumers::sleepers;
use crate::guest::symbols::Symbols;
use crate::output::{self, print};
use crate::refusal::Refusal;
use crate::scenario::amount::mebibytes;
use crate::scenario::settings::PagerSettings;
use clap::Args;
use mem_event::message::{Call, DeviceReport, Info, MonitorReport, RingReport, RingState, VcpuReport, VcpuState};
use mem_event::{Control, CpuEventKind, Errno, MonitorMode, NoConsumer, PAGE_SIZE, Ring, VcpuId};
use mem_event_client::{Channel, Client, Lost, RingSettings};
use serde_json::json;
use std::path::{Path, PathBuf};

/// `status`
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// The plugin's socket (its argument socket=PATH).
    pub socket: PathBuf,
    /// As a line of JSON.
    #[arg(long)]
    pub json: bool,
    /// End the monitors and rings that a dead consumer has left behind, and let those go on who wait for it. Frames that are out come
    /// back; from then on an access without a listener gives the page all rights. A ring that is served is left alone.
    #[arg(long)]
    pub release: bool,
}

/// What a domain tells of itself.
struct Domain {
    info: Info,
    rings: Vec<RingReport>,
    monitors: Vec<MonitorReport>,
    vcpus: Vec<VcpuReport>,
    devices: Vec<DeviceReport>,
}

impl Domain {
    fn ask(client: &mut Client) -> anyhow::Result<Domain> {
        Ok(Domain {
            info: client.info()?,
            rings: client.rings()?,
            monitors: client.monitors()?,
            vcpus: client.vcpus()?,
            devices: client.devices()?,
        })
    }

    fn text(&self) -> String {
        let Info { vcpus, frames, resident, paged, budget } = self.info;
        let budget = match budget {
            u64::MAX => "no budget".to_owned(),
            frames => format!("a budget of {}", mebibytes(frames * PAGE_SIZE as u64)),
        };
        let mut text =
            format!("domain    {vcpus} vCPUs, {frames} frames: {resident} resident, {paged} paged out; {budget}\n");
        for ring in &self.rings {
            text += &format!("{:<9} {}\n", ring.ring.to_string(), in_words(ring));
        }
        let on = self.monitors.iter().filter(|monitor| is_on(monitor));
        for MonitorReport { kind, mode, on_change_only } in on {
            let only = if *on_change_only { ", changes only" } else { "" };
            text += &format!("monitor   {kind} {mode}{only}\n");
        }
        let whose = |ring| self.rings.iter().find(|report| report.ring == ring).map_or_else(String::new, whose);
        let symbols = Symbols::default();
        let words = self.vcpus.iter().map(|report| sleepers::vcpu(report, whose, &symbols));
        for (vcpu, waits) in words.enumerate() {
            text += &format!("vcpu {vcpu:<4} {}\n", waits.unwrap_or_else(|| "goes on".into()));
        }
        for report in &self.devices {
            text += &format!("device    {}\n", sleepers::device(report, &symbols));
        }
        text
    }

    fn json(&self, done: &[String]) -> anyhow::Result<String> {
        let Info { frames, resident, paged, budget, .. } = self.info;
        let rings = self.rings.iter().map(|it| {
            json!({
                "ring": it.ring.name(), "state": it.state.name(), "process": (it.process != 0).then_some(it.process),
                "no_consumer": it.policy.name(), "slots": it.slots, "free": it.free,
                "unanswered": it.unanswered, "queued": it.queued,
            })
        });
        let monitors = self
            .monitors
            .iter()
            .map(|it| json!({ "event": it.kind.name(), "mode": it.mode.name(), "on_change_only": it.on_change_only }));
        let vcpus = self.vcpus.iter().enumerate().map(|(vcpu, it)| {
            json!({
                "vcpu": vcpu, "state": it.state.name(), "ring": it.ring.map(Ring::name),
                "frame": it.frame.map(|gfn| gfn.to_string()), "waited_ms": it.waited,
            })
        });
        let devices = self.devices.iter().map(|it| json!({ "gfn": it.gfn.to_string(), "waited_ms": it.waited }));
        Ok(output::json(&json!({
            "event": "status",
            "frames": frames,
            "resident": resident,
            "paged": paged,
            "budget": (budget != u64::MAX).then_some(budget),
            "rings": rings.collect::<Vec<_>>(),
            "monitors": monitors.collect::<Vec<_>>(),
            "vcpus": vcpus.collect::<Vec<_>>(),
            "devices": devices.collect::<Vec<_>>(),
            "released": done,
        }))?)
    }
}

fn is_on(monitor: &MonitorReport) -> bool {
    monitor.mode != MonitorMode::Disabled
}

fn whose(report: &RingReport) -> String {
    match (report.state, report.process) {
        (RingState::Live | RingState::Draining, 0) => "a process that this QEMU does not see".into(),
        (RingState::Live | RingState::Draining, process) => format!("process {process}"),
        _ => "nobody".into(),
    }
}

fn in_words(report: &RingReport) -> String {
    let RingReport { state, slots, free, unanswered, queued, policy, .. } = report;
    let held = match state {
        RingState::Absent => return format!("not enabled; without a consumer: {policy}; {queued} vCPUs wait for one"),
        RingState::Live => format!("served by {}", whose(report)),
        RingState::Draining => format!("drains; served by {}", whose(report)),
        RingState::Lost => "its consumer is gone".into(),
        RingState::Broken => "broken by its consumer".into(),
    };
    format!(
        "{held}; {free} of {slots} slots free; {unanswered} requests without an answer, {queued} vCPUs queued; without a consumer: {policy}"
    )
}

/// `status`; 0.
///
/// # Errors
/// Nobody listens at the socket, or the plugin refuses.
pub fn status(arguments: &Status) -> anyhow::Result<u8> {
    let mut client = Client::connect(&arguments.socket).map_err(|error| {
        Refusal::usage(format!("{error:#}"), "name the socket that the plugin was given (its argument socket=PATH)")
    })?;
    let mut domain = Domain::ask(&mut client)?;
    let mut done = Vec::new();
    if arguments.release {
        let released = release(&arguments.socket, &mut client, &domain, &mut done);
        match released.and_then(|()| Domain::ask(&mut client)) {
            Ok(now) => domain = now,
            // A guest that goes on may end at once, before what released it has its reply.
            Err(error) if error.is::<Lost>() => done.push("the guest, which has ended".into()),
            Err(error) => return Err(error),
        }
    }
    if arguments.json {
        print(&(domain.json(&done)? + "\n"))?;
    } else {
        let released = done.iter().map(|done| format!("released  {done}\n"));
        print(&(released.collect::<String>() + &domain.text()))?;
    }
    Ok(0)
}

/// Ends what dead consumers have left behind, as `status --release` does.
///
/// # Errors
/// The plugin refuses something.
pub fn release_what_is_left(socket: &Path) -> anyhow::Result<()> {
    // The plugin serves its clients in the order in which they came: it has seen the end of those before this one.
    let mut client = Client::connect(socket)?;
    let domain = Domain::ask(&mut client)?;
    release(socket, &mut client, &domain, &mut Vec::new())
}

/// Ends what a dead consumer has left behind. What is done is told in words before it is, since the guest may end by it.
fn release(socket: &Path, client: &mut Client, domain: &Domain, done: &mut Vec<String>) -> anyhow::Result<()> {
    release_breakpoints(client, done)?;
    for report in &domain.rings {
        let is_left = matches!(report.state, RingState::Lost | RingState::Broken);
        let waits = |it: &VcpuReport| it.ring == Some(report.ring) && it.state == VcpuState::Consumer;
        // Without a ring: the next write of what is monitored would stop its vCPU for nobody.
        let is_due = domain.vcpus.iter().any(waits) || domain.monitors.iter().any(is_on);
        let wanted = is_left || report.state == RingState::Absent && is_due;
        match report.ring {
            Ring::Access if wanted => release_access(client, domain, is_left, done)?,
            Ring::Paging if is_left => {
                // A successor finds the page file and the requests; when it ends in order every frame is back.
                let memory = domain.info.frames * PAGE_SIZE as u64;
                done.push("the paging ring, with every frame that was out".into());
                Pager::enable(socket, RingSettings::default(), &PagerSettings::default(), memory)?.finish()?;
            }
            Ring::Sharing if is_left => {
                done.push("the sharing ring and the budget".into());
                client.values(&Call::Control(Control::SetBudget { frames: u64::MAX }))?;
                let mut helper = Channel::enable(socket, Ring::Sharing, RingSettings::default())?;
                while let Some(request) = helper.take() {
                    helper.answer(&request.answer());
                }
                helper.kick()?;
                disable(client, Ring::Sharing, true)?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Takes back the breakpoints that ended connections have left.
fn release_breakpoints(client: &mut Client, done: &mut Vec<String>) -> anyhow::Result<()> {
    for left in client.breakpoints()?.into_iter().filter(|one| one.connection.is_none()) {
        done.push(format!("the breakpoint at {}", left.gpa));
        client.clear_breakpoint(left.gpa)?;
    }
    Ok(())
}

fn release_access(client: &mut Client, domain: &Domain, is_left: bool, done: &mut Vec<String>) -> anyhow::Result<()> {
    for monitor in &domain.monitors {
        let MonitorReport { kind, .. } = monitor;
        if is_on(monitor) {
            let off = Control::Monitor { kind: *kind, mode: MonitorMode::Disabled, on_change_only: false };
            done.push(format!("the monitor of {kind}"));
            client.values(&Call::Control(off))?;
        }
        if *kind == CpuEventKind::SingleStep {
            for vcpu in (0..u32::try_from(domain.vcpus.len())?).map(VcpuId) {
                client.control(Control::SingleStep { vcpu, on: false })?.ok();
            }
        }
    }
    done.push("the access ring; an access without a listener gives the page all rights from now on".into());
    client.values(&Call::Control(Control::SetNoConsumer { ring: Ring::Access, policy: NoConsumer::Relax }))?;
    if is_left { disable(client, Ring::Access, false) } else { Ok(()) }
}

/// Ends a ring that nobody serves.
fn disable(client: &mut Client, ring: Ring, drain: bool) -> anyhow::Result<()> {
    match client.control(Control::Disable { ring, drain })? {
        // It has ended by itself.
        Ok(_) | Err((Errno::ENODEV | Errno::ENOENT | Errno::EINVAL, _)) => Ok(()),
        Err((errno, why)) => anyhow::bail!("the {ring} ring cannot be ended: {errno}, {why}"),
    }
}
