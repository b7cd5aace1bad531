//! Acts carried out: what concerns the consumers and their rings here, all else by the toolstack.

use super::external::Running;
use super::in_process::InProcess;
use crate::scenario::amount::mebibytes;
use crate::scenario::range::Frames;
use crate::scenario::{Act, ConsumerAct, Place};
use crate::toolstack;
use crate::toolstack::done::{Done, operate};
use crate::toolstack::log::Log;
use anyhow::{Context, ensure};
use mem_event::message::{Call, VcpuState};
use mem_event::{Control, Errno, Gfn, PAGE_SIZE, Ring};
use mem_event_client::Order;
use mem_event_client::channel::RingSettings;
use mem_event_client::socket::Client;
use std::time::{Duration, Instant};

/// How long what is waited for may take: only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two polls, where somebody else's turn must come first.
const RETRY: Duration = Duration::from_millis(1);

/// Carries one act out.
///
/// # Errors
/// The plugin refuses, a connection ended, or a paging act has no pager.
pub fn carry_out(
    act: &Act,
    toolstack: &mut Client,
    consumers: &mut InProcess,
    external: &[Running],
    log: &mut Log<'_>,
) -> anyhow::Result<Done> {
    let act = match act {
        Act::Memory(act) => return toolstack::carry_out(act, toolstack, log.symbols),
        Act::Consumer(act) => act,
    };
    let text = match act {
        ConsumerAct::PageOut { frames } => page_out(frames, toolstack, consumers, external, log)?,
        ConsumerAct::Target { memory } => {
            order(Order::target(memory.0), toolstack, consumers, external)?;
            format!("hold to {}", mebibytes(memory.0))
        }
        ConsumerAct::Map { frames } => {
            map(frames, toolstack, consumers, log)?;
            format!("map {frames}")
        }
        ConsumerAct::Enable { ring, refused } => {
            let ring = ring.0;
            let RingSettings { layout, slots } = consumers.ring(ring);
            let enable = Control::Enable { ring, layout, slots };
            let due = refused.map(|errno| errno.0);
            return operate(toolstack, enable, due, &format!("enable {ring}"));
        }
        ConsumerAct::Disable { ring, drain, refused } => {
            return disable(toolstack, consumers, ring.0, *drain, refused.map(|errno| errno.0));
        }
        ConsumerAct::Kill { consumer } => {
            consumers.part_with(consumer.ring())?;
            format!("kill the {consumer}")
        }
        ConsumerAct::Join { consumer } => {
            consumers.join(*consumer)?;
            format!("the {consumer} joins")
        }
        ConsumerAct::Hold { consumer } => {
            consumers.hold(*consumer);
            format!("hold the {consumer}")
        }
        ConsumerAct::Resume { consumer } => {
            consumers.resume(*consumer, log)?;
            format!("the {consumer} goes on")
        }
        ConsumerAct::ExpectEvents { ring, count } => {
            log.read_to(toolstack.note("")?)?;
            let seen = log.counts().of(ring.0);
            let failure = (seen != *count).then(|| format!("{seen} events of {} where {count} are due", ring.0));
            return Ok(Done { text: format!("see {seen} events of {}", ring.0), failure });
        }
        ConsumerAct::WaitUntil { vcpus, wait_for } => {
            let text = format!("{vcpus} vCPUs wait for {}", wait_for.name());
            let failure = wait_until(toolstack, *vcpus, wait_for.0)?;
            return Ok(Done { text, failure });
        }
    };
    Ok(Done { text, failure: None })
}

/// The pager evicts what it can of these frames; that in words.
fn page_out(
    frames: &Place,
    toolstack: &mut Client,
    consumers: &mut InProcess,
    external: &[Running],
    log: &Log<'_>,
) -> anyhow::Result<String> {
    let Frames { first, count } = frames.frames(log.symbols)?;
    let gone = order(Order::PageOut { first, count }, toolstack, consumers, external)?;
    Ok(format!("page out {gone} of {count} frames of {frames}"))
}

/// Has the pager carry an order out, here or in a process of its own; how many frames it evicted for it, as far as it says so. The trace
/// says so before: a pager that is tried against it gets the same orders.
///
/// # Errors
/// There is no pager, or it does not carry it out.
pub fn order(
    order: Order,
    toolstack: &mut Client,
    consumers: &mut InProcess,
    external: &[Running],
) -> anyhow::Result<u64> {
    toolstack.values(&Call::Ordered { text: order.to_string() })?;
    match (consumers.pager(), order) {
        (Some(pager), Order::PageOut { first, count }) => {
            Ok(pager.page_out(&(first.0..first.0 + count).map(Gfn).collect::<Vec<Gfn>>())? as u64)
        }
        (Some(pager), Order::Target { frames }) => pager.hold_to(frames * PAGE_SIZE as u64).map(|()| 0),
        (None, _) => {
            let why = || {
                format!("the order `{order}` without a pager; add [consumers.pager], or a process with the paging ring")
            };
            external.iter().find(|one| one.has(Ring::Paging)).with_context(why)?.order(order)
        }
    }
}

/// Ends a ring. Its consumer here leaves with it, unless it drains or the end is to be refused.
fn disable(
    toolstack: &mut Client,
    consumers: &mut InProcess,
    ring: Ring,
    drain: bool,
    due: Option<Errno>,
) -> anyhow::Result<Done> {
    let how = if drain { ", draining" } else { "" };
    let done = operate(toolstack, Control::Disable { ring, drain }, due, &format!("disable {ring}{how}"))?;
    if done.failure.is_none() && due.is_none() && !drain {
        consumers.part_with(ring)?;
    }
    Ok(done)
}

/// Waits until so many vCPUs wait for something, without serving any ring; what is wrong if they do not.
fn wait_until(toolstack: &mut Client, vcpus: usize, wanted: VcpuState) -> anyhow::Result<Option<String>> {
    let until = Instant::now() + PATIENCE;
    loop {
        let waiting = toolstack.vcpus()?.iter().filter(|report| report.state == wanted).count();
        if waiting >= vcpus {
            return Ok(None);
        }
        if Instant::now() > until {
            return Ok(Some(format!("{waiting} vCPUs wait where {vcpus} are due, after {PATIENCE:?}")));
        }
        std::thread::sleep(RETRY);
    }
}

/// Foreign mappings begin. What is paged out comes back first: its pager is served by this very thread, or by its own.
fn map(frames: &Place, toolstack: &mut Client, consumers: &mut InProcess, log: &mut Log<'_>) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    for gfn in frames.frames(log.symbols)?.iter() {
        while !toolstack.pin(gfn)? {
            if !consumers.serve(log)? {
                std::thread::sleep(RETRY);
            }
            ensure!(Instant::now() < until, "frame {gfn} is not paged in within {PATIENCE:?}, so it cannot be mapped");
        }
    }
    Ok(())
}
