//! A domain's memory as a whole.

use crate::scenario::range::Frames;
use mem_event::message::Call;
use mem_event::{Control, Gfn, P2mType};
use mem_event_client::Client;

/// The window of a PC's pictures and ROMs, whose accesses cannot be trapped: its first frame, and the one behind it.
const WINDOW: (u64, u64) = (0xa0, 0x100);

/// The frames of RAM whose accesses can be trapped, in order.
///
/// # Errors
/// As [`Client::call`].
pub fn ram(client: &mut Client) -> anyhow::Result<Vec<Frames>> {
    let mut ram: Vec<Frames> = Vec::new();
    for (gfn, (kind, _)) in (0..).zip(client.types()?) {
        if matches!(kind, P2mType::MmioDm | P2mType::Invalid) || (WINDOW.0..WINDOW.1).contains(&gfn) {
            continue;
        }
        match ram.last_mut() {
            Some(last) if last.first.0 + last.count == gfn => last.count += 1,
            _ => ram.push(Frames { first: Gfn(gfn), count: 1 }),
        }
    }
    Ok(ram)
}

/// Sets the rights of frames, however many, by the operation that does so.
///
/// # Errors
/// As [`Client::insist`].
pub fn set_access(client: &mut Client, frames: Frames, control: impl Fn(Frames) -> Control) -> anyhow::Result<()> {
    let Frames { mut first, mut count } = frames;
    while count > 0 {
        let [done, ..] = client.insist(&Call::Control(control(Frames { first, count })))?;
        // Of very many it does a part, and says how many these were.
        let done = if done == 0 { count } else { done };
        (first, count) = (Gfn(first.0 + done), count - done);
    }
    Ok(())
}
