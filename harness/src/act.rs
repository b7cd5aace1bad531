//! What a scenario can do, and how it is done. A new act is a variant of [`Act`], an arm of [`Act::check`] where it names
//! memory, and an arm of [`carry_out`].

use crate::amount::mebibytes;
use crate::consumers::toolstack::{judge, operate};
use crate::pager::Pager;
use crate::range::Frames;
use crate::refusal::Refusal;
use crate::scenario::{Name, Number, Place, Role, Size, Stop};
use crate::share;
use crate::symbols::Symbols;
use anyhow::{Context, bail};
use mem_event::message::{Call, Reply, Standing};
use mem_event::{AccessType, Control, CpuEventKind, Errno, Gfn, Gpa, MonitorMode, NoConsumer, PAGE_SIZE, Ring, VcpuId};
use mem_event_client::socket::Client;
use schemars::JsonSchema;
use serde::Deserialize;

/// Something that a scenario does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum Act {
    /// Stop some accesses to frames from now on; the rights to others stay.
    Watch {
        /// Which frames.
        frames: Place,
        /// The accesses that stop.
        stop: Stop,
    },
    /// Set the access rights of frames.
    SetAccess {
        /// Which frames.
        frames: Place,
        /// The rights that are left.
        access: Name<AccessType>,
    },
    /// Page frames out. Those that cannot be (never touched, no RAM) are left.
    PageOut {
        /// Which frames.
        frames: Place,
    },
    /// Hold the guest to so much memory from now on.
    Target {
        /// RAM.
        memory: Size,
    },
    /// Begin foreign mappings: frames that are paged out come back first, and none leaves before `unmap`.
    Map {
        /// Which frames.
        frames: Place,
    },
    /// End foreign mappings.
    Unmap {
        /// Which frames.
        frames: Place,
    },
    /// Begin to evict frames: whoever touches one from now on makes the eviction fail. Their content is not kept.
    Nominate {
        /// Which frames.
        frames: Place,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Give nominated frames' memory back.
    Evict {
        /// Which frames.
        frames: Place,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Bring frames back without a content, as a pager does that has lost it.
    Prep {
        /// Which frames.
        frames: Place,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Balloon frames out; a pager that holds their content is told to drop it.
    Balloon {
        /// Which frames.
        frames: Place,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Let frames show one and the same memory, write-protected, until somebody writes. They must be equal.
    Share {
        /// Whose memory stays: one frame for all, or as many as the others.
        frames: Place,
        /// Who shows it too, and gives his own back.
        with: Place,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// How much memory the guest may hold from now on, without anybody evicting any; without either there is no limit.
    Budget {
        /// As much.
        size: Option<Size>,
        /// So many frames more than it holds now.
        spare: Option<u64>,
    },
    /// The rights of frames that come into being from now on.
    DefaultAccess {
        /// The rights.
        access: Name<AccessType>,
    },
    /// Whether a violation without a listener stops the vCPU, or relaxes the page.
    AccessRequired {
        /// Whether it stops.
        required: bool,
    },
    /// What happens from now on to an event while nobody serves the ring.
    NoConsumer {
        /// The ring.
        ring: Name<Ring>,
        /// What happens.
        policy: Name<NoConsumer>,
    },
    /// Enable a ring, as the toolstack does: it is there, and nobody serves it until it is disabled and a consumer joins.
    Enable {
        /// The ring.
        ring: Name<Ring>,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// End a ring, as the toolstack does. Its consumer here is gone with it, but for one that drains.
    Disable {
        /// The ring.
        ring: Name<Ring>,
        /// Take no new events, let the consumer answer what is due, wake who waits, then end.
        #[serde(default)]
        drain: bool,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// A consumer of this program is gone without a word, as if its process were killed.
    Kill {
        /// Which.
        consumer: Role,
    },
    /// A consumer of this program comes, or comes back, and enables its ring; it finds the events that nobody has answered.
    Join {
        /// Which.
        consumer: Role,
    },
    /// A consumer of this program takes no request until `resume`: one that is slow.
    Hold {
        /// Which.
        consumer: Role,
    },
    /// A consumer that was held goes on, with all that waits.
    Resume {
        /// Which.
        consumer: Role,
    },
    /// So many events must have been on a ring up to here, or the scenario fails.
    ExpectEvents {
        /// The ring.
        ring: Name<Ring>,
        /// How many.
        count: u64,
    },
    /// Wait, without serving any ring, until so many vCPUs wait for something.
    WaitUntil {
        /// At least so many.
        vcpus: usize,
        /// For what.
        wait_for: Name<Standing>,
    },
    /// Overwrite eight bytes.
    Write {
        /// The address.
        at: Place,
        /// What.
        value: Number,
        /// The error with which it must be refused.
        refused: Option<Name<Errno>>,
    },
    /// Eight bytes must hold this value, or the scenario fails.
    Expect {
        /// The address.
        at: Place,
        /// What must be there.
        value: Number,
    },
    /// Which CPU events are reported from now on, and how.
    Monitor {
        /// The kind.
        event: Name<CpuEventKind>,
        /// How.
        mode: Name<MonitorMode>,
        /// Only where the new value differs from the old (control registers).
        #[serde(default)]
        on_change_only: bool,
    },
    /// Whether a vCPU's single steps are reported, as far as they are monitored.
    SingleStep {
        /// The vCPU.
        #[serde(default)]
        vcpu: u32,
        /// On or off.
        on: bool,
    },
    /// Inject a trap into a vCPU, as HVMOP_inject_trap does. It takes QEMU's plugin API 6, so a scenario that does this is skipped.
    Inject {
        /// The vCPU.
        #[serde(default)]
        vcpu: u32,
        /// The trap's vector.
        vector: u8,
    },
}

/// What came of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What was done, for the sequence.
    pub text: String,
    /// An expectation that did not hold.
    pub failure: Option<String>,
}

impl Act {
    /// Checks that what it names is in the guest.
    ///
    /// # Errors
    /// What is not, and where that is written.
    pub fn check(&self, symbols: &Symbols) -> Result<(), (Refusal, &Place)> {
        match self {
            Act::Watch { frames, .. }
            | Act::SetAccess { frames, .. }
            | Act::PageOut { frames }
            | Act::Map { frames }
            | Act::Unmap { frames }
            | Act::Nominate { frames, .. }
            | Act::Evict { frames, .. }
            | Act::Prep { frames, .. }
            | Act::Balloon { frames, .. } => frames.frames(symbols).map(|_| ()).map_err(|refusal| (refusal, frames)),
            Act::Share { frames, with, .. } => share::pairs(frames, with, symbols).map(|_| ()),
            Act::Write { at, .. } | Act::Expect { at, .. } => {
                at.address(symbols).map(|_| ()).map_err(|refusal| (refusal, at))
            }
            _ => Ok(()),
        }
    }
}

/// Carries one act out on this connection; paging needs the pager.
///
/// # Errors
/// The plugin refuses, the connection ended, or a paging act has no pager.
pub fn carry_out(act: &Act, client: &mut Client, pager: Option<&mut Pager>, symbols: &Symbols) -> anyhow::Result<Done> {
    let done = |text: String| Ok(Done { text, failure: None });
    match act {
        Act::Watch { frames, stop } => done(set_access(client, frames, stop.0, symbols)?),
        Act::SetAccess { frames, access } => done(set_access(client, frames, access.0, symbols)?),
        Act::PageOut { frames } => {
            let list: Vec<Gfn> = frames.frames(symbols)?.iter().collect();
            let pager = pager.context("a page-out without a pager; add [consumers.pager]")?;
            let gone = pager.page_out(&list)?;
            done(format!("page out {gone} of {} frames of {frames}", list.len()))
        }
        Act::Target { memory } => {
            let pager = pager.context("a target without a pager; add [consumers.pager]")?;
            pager.hold_to(memory.0)?;
            done(format!("hold to {}", mebibytes(memory.0)))
        }
        Act::Inject { vcpu, vector } => {
            let what = format!("trap {vector} cannot be injected into vCPU {vcpu}");
            let remedy = "that needs QEMU's plugin API 6, and this plugin speaks API 4; leave `inject` out";
            Err(Refusal::machine(what, remedy).into())
        }
        Act::Map { .. }
        | Act::Enable { .. }
        | Act::Disable { .. }
        | Act::Kill { .. }
        | Act::Join { .. }
        | Act::Hold { .. }
        | Act::Resume { .. }
        | Act::ExpectEvents { .. }
        | Act::WaitUntil { .. } => {
            bail!(
                "a listener's rule cannot do this: consumers come and go and frames are mapped at the start and in steps"
            )
        }
        Act::Nominate { frames, refused } => {
            of_each(client, frames, *refused, "nominate", symbols, |gfn| Control::Nominate { gfn })
        }
        Act::Evict { frames, refused } => {
            of_each(client, frames, *refused, "evict", symbols, |gfn| Control::Evict { gfn })
        }
        Act::Prep { frames, refused } => {
            of_each(client, frames, *refused, "prep", symbols, |gfn| Control::Prep { gfn, buffer: false })
        }
        Act::Balloon { frames, refused } => {
            of_each(client, frames, *refused, "balloon", symbols, |gfn| Control::Drop { gfn })
        }
        Act::Share { frames, with, refused } => {
            let pairs = share::pairs(frames, with, symbols).map_err(|(refusal, _)| refusal)?;
            share::share(client, &pairs, refused.map(|errno| errno.0), &format!("share {frames} with {with}"))
        }
        Act::Budget { size, spare } => set_budget(client, *size, *spare),
        Act::DefaultAccess { access } => {
            let control = Control::SetDefaultAccess { access: access.0 };
            operate(client, control, None, &format!("set new frames {}", access.0))
        }
        Act::AccessRequired { required } => {
            let text = if *required { "a listener is required" } else { "no listener is required" };
            operate(client, Control::SetAccessRequired { required: *required }, None, text)
        }
        Act::NoConsumer { ring, policy } => {
            let text = format!("without a consumer of {}: {}", ring.0, policy.name());
            operate(client, Control::SetNoConsumer { ring: ring.0, policy: policy.0 }, None, &text)
        }
        Act::Unmap { frames } => {
            let each = frames.frames(symbols)?;
            each.iter().try_for_each(|gfn| client.values(&Call::Control(Control::Unpin { gfn })).map(drop))?;
            done(format!("unmap {frames}"))
        }
        Act::Write { at, value, refused } => {
            let gpa = at.address(symbols)?;
            let bytes = value.0.to_le_bytes().to_vec();
            let reply = client.call(&Call::WriteFrame { gfn: gpa.gfn(), offset: offset(gpa), bytes })?;
            let answer = if let Reply::Refused(errno, why) = reply { Err((errno, why)) } else { Ok(()) };
            Ok(judge(answer, refused.map(|errno| errno.0), &format!("write {:#x} at {at}", value.0)))
        }
        Act::Expect { at, value } => {
            let found = word(client, at.address(symbols)?)?;
            let failure = (found != value.0).then(|| format!("{at} holds {found:#x} where {:#x} is due", value.0));
            Ok(Done { text: format!("see {found:#x} at {at}"), failure })
        }
        Act::Monitor { event, mode, on_change_only } => {
            let (kind, mode, on_change_only) = (event.0, mode.0, *on_change_only);
            client.values(&Call::Control(Control::Monitor { kind, mode, on_change_only }))?;
            let which = if on_change_only { " changes only" } else { "" };
            done(format!("monitor {kind:?} {mode:?}{which}").to_lowercase())
        }
        Act::SingleStep { vcpu, on } => {
            client.values(&Call::Control(Control::SingleStep { vcpu: VcpuId(*vcpu), on: *on }))?;
            done(format!("single step of vcpu {vcpu} {}", if *on { "on" } else { "off" }))
        }
    }
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

fn set_access(client: &mut Client, frames: &Place, access: AccessType, symbols: &Symbols) -> anyhow::Result<String> {
    let Frames { first, count } = frames.frames(symbols)?;
    client.values(&Call::Control(Control::SetAccess { first, count, access }))?;
    Ok(format!("set {frames} {access}"))
}

fn offset(gpa: Gpa) -> u16 {
    (gpa.0 & 0xfff) as u16
}

fn word(client: &mut Client, gpa: Gpa) -> anyhow::Result<u64> {
    let bytes = client.read(gpa.gfn(), offset(gpa), 8)?;
    let Ok(bytes) = <[u8; 8]>::try_from(bytes) else { bail!("a read of 8 bytes gave another number of them") };
    Ok(u64::from_le_bytes(bytes))
}
