//! Why a call or a connection comes to nothing.

use mem_event::message::Reply;

/// The connection ended while something was expected of it: QEMU has ended, or will in a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the plugin closed the connection")
    }
}

impl std::error::Error for Lost {}

/// The plugin, QEMU or the kernel lacks what a call takes (EOPNOTSUPP).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    /// What is lacking, in one line.
    pub what: String,
    /// What to do about it, in one line.
    pub remedy: String,
}

impl std::fmt::Display for Lacking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Lacking {}

/// Why a connection is not wanted: a refusal of no call in particular.
pub(crate) fn refusal(reply: Reply) -> anyhow::Error {
    match reply {
        Reply::Refused(errno, why) => anyhow::anyhow!("the plugin refuses this connection: {errno}, {why}"),
        _ => anyhow::anyhow!("a reply to no call"),
    }
}

/// The plugin's sentence says what to do after a semicolon.
pub(crate) fn cannot(why: &str) -> anyhow::Error {
    let (what, remedy) = why.split_once("; ").unwrap_or((why, "see `mem-event doctor`"));
    Lacking { what: what.into(), remedy: remedy.into() }.into()
}
