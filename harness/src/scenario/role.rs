//! Consumers, by what they do.

use mem_event::Ring;
use schemars::JsonSchema;
use serde::Deserialize;
use std::fmt;

/// A consumer, by the ring that it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Of the access ring.
    Listener,
    /// Of the paging ring.
    Pager,
    /// Of the sharing ring, who frees memory.
    Helper,
}

impl Role {
    /// The ring that it serves.
    #[must_use]
    pub fn ring(self) -> Ring {
        match self {
            Role::Listener => Ring::Access,
            Role::Pager => Ring::Paging,
            Role::Helper => Ring::Sharing,
        }
    }

    /// Who serves this ring.
    #[must_use]
    pub fn of(ring: Ring) -> Role {
        match ring {
            Ring::Access => Role::Listener,
            Ring::Paging => Role::Pager,
            Ring::Sharing => Role::Helper,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Listener => "listener",
            Role::Pager => "pager",
            Role::Helper => "helper",
        })
    }
}
