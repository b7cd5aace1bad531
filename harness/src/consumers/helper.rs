//! The out-of-memory helper's work: the budget grows each time the domain has used it up.

use crate::scenario::settings::HelperSettings;
use mem_event::Control;
use mem_event::message::Call;
use mem_event_client::socket::Client;

/// Raises the budget; what it was, and what it is now, in frames.
///
/// # Errors
/// The connection ended.
pub fn raise(client: &mut Client, settings: &HelperSettings) -> anyhow::Result<(u64, u64)> {
    let budget = client.info()?.budget;
    let frames = budget.saturating_add(settings.frames);
    client.values(&Call::Control(Control::SetBudget { frames }))?;
    Ok((budget, frames))
}
