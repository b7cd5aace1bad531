//! Frames that show others' memory in a view, and frames beyond RAM for them to show.

use super::done::{Done, operate};
use crate::guest::symbols::Symbols;
use crate::scenario::share::pairs;
use crate::scenario::{MemoryAct, Place};
use mem_event::message::Call;
use mem_event::{Control, Errno, Gfn, PAGE_SIZE, ViewId};
use mem_event_client::socket::Client;

/// Carries an act out that is about such frames.
///
/// # Errors
/// The plugin refuses, or the connection ended.
pub(super) fn carry_out(act: &MemoryAct, client: &mut Client, symbols: &Symbols) -> anyhow::Result<Done> {
    match act {
        MemoryAct::Populate { frames, copy, refused } => {
            let due = refused.map(|errno| errno.0);
            match copy {
                None => {
                    let each: Vec<Gfn> = frames.frames(symbols)?.iter().collect();
                    populate(client, &each, due, &format!("populate {frames}"))
                }
                Some(copy) => {
                    let each = pairs(copy, frames, symbols).map_err(|(refusal, _)| refusal)?;
                    copies(client, &each, due, &format!("populate {frames}, as {copy}"))
                }
            }
        }
        MemoryAct::Show { frames, of, view, refused } => {
            let text = match of {
                Some(of) => format!("show {of} at {frames} in view {view}"),
                None => format!("show {frames} as it is in view {view}"),
            };
            let each = shown(frames, of.as_ref(), symbols)?;
            let due = refused.map(|errno| errno.0);
            let change = |(new, old)| Control::ChangeGfn { view: ViewId(*view), old, new };
            of_each(client, each.into_iter().map(change), due, &text)
        }
        _ => anyhow::bail!("an act that has nothing to do with frames that are shown"),
    }
}

/// The frames of which each is to show another one, with that.
fn shown(frames: &Place, of: Option<&Place>, symbols: &Symbols) -> anyhow::Result<Vec<(Gfn, Gfn)>> {
    match of {
        Some(of) => Ok(pairs(of, frames, symbols).map_err(|(refusal, _)| refusal)?),
        None => Ok(frames.frames(symbols)?.iter().map(|gfn| (Gfn::INVALID, gfn)).collect()),
    }
}

fn populate(client: &mut Client, frames: &[Gfn], due: Option<Errno>, text: &str) -> anyhow::Result<Done> {
    of_each(client, frames.iter().map(|gfn| Control::Populate { gfn: *gfn }), due, text)
}

fn copies(client: &mut Client, each: &[(Gfn, Gfn)], due: Option<Errno>, text: &str) -> anyhow::Result<Done> {
    let frames: Vec<Gfn> = each.iter().map(|(_, gfn)| *gfn).collect();
    let done = populate(client, &frames, due, text)?;
    if due.is_some() || done.failure.is_some() {
        return Ok(done);
    }
    let half = u16::try_from(PAGE_SIZE / 2)?;
    for (from, to) in each {
        for offset in [0, half] {
            let bytes = client.read(*from, offset, half)?;
            client.values(&Call::WriteFrame { gfn: *to, offset, bytes })?;
        }
    }
    Ok(done)
}

/// The first that does not go as it must ends it.
fn of_each(
    client: &mut Client,
    controls: impl Iterator<Item = Control>,
    due: Option<Errno>,
    text: &str,
) -> anyhow::Result<Done> {
    let mut last = Done { text: text.to_owned(), failure: None };
    for control in controls {
        last = operate(client, control, due, text)?;
        if last.failure.is_some() {
            break;
        }
    }
    Ok(last)
}
