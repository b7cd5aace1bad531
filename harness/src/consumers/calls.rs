//! One call for many frames.

use mem_event::Gfn;
use mem_event::message::{Call, Reply};
use mem_event_client::Client;

/// Calls sent ahead of their replies. The plugin drops a client whose replies it cannot send at once, and a socket holds
/// 208 KiB by default: not more than some thirty replies with a frame's content.
const AHEAD: usize = 16;

/// The same call for several frames, sent ahead of the replies; those that were not refused.
///
/// # Errors
/// The connection ended.
pub fn of_each(client: &mut Client, frames: &[Gfn], call: impl Fn(Gfn) -> Call) -> anyhow::Result<Vec<(Gfn, Reply)>> {
    let mut accepted = Vec::with_capacity(frames.len());
    for ahead in frames.chunks(AHEAD) {
        for gfn in ahead {
            client.send(&call(*gfn))?;
        }
        for gfn in ahead {
            match client.reply()? {
                Reply::Refused(..) => {}
                reply => accepted.push((*gfn, reply)),
            }
        }
    }
    Ok(accepted)
}
