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
    length: u64,
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
        Progress { bar, length, begun: Instant::now() }
    }

    /// So many are done.
    pub fn at(&self, number: u64) {
        if !number.is_multiple_of(STRIDE) {
            return;
        }
        if self.bar.length().is_none() && self.begun.elapsed() > MOMENT && std::io::stderr().is_terminal() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
            self.bar.set_length(self.length);
        }
        self.bar.set_position(number);
    }

    /// All are done: the bar goes.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
