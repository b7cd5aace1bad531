//! The toolstack's part: what a scenario does by control operations on the plugin's socket.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | acts carried out over one connection |
//! | [`done`] | what came of an act |
//! | [`share`], [`memory`] | frames shared; all of a domain's memory |
//! | [`sequence`], [`doing`] | the sequence of a run as its record tells it; what a connection did |
//! | [`connections`] | whose a connection is, by name |
//! | [`recording`], [`log`], [`counts`] | the record while it grows; what a run has seen so far |
//! | [`faults`] | the faults that were made to consumers, counted |
//! | [`transcript`] | the sequence as text |
//! | [`kernel`], [`who`] | the guest's kernel found; who made an event |

pub mod connections;
pub mod counts;
pub mod doing;
pub mod done;
pub mod faults;
pub mod kernel;
pub mod log;
pub mod memory;
mod monitored;
pub mod recording;
pub mod sequence;
pub mod share;
mod shown;
pub mod transcript;
mod views;
pub mod who;

use self::done::{Done, judge, operate};
use self::monitored::Monitored;
use crate::guest::symbols::Symbols;
use crate::scenario::range::Frames;
use crate::scenario::share::pairs;
use crate::scenario::{MemoryAct, Name, Place, Size};
use anyhow::bail;
use mem_event::message::{Call, Reply};
use mem_event::{AccessType, Control, Errno, Gfn, Gpa, PAGE_SIZE, TrapKind, VcpuId, ViewId};
use mem_event_client::socket::Client;

/// Carries one act out on this connection.
///
/// # Errors
/// The plugin refuses, or the connection ended.
pub fn carry_out(act: &MemoryAct, client: &mut Client, symbols: &Symbols) -> anyhow::Result<Done> {
    let done = |text: String| Ok(Done { text, failure: None });
    match act {
        MemoryAct::Watch { frames, stop, view } => set_access(client, (frames, *view), stop.0, None, symbols),
        MemoryAct::SetAccess { frames, access, view, refused } => {
            set_access(client, (frames, *view), access.0, *refused, symbols)
        }
        MemoryAct::Views { .. }
        | MemoryAct::CreateView { .. }
        | MemoryAct::DestroyView { .. }
        | MemoryAct::SwitchView { .. } => views::carry_out(act, client),
        MemoryAct::Populate { .. } | MemoryAct::Show { .. } => shown::carry_out(act, client, symbols),
        MemoryAct::Inject { vcpu, vector, r#as, error, cr2 } => {
            let kind = r#as.map_or_else(|| usual_kind(*vector), |kind| kind.0);
            let (error, cr2) = (error.unwrap_or(u32::MAX), cr2.map_or(0, |address| address.0));
            let control = Control::Inject { vcpu: VcpuId(*vcpu), vector: (*vector).into(), kind, error, cr2 };
            operate(client, control, None, &format!("inject trap {vector} into vCPU {vcpu}"))
        }
        MemoryAct::Nominate { frames, refused } => {
            of_each(client, frames, *refused, "nominate", symbols, |gfn| Control::Nominate { gfn })
        }
        MemoryAct::Evict { frames, refused } => {
            of_each(client, frames, *refused, "evict", symbols, |gfn| Control::Evict { gfn })
        }
        MemoryAct::Prep { frames, refused } => {
            of_each(client, frames, *refused, "prep", symbols, |gfn| Control::Prep { gfn, buffer: false })
        }
        MemoryAct::Balloon { frames, refused } => {
            of_each(client, frames, *refused, "balloon", symbols, |gfn| Control::Drop { gfn })
        }
        MemoryAct::Share { frames, with, refused } => {
            let pairs = pairs(frames, with, symbols).map_err(|(refusal, _)| refusal)?;
            share::share(client, &pairs, refused.map(|errno| errno.0), &format!("share {frames} with {with}"))
        }
        MemoryAct::Budget { size, spare } => set_budget(client, *size, *spare),
        MemoryAct::DefaultAccess { access, view } => set_default(client, access.0, *view),
        MemoryAct::AccessRequired { required } => {
            let text = if *required { "a listener is required" } else { "no listener is required" };
            operate(client, Control::SetAccessRequired { required: *required }, None, text)
        }
        MemoryAct::NoConsumer { ring, policy } => {
            let text = format!("without a consumer of {}: {}", ring.0, policy.name());
            operate(client, Control::SetNoConsumer { ring: ring.0, policy: policy.0 }, None, &text)
        }
        MemoryAct::Unmap { frames } => unmap(client, frames, symbols),
        MemoryAct::Write { at, value, refused } => write(client, at, value.0, refused.map(|errno| errno.0), symbols),
        MemoryAct::Expect { at, value } => {
            let found = word(client, at.address(symbols)?)?;
            let failure = (found != value.0).then(|| format!("{at} holds {found:#x} where {:#x} is due", value.0));
            Ok(Done { text: format!("see {found:#x} at {at}"), failure })
        }
        MemoryAct::Monitor { event, mode, on_change_only, ignore, register } => {
            let (kind, ignored) = (event.0, ignore.map(|bits| bits.0));
            let monitored = Monitored { kind, mode: mode.0, on_change_only: *on_change_only, ignored, msr: *register };
            monitored.switch(client)
        }
        MemoryAct::SingleStep { vcpu, on } => {
            client.values(&Call::Control(Control::SingleStep { vcpu: VcpuId(*vcpu), on: *on }))?;
            done(format!("single step of vcpu {vcpu} {}", if *on { "on" } else { "off" }))
        }
    }
}

