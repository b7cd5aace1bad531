//! How far a command is that takes longer than a moment: on the error output, if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Steps between two looks at the clock.
const STRIDE: u64 = 1 << 12;
/// What is done sooner shows no progress.
const MOMENT: Duration = Duration::from_secs(1);

/// A bar that appears after a second.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    /// None where nobody knows before.
    length: Option<u64>,
    begun: Instant,
}

impl Progress {
    /// Nothing is done of so many things, which are called so.
    #[must_use]
    pub fn new(things: &str, length: u64) -> Progress {
        let bar = ProgressBar::hidden();
        if let Ok(style) =
            ProgressStyle::with_template(&format!("{{bar:40}} {{pos}} of {{len}} {things}, {{eta}} left"))
        {
            bar.set_style(style);
        }
        Progress { bar, length: Some(length), begun: Instant::now() }
    }

    /// Nothing is tried yet; nobody knows how many tries it takes.
    #[must_use]
    pub fn of_tries() -> Progress {
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template("{pos} tries, {msg}, {elapsed}") {
            bar.set_style(style);
        }
        Progress { bar, length: None, begun: Instant::now() }
    }

    /// One more try.
    pub fn tried(&self) {
        self.show();
        self.bar.inc(1);
    }

    /// The best of the tries until now.
    pub fn best(&self, best: String) {
        self.bar.set_message(best);
    }

    /// So many are done.
    pub fn at(&self, number: u64) {
        if number.is_multiple_of(STRIDE) {
            self.one(number);
        }
    }

    /// The same, where each of them takes long.
    pub fn one(&self, number: u64) {
        self.show();
        self.bar.set_position(number);
    }

    /// After a moment, on a terminal, it is there.
    fn show(&self) {
        if self.bar.is_hidden() && self.begun.elapsed() > MOMENT && std::io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            if let Some(length) = self.length {
                self.bar.set_length(length);
            }
        }
    }

    /// All are done: the bar goes.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
