//! How pages are gathered by a run, or of a machine that runs, and where they go.

use super::page::page;
use super::report;
use super::touched::{Gathering, Pages};
use crate::guest::symbols::Symbols;
use crate::output::print;
use crate::refusal::{Refusal, plain};
use crate::run::report::{Live, Style};
use crate::scenario::amount::time;
use crate::scenario::{Scenario, Touching};
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The shortest window: all rights are taken back at its end, and a vCPU wants to get somewhere.
const SHORTEST: Duration = Duration::from_millis(10);

/// Which pages are wanted, and where they go.
#[derive(Clone, Debug, Default, Args)]
pub struct PagesOptions {
    /// How long a page that was touched is left alone: the pages of a window are the working set. 1s by default.
    #[arg(long, value_name = "TIME", help_heading = "Which pages are touched")]
    pub window: Option<String>,
    /// Write a line for every page into this file.
    #[arg(long, value_name = "FILE", help_heading = "Which pages are touched")]
    pub csv: Option<PathBuf>,
    /// Write a heat map of frames and time, with the table, into this file.
    #[arg(long, value_name = "FILE", help_heading = "Which pages are touched")]
    pub html: Option<PathBuf>,
}

/// Where pages that are gathered go.
#[derive(Debug)]
pub struct Wanted<'a> {
    options: &'a PagesOptions,
    window: Duration,
}

impl PagesOptions {
    /// What is wanted, if it is.
    ///
    /// # Errors
    /// An option without what it is of, a window that is none, a file that cannot be written.
    pub fn wanted(&self, is_wanted: bool) -> Result<Option<Wanted<'_>>, Refusal> {
        let given = [(&self.csv, "--csv"), (&self.html, "--html")];
        let given = given.iter().find(|(file, _)| file.is_some()).map(|(_, name)| *name);
        let given = given.or(self.window.as_ref().map(|_| "--window"));
        match given {
            Some(name) if !is_wanted => {
                let what = format!("{name} is of the pages that are touched, and they are not wanted");
                return Err(Refusal::usage(what, "add --pages"));
            }
            _ if !is_wanted => return Ok(None),
            _ => {}
        }
        let window = self.window.as_deref().map_or(Ok(Duration::from_secs(1)), time)?;
        if window < SHORTEST {
            let what = format!("a window of {window:?} is too short");
            return Err(Refusal::usage(what, format!("give {SHORTEST:?} at least")));
        }
        Ok(Some(Wanted { options: self, window }))
    }
}

impl Wanted<'_> {
    /// Has a scenario's listener find them.
    pub fn add_to(&self, scenario: &mut Scenario) {
        let listener = scenario.consumers.listener.get_or_insert_default();
        listener.touches = Some(Touching { window: self.window, entry: None });
    }

    /// Who gathers them, and shows the rest.
    ///
    /// # Errors
    /// A file cannot be written: known before a run of minutes, and not after it.
    pub fn gathering(&self, live: Live) -> Result<Gathering, Refusal> {
        for path in [&self.options.csv, &self.options.html].into_iter().flatten() {
            std::fs::File::create(path).map_err(|error| {
                let what = format!("cannot write {}: {}", path.display(), plain(&error));
                Refusal::usage(what, "name a file that can be written")
            })?;
        }
        Ok(Gathering::new(self.window, live))
    }

    /// Tells what was gathered.
    ///
    /// # Errors
    /// A file or the output cannot be written.
    pub fn tell(&self, name: &str, pages: &Pages, symbols: &Symbols, style: Style) -> anyhow::Result<()> {
        let write = |path: &Path, text: String| {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        self.options.csv.as_deref().map(|path| write(path, report::csv(pages, symbols))).transpose()?;
        self.options.html.as_deref().map(|path| write(path, page(name, pages, symbols))).transpose()?;
        match style {
            Style::Json => print(&(report::json(pages, symbols)? + "\n")),
            Style::Terminal | Style::Quiet => print(&report::text(pages, symbols)),
        }
    }
}
