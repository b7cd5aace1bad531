//! Two runs of frames become one, as a memory-sharing toolstack does: both of a pair are nominated, which write-protects them, and
//! then share.

use super::done::{Done, judge};
use mem_event::{Control, Errno, Gfn};
use mem_event_client::socket::Client;

/// Shares each pair; the first that does not go as it must ends it.
///
/// # Errors
/// The connection ended.
pub fn share(client: &mut Client, pairs: &[(Gfn, Gfn)], refused: Option<Errno>, what: &str) -> anyhow::Result<Done> {
    let mut last = Done { text: what.into(), failure: None };
    for (source, with) in pairs {
        last = judge(share_pair(client, *source, *with)?, refused, what);
        if last.failure.is_some() {
            break;
        }
    }
    Ok(last)
}

type Answer<T> = Result<T, (Errno, String)>;

fn share_pair(client: &mut Client, source: Gfn, with: Gfn) -> anyhow::Result<Answer<()>> {
    let mut nominate = |gfn| client.control(Control::NominateShare { gfn });
    let (source_handle, client_handle) = match (nominate(source)?, nominate(with)?) {
        (Ok(source), Ok(client)) => (source, client),
        (Err(refused), _) | (_, Err(refused)) => return Ok(Err(refused)),
    };
    let share = Control::Share { source, source_handle, client: with, client_handle };
    Ok(client.control(share)?.map(drop))
}
