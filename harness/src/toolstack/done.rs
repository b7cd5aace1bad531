//! What came of an act, and whether that is as it must be.

use anyhow::Context;
use mem_event::{Control, Errno};
use mem_event_client::socket::Client;

/// What came of an act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// What was done, for the sequence.
    pub text: String,
    /// An expectation that did not hold.
    pub failure: Option<String>,
}

/// A control operation that must be done, or be refused with this error.
pub(crate) fn operate(client: &mut Client, control: Control, due: Option<Errno>, what: &str) -> anyhow::Result<Done> {
    let answer = client.control(control).with_context(|| what.to_owned())?;
    Ok(judge(answer.map(drop), due, what))
}

/// Whether an operation was done, or refused, as it must be.
pub(crate) fn judge(answer: Result<(), (Errno, String)>, due: Option<Errno>, what: &str) -> Done {
    match (answer, due) {
        (Ok(()), None) => Done { text: what.into(), failure: None },
        (Ok(()), Some(due)) => Done { text: what.into(), failure: Some(format!("{what} was done where {due} is due")) },
        (Err((errno, _)), Some(due)) if errno == due => Done { text: format!("{what}: {errno}"), failure: None },
        (Err((errno, why)), _) => {
            Done { text: format!("{what}: {errno}"), failure: Some(format!("{what} was refused: {errno}, {why}")) }
        }
    }
}