fn unmap(client: &mut Client, frames: &Place, symbols: &Symbols) -> anyhow::Result<Done> {
    let each = frames.frames(symbols)?;
    each.iter().try_for_each(|gfn| client.values(&Call::Control(Control::Unpin { gfn })).map(drop))?;
    Ok(Done { text: format!("unmap {frames}"), failure: None })
}

/// The rights of frames that nobody names: of new ones, or in a view.
fn set_default(client: &mut Client, access: AccessType, view: Option<u16>) -> anyhow::Result<Done> {
    let (control, text) = match view {
        Some(view) => {
            (Control::SetViewDefault { view: ViewId(view), access }, format!("set all others in view {view} {access}"))
        }
        None => (Control::SetDefaultAccess { access }, format!("set new frames {access}")),
    };
    operate(client, control, None, &text)
}

/// Overwrites eight bytes.
fn write(client: &mut Client, at: &Place, value: u64, due: Option<Errno>, symbols: &Symbols) -> anyhow::Result<Done> {
    let gpa = at.address(symbols)?;
    let bytes = value.to_le_bytes().to_vec();
    let call = Call::WriteFrame { gfn: gpa.gfn(), offset: offset(gpa), bytes };
    let reply = if due == Some(Errno::ENOMEM) { client.call(&call)? } else { client.persist(&call)? };
    let answer = if let Reply::Refused(errno, why) = reply { Err((errno, why)) } else { Ok(()) };
    Ok(judge(answer, due, &format!("write {value:#x} at {at}")))
}

fn set_budget(client: &mut Client, size: Option<Size>, spare: Option<u64>) -> anyhow::Result<Done> {
    let mut set = |frames, text: &str| operate(client, Control::SetBudget { frames }, None, text);
    match (size, spare) {
        (None, None) => set(u64::MAX, "no budget"),
        (Some(size), None) => {
            let frames = size.0 / PAGE_SIZE as u64;
            set(frames, &format!("budget of {frames} frames"))
        }
        (None, Some(spare)) => {
            // What has never been touched counts only until there is a budget.
            set(u64::MAX, "no budget")?;
            let frames = client.info()?.resident.saturating_add(spare);
            operate(client, Control::SetBudget { frames }, None, &format!("budget with {spare} frames to spare"))
        }
        (Some(_), Some(_)) => bail!("a budget has a size or frames to spare, not both"),
    }
}

/// An operation on each of some frames; the first that does not go as it must ends it.
fn of_each(
    client: &mut Client,
    frames: &Place,
    refused: Option<Name<Errno>>,
    verb: &str,
    symbols: &Symbols,
    control: impl Fn(Gfn) -> Control,
) -> anyhow::Result<Done> {
    let mut last = Done { text: format!("{verb} {frames}"), failure: None };
    for gfn in frames.frames(symbols)?.iter() {
        last = operate(client, control(gfn), refused.map(|errno| errno.0), &format!("{verb} {frames}"))?;
        if last.failure.is_some() {
            break;
        }
    }
    Ok(last)
}

fn set_access(
    client: &mut Client,
    (frames, view): (&Place, Option<u16>),
    access: AccessType,
    refused: Option<Name<Errno>>,
    symbols: &Symbols,
) -> anyhow::Result<Done> {
    let control = |Frames { first, count }| match view {
        None => Control::SetAccess { first, count, access },
        Some(view) => Control::SetViewAccess { view: ViewId(view), first, count, access },
    };
    let where_ = view.map(|view| format!(" in view {view}")).unwrap_or_default();
    let text = format!("set {frames} {access}{where_}");
    let ranges = if frames.is_ram() { memory::ram(client)? } else { vec![frames.frames(symbols)?] };
    let mut last = Done { text: text.clone(), failure: None };
    for range in ranges {
        if refused.is_some() {
            last = operate(client, control(range), refused.map(|errno| errno.0), &text)?;
            if last.failure.is_some() {
                break;
            }
        } else {
            // A scenario that cannot have its rights is in error, and no failure of what it tests.
            memory::set_access(client, range, control)?;
        }
    }
    Ok(last)
}

fn offset(gpa: Gpa) -> u16 {
    (gpa.0 & 0xfff) as u16
}

fn word(client: &mut Client, gpa: Gpa) -> anyhow::Result<u64> {
    let bytes = client.read(gpa.gfn(), offset(gpa), 8)?;
    let Ok(bytes) = <[u8; 8]>::try_from(bytes) else { bail!("a read of 8 bytes gave another number of them") };
    Ok(u64::from_le_bytes(bytes))
}

/// What a vector is delivered as where nobody says.
fn usual_kind(vector: u8) -> TrapKind {
    match vector {
        2 => TrapKind::Nmi,
        3 | 4 => TrapKind::SoftwareException,
        0..32 => TrapKind::Exception,
        _ => TrapKind::Interrupt,
    }
}
