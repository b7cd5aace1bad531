//! Carries out what a scenario says.

use crate::pager::Pager;
use crate::range::Frames;
use crate::scenario::Act;
use crate::symbols::Symbols;
use anyhow::{Context, bail};
use mem_event::message::Call;
use mem_event::{Control, Gfn};
use mem_event_client::socket::Client;

/// What came of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What was done, for the sequence.
    pub text: String,
    /// An expectation that did not hold.
    pub failure: Option<String>,
}

/// Carries one act out on this connection; paging needs the pager.
///
/// # Errors
/// The plugin refuses, the connection ended, or a paging act has no pager.
pub fn carry_out(act: &Act, client: &mut Client, pager: Option<&mut Pager>, symbols: &Symbols) -> anyhow::Result<Done> {
    let done = |text: String| Ok(Done { text, failure: None });
    match act {
        Act::SetAccess { range, access } => {
            let Frames { first, count } = Frames::parse(range, symbols)?;
            client.values(&Call::Control(Control::SetAccess { first, count, access: *access }))?;
            done(format!("set {range} {access}"))
        }
        Act::PageOut { range } => {
            let frames: Vec<Gfn> = Frames::parse(range, symbols)?.iter().collect();
            let pager = pager.context("a page-out without a paging ring")?;
            let gone = pager.page_out(&frames)?;
            done(format!("page out {gone} of {} frames of {range}", frames.len()))
        }
        Act::Map { .. } => {
            bail!("frames are mapped at the start and at checkpoints, where their pager can be waited for")
        }
        Act::Unmap { range } => {
            let frames = Frames::parse(range, symbols)?;
            frames.iter().try_for_each(|gfn| client.values(&Call::Control(Control::Unpin { gfn })).map(drop))?;
            done(format!("unmap {range}"))
        }
        Act::Write { range, offset, value } => {
            let gfn = Frames::parse(range, symbols)?.first;
            client.values(&Call::WriteFrame { gfn, offset: *offset, bytes: value.to_le_bytes().to_vec() })?;
            done(format!("write {value:#x} at {range}+{offset:#x}"))
        }
        Act::Expect { range, offset, value } => {
            let gfn = Frames::parse(range, symbols)?.first;
            let found = word(client, gfn, *offset)?;
            let failure =
                (found != *value).then(|| format!("{range}+{offset:#x} holds {found:#x} where {value:#x} is due"));
            Ok(Done { text: format!("see {found:#x} at {range}+{offset:#x}"), failure })
        }
        Act::Monitor { kind, mode, on_change_only } => {
            let (kind, mode, on_change_only) = (*kind, *mode, *on_change_only);
            client.values(&Call::Control(Control::Monitor { kind, mode, on_change_only }))?;
            let which = if on_change_only { " changes only" } else { "" };
            done(format!("monitor {kind:?} {mode:?}{which}").to_lowercase())
        }
        Act::SingleStep { vcpu, on } => {
            client.values(&Call::Control(Control::SingleStep { vcpu: *vcpu, on: *on }))?;
            done(format!("single step of vcpu {vcpu} {}", if *on { "on" } else { "off" }))
        }
    }
}

fn word(client: &mut Client, gfn: Gfn, offset: u16) -> anyhow::Result<u64> {
    let bytes = client.read(gfn, offset, 8)?;
    let Ok(bytes) = <[u8; 8]>::try_from(bytes) else { bail!("a read of 8 bytes gave another number of them") };
    Ok(u64::from_le_bytes(bytes))
}
