//! What is written: paths with their texts.

/// A file's path in the folder, and its text.
pub type File = (String, String);

/// What the templates call the scenario and its guest.
pub const NAME: &str = "NAME";
