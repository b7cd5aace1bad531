//! An access listener of one's own: a page gets the rights that were asked for besides those it has.
//!
//! `mem-event run page_fault --consumer access=target/release/examples/listener`

use mem_event::message::Call;
use mem_event::{AccessType, Control, Reason, Request};
use mem_event_client::{Channel, Handed, Lost};

fn main() -> anyhow::Result<()> {
    let (_, mut channel, ready) = Handed::take()?.into_channel()?;
    ready.say()?;
    match serve(&mut channel) {
        // The domain may end in the middle of a call, too.
        Err(error) if error.is::<Lost>() => Ok(()),
        other => other,
    }
}

fn serve(channel: &mut Channel) -> anyhow::Result<()> {
    while channel.wait()? {
        while let Some(request) = channel.take() {
            println!("{:?} of frame {} at offset {:#x}", request.reason, request.gfn, request.offset);
            if request.reason == Reason::Violation {
                allow(channel, &request)?;
            }
            channel.answer(&request.answer());
            channel.kick()?;
        }
    }
    Ok(())
}

/// The rights that the page has and those that the request asks for. In force before the answer goes out.
fn allow(channel: &mut Channel, request: &Request) -> anyhow::Result<()> {
    let [number, ..] = channel.client.values(&Call::Control(Control::GetAccess { gfn: request.gfn }))?;
    let has = u8::try_from(number).ok().and_then(AccessType::from_number).unwrap_or_default();
    let wanted = has.rights().union(request.rights);
    let access = AccessType::from_number(wanted.bits()).unwrap_or_default();
    channel.client.values(&Call::Control(Control::SetAccess { first: request.gfn, count: 1, access }))?;
    Ok(())
}
