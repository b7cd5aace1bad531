//! An access listener of one's own: a page gets the rights that were asked for besides those it has.
//!
//! `mem-event run page_fault --consumer access=target/release/examples/listener`

use mem_event::Reason;
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
                // In force before the answer goes out.
                channel.client.grant(request.gfn, request.rights)?;
            }
            channel.answer(&request.answer());
            channel.kick()?;
        }
    }
    Ok(())
}
