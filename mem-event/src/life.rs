//! Whether the domain lives.

use bincode::{Decode, Encode};

/// Whether the domain lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) enum Life {
    Alive,
    /// It crashed, and why. Control operations still work, as in Xen.
    Crashed(String),
    /// It is being torn down.
    Dying,
}
