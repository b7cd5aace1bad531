//! Who hears of what.

use super::path;
use super::wire::{Kind, Message};

/// A connection's number.
pub type Client = u64;

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// Whose.
    pub client: Client,
    /// Of this node and those below it.
    pub path: String,
    /// The name as it was said, which is how the client hears of it.
    pub said: String,
    /// The client's word for it.
    pub token: String,
}

/// What has happened to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The node, or what else is watched.
    pub path: String,
    /// Only those hear of it that watch this very node: it went with one above it.
    pub exact: bool,
}

impl Watch {
    /// Whether an event is for it.
    #[must_use]
    pub fn sees(&self, event: &Event) -> bool {
        if event.exact { event.path == self.path } else { path::is_within(&event.path, &self.path) }
    }

    /// What its client hears.
    #[must_use]
    pub fn message(&self, event: &Event) -> Message {
        // Who watches by a name that begins at home hears of such names.
        let below = event.path.strip_prefix(&self.path).unwrap_or_default();
        let body = format!("{}{below}\0{}\0", self.said, self.token).into_bytes();
        Message { kind: Kind::WatchEvent, request: 0, transaction: 0, body }
    }
}
