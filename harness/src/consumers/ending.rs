//! A consumer's ring that ends in order.

use mem_event::Control;
use mem_event::message::Call;
use mem_event_client::Channel;

/// Ends the ring of a consumer that answers one request at a time, and says whether there was one. All that is due is answered, also what came between
/// its last look and the ring's end, which waits for that.
///
/// # Errors
/// The connection ended, or an answer failed.
pub fn in_order<C>(
    consumer: &mut C,
    channel: impl Fn(&mut C) -> &mut Channel,
    mut answers_one: impl FnMut(&mut C) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    while answers_one(consumer)? {}
    let channel = channel(consumer);
    let (ring, _) = channel.shape();
    channel.client.values(&Call::Control(Control::Disable { ring, drain: true }))?;
    while answers_one(consumer)? {}
    Ok(())
}
