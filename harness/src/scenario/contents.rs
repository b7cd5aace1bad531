//! Whose the contents of frames are that are paged out.

use clap::ValueEnum;
use schemars::JsonSchema;
use serde::Deserialize;

/// Whose the contents of frames are that are paged out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Contents {
    /// The guest's: a frame that comes back with another content than it was evicted with is a failure.
    #[default]
    Check,
    /// The consumer's own: it may change them on purpose, and nothing is compared.
    Own,
}
