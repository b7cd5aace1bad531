//! An access listener of one's own: a page gets the rights that were asked for besides those it has.
//!
//! `mem-event run page_fault --consumer access=target/release/examples/listener`

use mem_event::Event;
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
            if let Event::Violation { gfn, offset, rights, .. } = request.event {
                println!("violation of frame {gfn} at offset {offset:#x}");
                // In force before the answer is.
                channel.grant(gfn, rights)?;
            }
            channel.answer(&request.answer());
            channel.kick()?;
        }
    }
    Ok(())
}
