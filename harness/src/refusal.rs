//! What a user can put right: one line that says what is wrong, one that says what to do, and the exit code.

use mem_event_client::Lacking;
use std::fmt;

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The command line, or a file that it names: exit code 2.
    Usage,
    /// This machine lacks something: exit code 3.
    Machine,
}

/// An error with a remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose turn it is.
    pub blame: Blame,
    /// What is wrong, in one line.
    pub what: String,
    /// What to do about it, in one line.
    pub remedy: String,
    /// The place in a file where it is, drawn, with both lines in it.
    pub shown: Option<String>,
}

impl Refusal {
    /// The command line or a file is wrong.
    pub fn usage(what: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        let (what, remedy) = (in_one_line(what), in_one_line(remedy));
        Refusal { blame: Blame::Usage, what, remedy, shown: None }
    }

    /// The machine lacks something.
    pub fn machine(what: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        let (what, remedy) = (in_one_line(what), in_one_line(remedy));
        Refusal { blame: Blame::Machine, what, remedy, shown: None }
    }

    /// The refusal that an error is, if it is one.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Option<Refusal> {
        let lacking = || error.downcast_ref::<Lacking>().map(|it| Refusal::machine(&it.what, &it.remedy));
        error.downcast_ref::<Refusal>().cloned().or_else(lacking)
    }

    /// 2 for usage, 3 for a machine on which it cannot run.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self.blame {
            Blame::Usage => 2,
            Blame::Machine => 3,
        }
    }
}

/// Why a file cannot be read, in plain words.
#[must_use]
pub fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// A sentence that may quote a file, whose line breaks and terminal controls are shown and not obeyed.
pub fn in_one_line(text: impl Into<String>) -> String {
    let text: String = text.into();
    if !text.contains(char::is_control) {
        return text;
    }
    let shown = |letter: char| if letter.is_control() { letter.escape_default().to_string() } else { letter.into() };
    text.chars().map(shown).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::error::Error for Refusal {}

/// Up to three of `known` that look like `wanted`, the nearest first.
#[must_use]
pub fn nearest<'a>(wanted: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<(f64, &str)> = known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wanted.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness > 0.6)
        .collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    ranked.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_name_comes_first() {
        assert_eq!(nearest("page_inn", ["read_write", "page_in", "page_cross"])[0], "page_in");
    }

    #[test]
    fn names_without_likeness_are_left_out() {
        assert!(nearest("zzz", ["read_write", "page_in"]).is_empty());
    }
}
