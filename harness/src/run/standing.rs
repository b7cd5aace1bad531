//! How a long run stands, in one line that is drawn anew on a terminal.

use crate::machine::resident::MemoryFile;
use crate::scenario::amount::mebibytes;
use crate::toolstack::counts::Counts;
use crate::toolstack::log::Served;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mem_event::Ring;
use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// A run that is over sooner has no line.
const MOMENT: Duration = Duration::from_secs(1);
/// Over how long the events of a second are counted.
const SPAN: Duration = Duration::from_secs(1);
/// How often the line is drawn anew in a second, at most.
const HERTZ: u8 = 5;
/// How much of the console's end is looked at for its last line.
const TAIL: u64 = 4096;

/// The line, from a moment after the run's beginning until this is dropped.
#[derive(Debug)]
pub struct Standing {
    machine: Served,
    memory: Option<MemoryFile>,
    /// When the record was looked at lately, and how many events were in it.
    lately: VecDeque<(Instant, u64)>,
    bar: ProgressBar,
}

impl Standing {
    /// That of a machine; nothing is drawn yet.
    #[must_use]
    pub fn of(machine: &Served) -> Standing {
        let bar = ProgressBar::hidden();
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            bar.set_style(style);
        }
        // One that cannot be looked at has no number here; whoever needs it says so.
        let memory = MemoryFile::of(machine.process).ok();
        Standing { machine: machine.clone(), memory, lately: VecDeque::new(), bar }
    }

    /// The record was looked at: the line is drawn anew.
    pub fn looked(&mut self, counts: &Counts) {
        let now = Instant::now();
        let rate = self.rate(now, Ring::ALL.iter().map(|ring| counts.of(*ring)).sum());
        if now - self.machine.begun < MOMENT {
            return;
        }
        if self.bar.is_hidden() {
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(HERTZ));
        }
        self.bar.set_message(self.line(now - self.machine.begun, rate));
        self.bar.tick();
    }

    /// Writes other lines, which the line stays below.
    pub fn beside(&self, write: impl FnOnce()) {
        self.bar.suspend(write);
    }

    /// Events a second, from the first look within the last [`SPAN`] on.
    fn rate(&mut self, now: Instant, events: u64) -> u64 {
        self.lately.push_back((now, events));
        while self.lately.get(1).is_some_and(|(at, _)| now - *at >= SPAN) {
            self.lately.pop_front();
        }
        let (since, before) = self.lately[0];
        let micros = (now - since).as_micros().max(1);
        u64::try_from(u128::from(events - before) * 1_000_000 / micros).unwrap_or(u64::MAX)
    }

    fn line(&self, taken: Duration, rate: u64) -> String {
        let Served { deadline, target, console, .. } = &self.machine;
        let limit = deadline.map_or_else(String::new, |limit| format!(" of {} s", limit.as_secs()));
        let mut parts = vec![format!("{} s{limit}", taken.as_secs()), format!("{rate} events a second")];
        let resident = self.memory.as_ref().and_then(|memory| memory.bytes().ok());
        parts.extend(resident.map(|resident| {
            let target = target.map_or_else(String::new, |target| format!(" of {}", mebibytes(target)));
            format!("{} resident{target}", mebibytes(resident))
        }));
        parts.extend(console.as_deref().and_then(last_line));
        parts.join(" | ")
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The last line that the guest wrote whole or in part, as a terminal may show it.
fn last_line(console: &Path) -> Option<String> {
    let file = File::open(console).ok()?;
    let length = file.metadata().ok()?.len();
    let mut tail = vec![0; usize::try_from(length.min(TAIL)).ok()?];
    file.read_exact_at(&mut tail, length.saturating_sub(TAIL)).ok()?;
    shown(&String::from_utf8_lossy(&tail))
}

fn shown(tail: &str) -> Option<String> {
    let lines = tail.lines().rev().map(without_controls);
    lines.map(|line| line.trim().to_owned()).find(|line| !line.is_empty())
}

/// Without what moves a terminal's cursor, and with one column for each character.
fn without_controls(line: &str) -> String {
    let (mut shown, mut letters) = (String::new(), line.chars().peekable());
    while let Some(letter) = letters.next() {
        match letter {
            // ESC [ parameters letter, or ESC and one more.
            '\x1b' => {
                if letters.next() == Some('[') {
                    letters.by_ref().find(|next| ('@'..='~').contains(next));
                }
            }
            '\t' => shown.push(' '),
            ' '..='~' => shown.push(letter),
            letter if letter.is_control() => {}
            _ => shown.push('?'),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::{Standing, shown};
    use crate::machine::folder::RunFolder;
    use crate::toolstack::log::Served;
    use std::time::{Duration, Instant};

    fn standing(deadline: Option<Duration>) -> Standing {
        let begun = Instant::now();
        Standing::of(&Served { process: 0, console: None, begun, deadline, target: None })
    }

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let (mut standing, begun) = (standing(None), Instant::now());
        let at = |millis| begun + Duration::from_millis(millis);
        assert_eq!(standing.rate(at(0), 0), 0);
        assert_eq!(standing.rate(at(500), 1000), 2000);
        assert_eq!(standing.rate(at(1000), 1000), 1000);
        assert_eq!(standing.rate(at(1500), 1000), 0, "what came before is forgotten");
        assert_eq!(standing.rate(at(5000), 1350), 100, "from the look before the pause on");
    }

    #[test]
    fn what_moves_a_cursor_is_not_shown_and_an_empty_line_is_no_last_line() {
        assert_eq!(shown("one\r\n\x1b[2J\x1b[01;31mtwo\x07\tä\r\n \r\n\x1b[0m").as_deref(), Some("two ?"));
        assert_eq!(shown("\n \n"), None);
    }

    #[test]
    fn the_guests_last_line_is_the_lines_last_part() {
        let folder = RunFolder::create().unwrap();
        let (mut standing, console) = (standing(None), folder.file("console"));
        let line = |standing: &Standing| standing.line(Duration::ZERO, 0);
        standing.machine.console = Some(console.clone());
        assert_eq!(line(&standing), "0 s | 0 events a second", "nothing was written yet");
        std::fs::write(&console, "x".repeat(5000) + "\none\ntwo").unwrap();
        assert_eq!(line(&standing), "0 s | 0 events a second | two");
    }

    #[test]
    fn a_domain_without_a_deadline_has_none_in_its_line() {
        assert_eq!(standing(None).line(Duration::from_secs(7), 12), "7 s | 12 events a second");
        let limited = standing(Some(Duration::from_secs(90)));
        assert_eq!(limited.line(Duration::from_secs(7), 0), "7 s of 90 s | 0 events a second");
    }
}
