//! What is kept of a failure: the trace, the picture of it, what guest, QEMU and consumers wrote, and the command that runs it again.

use super::attempt::Attempt;
use super::case::{Case, Judged};
use super::report;
use crate::trace::export::{self, Export, Format};
use crate::trace::selection::Filters;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// The folder of a case's evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub PathBuf);

impl Place {
    /// Where a case's evidence goes: into the folder that was named, or beside its snapshot. Nowhere for a built-in scenario where no folder
    /// was named, and where what runs for CI would change a checkout.
    #[must_use]
    pub fn of(case: &Case, named: Option<&Path>, for_ci: bool) -> Option<Place> {
        match (named, &case.file) {
            (Some(folder), _) => Some(Place(folder.join(&case.scenario.name))),
            // By the case's name: with faults by many seeds one scenario is many cases.
            (None, Some(snapshot)) if !for_ci => {
                Some(Place(snapshot.with_file_name(format!("{}.failed", case.scenario.name))))
            }
            (None, _) => None,
        }
    }

    /// What an earlier failure left here goes.
    pub fn clear(&self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }

    /// Keeps what an attempt left.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn keep(&self, case: &Case, attempt: &Attempt, judged: &Judged) -> anyhow::Result<()> {
        self.clear();
        let cannot = |path: &Path| format!("cannot write {}", path.display());
        std::fs::create_dir_all(&self.0).with_context(|| cannot(&self.0))?;
        let write = |name: &str, text: &str| {
            let path = self.0.join(name);
            if text.is_empty() { Ok(()) } else { std::fs::write(&path, text).with_context(|| cannot(&path)) }
        };
        write("failure.txt", &failure(case, judged, &self.0))?;
        write("sequence.txt", judged.sequence.as_deref().unwrap_or_default())?;
        if let Some(outcome) = &attempt.outcome {
            write("console.txt", &outcome.console)?;
            write("qemu.txt", &outcome.said)?;
        }
        for words in attempt.words() {
            let path = self.0.join(words.file_name().unwrap_or_default());
            std::fs::copy(&words, &path).with_context(|| cannot(&path))?;
        }
        if let Some(trace) = attempt.trace() {
            let copy = self.0.join("trace");
            std::fs::copy(&trace, &copy).with_context(|| cannot(&copy))?;
            let output = Some(self.0.join("picture.html"));
            export::export(&Export { trace, to: Format::Html, output, filters: Filters::default() })?;
        }
        Ok(())
    }
}

/// What failed, and how it is run and looked at again.
fn failure(case: &Case, judged: &Judged, folder: &Path) -> String {
    let difference = report::difference(judged, false);
    let again = case.again();
    let trace = folder.join("trace");
    let trace = trace.display();
    let explained: String = judged.explained.iter().map(|sentence| format!("{sentence}\n")).collect();
    format!(
        "{}: {}\n{difference}\n{explained}\nrun it again:  {again}\nwhat is wrong: mem-event explain {trace}\nits steps:     mem-event show {trace}\nstep by step:  mem-event step {trace}\n",
        case.scenario.name, judged.verdict
    )
}
