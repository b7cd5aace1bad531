//! Waits for the first of several things, spinning a little before it sleeps.

use super::signals::Signals;
use crate::consumers::Consumers;
use crate::machine::process::Qemu;
use crate::poll;
use crate::scenario::Scenario;
use crate::toolstack::log::{LOOK, Log};
use mem_event::spin::Window;
use mem_event_client::poll::poll_until;
use rustix::event::{PollFd, PollFlags};
use std::time::{Duration, Instant};

/// Why serving ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// QEMU is gone.
    Gone,
    /// The domain crashed.
    Crashed,
    /// The deadline passed.
    Deadline,
    /// QEMU is told by its guest to end, and a vCPU or a device that waits keeps it from that.
    Held,
    /// A signal came.
    Signal,
    /// The listener has told as much as was wanted.
    Enough,
    /// A consumer that is a process of its own has failed, and how.
    Fault(String),
}

/// How long a QEMU that is told to end may take.
pub const IN_ORDER: Duration = Duration::from_secs(2);

/// Serves the consumers until something ends it. A QEMU that is somebody else's is gone with the connections to it.
///
/// # Errors
/// A connection ended unexpectedly, or a consumer cannot do its part.
pub fn serve(
    consumers: &mut Consumers,
    scenario: &Scenario,
    log: &mut Log<'_>,
    mut qemu: Option<&mut Qemu>,
    signals: Option<&Signals>,
    deadline: Instant,
) -> anyhow::Result<Ended> {
    let mut in_order = None;
    let mut window = Window::new(consumers.spin);
    let mut served = Instant::now();
    loop {
        let busy = consumers.in_process.serve(log)?;
        log.look();
        let now = Instant::now();
        if now >= deadline {
            return Ok(Ended::Deadline);
        }
        if consumers.in_process.comes_to_its_end() {
            return Ok(Ended::Enough);
        }
        if signals.is_some_and(Signals::came) {
            return Ok(Ended::Signal);
        }
        if busy {
            served = now;
        }
        if busy && comes_soon(consumers, &mut window) || consumers.in_process.end_polling() {
            continue;
        }
        if in_order.is_some_and(|until| now >= until) {
            if consumers.anybody_waits() {
                return Ok(Ended::Held);
            }
            // It is on its way, and slow.
            in_order = Some(now + IN_ORDER);
        }
        let limit = in_order.unwrap_or(deadline).min(deadline) - now;
        let limit = if log.is_followed() { limit.min(LOOK) } else { limit };
        let ready = wait(consumers, qemu.as_deref(), signals, limit)?;
        if consumers.in_process.clear_signals(&ready.consumers) {
            window.waited(served.elapsed());
        }
        if ready.consumers.last() == Some(&true) {
            consumers.hear(scenario, log)?;
        }
        if let Some(qemu) = qemu.as_deref_mut().filter(|_| ready.told) {
            qemu.qmp.hear()?;
            in_order = in_order.or(qemu.qmp.shutdown().map(|_| Instant::now() + IN_ORDER));
        }
        if log.crash.is_some() {
            return Ok(Ended::Crashed);
        }
        if !ready.gone
            && !consumers.have_lost_the_domain()
            && let Some(why) = consumers.fault()?
        {
            return Ok(Ended::Fault(why));
        }
        if ready.gone {
            return Ok(Ended::Gone);
        }
        if consumers.have_lost_the_domain() {
            // QEMU closes its descriptors a moment before it has ended.
            return qemu.map_or(Ok(Ended::Gone), |qemu| wait_for_end(qemu, deadline));
        }
    }
}

/// Polls the rings for a moment; whether a request came. A vCPU that has just gone on often stops again at once, and to be woken across cores costs
/// more than that. The rings count as polled until this thread is about to sleep: the engine would signal what is being served.
fn comes_soon(consumers: &mut Consumers, window: &mut Window) -> bool {
    consumers.in_process.begin_polling();
    poll_until(window, || consumers.in_process.is_pending())
}

/// What was readable.
struct Ready {
    /// In the order of [`Consumers::wait_for`]; the last is the toolstack.
    consumers: Vec<bool>,
    gone: bool,
    /// QEMU has told something.
    told: bool,
}

fn wait(
    consumers: &Consumers,
    qemu: Option<&Qemu>,
    signals: Option<&Signals>,
    limit: Duration,
) -> anyhow::Result<Ready> {
    let mut waited: Vec<PollFd<'_>> =
        consumers.wait_for().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
    let own = waited.len();
    waited.extend(qemu.map(|qemu| PollFd::new(qemu, PollFlags::IN)));
    let monitor = qemu.filter(|qemu| !qemu.qmp.has_ended());
    waited.extend(monitor.map(|qemu| PollFd::new(&qemu.qmp, PollFlags::IN)));
    waited.extend(signals.map(|signals| PollFd::new(signals, PollFlags::IN)));
    poll::poll(&mut waited, limit)?;
    let readable: Vec<bool> = waited.iter().map(|one| !one.revents().is_empty()).collect();
    let gone = qemu.is_some() && readable[own];
    Ok(Ready { consumers: readable[..own].to_vec(), gone, told: monitor.is_some() && readable[own + 1] })
}

/// Waits for QEMU's end.
///
/// # Errors
/// The kernel refuses to wait.
pub fn wait_for_end(qemu: &Qemu, deadline: Instant) -> anyhow::Result<Ended> {
    Ok(if poll::readable(qemu, deadline)? { Ended::Gone } else { Ended::Deadline })
}
