//! A scenario's text and where it lies, so that what is wrong is shown in its place.

use crate::refusal::{Refusal, in_one_line};
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::ops::Range;
use std::path::PathBuf;

/// A file's text and where it lies, for errors and relative paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where; for built-in scenarios a path in the repository.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

impl Source {
    /// What is wrong at a place of the file, and what to do.
    #[must_use]
    pub fn refusal(&self, span: Range<usize>, what: impl Into<String>, remedy: impl Into<String>) -> Refusal {
        let (what, remedy) = (in_one_line(what), in_one_line(remedy));
        let path = self.path.display().to_string();
        let (line, column) = self.position(span.start);
        let snippet =
            Snippet::source(self.text.as_str()).path(path.as_str()).annotation(AnnotationKind::Primary.span(span));
        let mut report = vec![Level::ERROR.primary_title(what.as_str()).element(snippet)];
        if !remedy.is_empty() {
            report.push(Group::with_title(Level::HELP.secondary_title(remedy.as_str())));
        }
        let shown = Renderer::plain().render(&report);
        Refusal { shown: Some(shown), ..Refusal::usage(format!("{path}:{line}:{column}: {what}"), remedy) }
    }

    /// Line and column of a byte, both from 1.
    fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let begins = before.rfind('\n').map_or(0, |newline| newline + 1);
        (line, before[begins..].chars().count() + 1)
    }
}
