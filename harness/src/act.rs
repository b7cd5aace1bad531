//! What a scenario can do, and how it is done. A new act is a variant of [`Act`], an arm of [`Act::places`] where it names
//! memory, and an arm of [`carry_out`].

use crate::pager::Pager;
use crate::range::Frames;
use crate::refusal::Refusal;
use crate::scenario::{Name, Number, Place, Stop};
use crate::symbols::Symbols;
use anyhow::{Context, bail};
use mem_event::message::Call;
use mem_event::{AccessType, Control, CpuEventKind, Gfn, Gpa, MonitorMode, VcpuId};
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
    /// Overwrite eight bytes.
    Write {
        /// The address.
        at: Place,
        /// What.
        value: Number,
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
            | Act::Unmap { frames } => frames.frames(symbols).map(|_| ()).map_err(|refusal| (refusal, frames)),
            Act::Write { at, .. } | Act::Expect { at, .. } => {
                at.address(symbols).map(|_| ()).map_err(|refusal| (refusal, at))
            }
            Act::Monitor { .. } | Act::SingleStep { .. } => Ok(()),
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
        Act::Map { .. } => {
            bail!("frames are mapped at the start and at checkpoints, where their pager can be waited for")
        }
        Act::Unmap { frames } => {
            let each = frames.frames(symbols)?;
            each.iter().try_for_each(|gfn| client.values(&Call::Control(Control::Unpin { gfn })).map(drop))?;
            done(format!("unmap {frames}"))
        }
        Act::Write { at, value } => {
            let gpa = at.address(symbols)?;
            let bytes = value.0.to_le_bytes().to_vec();
            client.values(&Call::WriteFrame { gfn: gpa.gfn(), offset: offset(gpa), bytes })?;
            done(format!("write {:#x} at {at}", value.0))
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
