//! Names of nodes.

use super::wire::Refused;

/// Where a name that begins with no `/` begins: the tools run in domain 0.
pub const HOME: &str = "/local/domain/0";
/// The longest whole name, and the longest that begins elsewhere.
const LONGEST: [usize; 2] = [3072, 2048];

/// A node's whole name.
///
/// # Errors
/// EINVAL: it is no name.
pub fn node(text: &str) -> Result<String, Refused> {
    let is_whole = text.starts_with('/');
    let known = |letter: char| letter.is_ascii_alphanumeric() || "-/_@:".contains(letter);
    let is_name = text.chars().all(known) && !text.contains("//") && (text == "/" || !text.ends_with('/'));
    if text.is_empty() || !is_name || text.len() > LONGEST[usize::from(!is_whole)] {
        return Err(Refused("EINVAL"));
    }
    Ok(if is_whole { text.to_owned() } else { format!("{HOME}/{text}") })
}

/// What can be watched: a node, or the coming or going of domains.
///
/// # Errors
/// EINVAL.
pub fn watchable(text: &str) -> Result<String, Refused> {
    match text {
        "@introduceDomain" | "@releaseDomain" => Ok(text.to_owned()),
        _ if text.starts_with('@') => Err(Refused("EINVAL")),
        _ => node(text),
    }
}

/// The node above; `None` for the root.
#[must_use]
pub fn parent(path: &str) -> Option<&str> {
    let (above, name) = path.rsplit_once('/')?;
    (!name.is_empty()).then_some(if above.is_empty() { "/" } else { above })
}

/// The last part of a name.
#[must_use]
pub fn name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// Whether a node is this one, or below it.
#[must_use]
pub fn is_within(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || above == "/")
}
