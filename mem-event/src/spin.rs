//! How long a thread polls before it sleeps: being woken costs more than most answers take.
//!
//! No clock is read here: the caller measures its waits and says how long they were.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Where `auto` begins, and begins again after long waits.
const FIRST: Duration = Duration::from_micros(25);
/// The longest that `auto` spins: about what being woken on either side of a ring costs. A wait that is longer anyhow gains
/// little.
const LONGEST: Duration = Duration::from_micros(200);

/// A thread that polls, and whose last poll is so long ago, did not have its core meanwhile.
const GAP: Duration = Duration::from_micros(300);
/// Waits without spinning after that: others want the core, and a thread that spins uses up its own time on it. Each time twice as many, as long as
/// that goes on.
const REST: u32 = 64;
/// As many at most.
const MOST_REST: u32 = 1 << 13;
/// Polls in a row, each soon after the one before, after which the core counts as this thread's own again.
const KEPT: u32 = 1 << 13;

/// The setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Spin {
    /// As long as recent waits paid off.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always so long.
    For(Duration),
}

impl FromStr for Spin {
    type Err = String;

    /// `auto`, `off` or a number of microseconds.
    fn from_str(text: &str) -> Result<Spin, String> {
        match text {
            "auto" => Ok(Spin::Auto),
            "off" => Ok(Spin::Off),
            number => match number.parse::<u32>() {
                Ok(micros) => Ok(Spin::For(Duration::from_micros(u64::from(micros)))),
                Err(_) => Err(format!("{text:?} is not auto, off or a number of microseconds")),
            },
        }
    }
}

impl fmt::Display for Spin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spin::Auto => f.write_str("auto"),
            Spin::Off => f.write_str("off"),
            Spin::For(time) => write!(f, "{}", time.as_micros()),
        }
    }
}

/// How long a waiting thread spins next time. `auto` grows while waits end soon enough to be met spinning, and shrinks after
/// those that do not, as the halt polling of the kernel's hypervisor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    spin: Spin,
    length: Duration,
    /// Waits until `auto` may spin again.
    rest: u32,
    /// How many there will be after the next loss of the core.
    next_rest: u32,
    /// Polls since the last one.
    kept: u32,
    /// What was waited for last came when this thread yielded.
    yields: bool,
}

impl Window {
    /// A window that knows of no waits yet.
    #[must_use]
    pub fn new(spin: Spin) -> Window {
        let length = match spin {
            Spin::Auto => FIRST,
            Spin::Off => Duration::ZERO,
            Spin::For(time) => time,
        };
        Window { spin, length, rest: 0, next_rest: REST, kept: 0, yields: false }
    }

    /// How long to spin.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.length
    }

    /// Whether a thread that spins is to yield before it polls: the thread that it waits for needs its very core. Else it keeps its core, and yields
    /// once before it sleeps: a thread that has nothing to do with the wait would get a turn of milliseconds.
    #[must_use]
    pub fn yields(&self) -> bool {
        self.yields
    }

    /// Whether what was waited for came when this thread yielded, or while it polled.
    pub fn came_by_yielding(&mut self, so: bool) {
        self.yields = so;
    }

    /// A thread that spins has not polled for so long. Whether it is to go on: not where another thread had its core.
    pub fn polled_after(&mut self, gap: Duration) -> bool {
        let kept = self.spin != Spin::Auto || gap < GAP;
        self.kept = if kept { self.kept.saturating_add(1) } else { 0 };
        if self.kept >= KEPT {
            self.next_rest = REST;
        }
        if !kept {
            self.length = Duration::ZERO;
            self.rest = self.next_rest;
            self.next_rest = (2 * self.rest).min(MOST_REST);
        }
        kept
    }

    /// A wait took so long, spinning and sleeping.
    pub fn waited(&mut self, time: Duration) {
        if self.rest > 0 {
            self.rest -= 1;
            return;
        }
        if self.spin != Spin::Auto || time <= self.length {
            return;
        }
        self.length = if time > LONGEST {
            // Half, so that one slow answer among many does not cost the next ones their spinning.
            if self.length > FIRST { self.length / 2 } else { Duration::ZERO }
        } else {
            (self.length * 2).clamp(FIRST, LONGEST)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{KEPT, LONGEST, MOST_REST, REST, Spin, Window};
    use std::time::Duration;

    const fn micros(number: u64) -> Duration {
        Duration::from_micros(number)
    }

    #[test]
    fn waits_that_end_soon_are_met_spinning_and_long_ones_are_slept_through() {
        let mut window = Window::new(Spin::Auto);
        for _ in 0..10 {
            window.waited(micros(150));
        }
        assert!(window.length() >= micros(150) && window.length() <= LONGEST, "{window:?}");
        for _ in 0..10 {
            window.waited(micros(5000));
        }
        assert_eq!(window.length(), Duration::ZERO);
        for _ in 0..10 {
            window.waited(micros(100));
        }
        assert!(window.length() >= micros(100), "{window:?}");
    }

    #[test]
    fn a_thread_that_loses_its_core_while_it_spins_sleeps_for_the_next_waits() {
        let mut window = Window::new(Spin::Auto);
        assert!(window.polled_after(micros(1)));
        assert!(!window.polled_after(micros(4000)));
        for _ in 0..REST {
            window.waited(micros(30));
            assert_eq!(window.length(), Duration::ZERO);
        }
        window.waited(micros(30));
        assert!(window.length() > Duration::ZERO);
    }

    #[test]
    fn where_the_core_is_lost_again_and_again_it_is_hardly_spun_for() {
        let mut window = Window::new(Spin::Auto);
        let rests = |window: &mut Window| {
            assert!(!window.polled_after(micros(4000)));
            let slept = (0..).take_while(|_| (window.waited(micros(30)), window.length().is_zero()).1).count();
            u32::try_from(slept).expect("a few thousand")
        };
        let rested: Vec<u32> = (0..12).map(|_| rests(&mut window)).collect();
        assert_eq!(rested[..3], [REST, 2 * REST, 4 * REST]);
        assert_eq!(rested[10..], [MOST_REST, MOST_REST]);
        for _ in 0..KEPT {
            assert!(window.polled_after(micros(1)));
        }
        assert_eq!(rests(&mut window), REST);
    }

    #[test]
    fn a_thread_yields_early_only_where_that_brought_what_it_waited_for() {
        let mut window = Window::new(Spin::Auto);
        assert!(!window.yields());
        window.came_by_yielding(true);
        window.waited(micros(10));
        assert!(window.yields());
        window.came_by_yielding(false);
        assert!(!window.yields());
    }

    #[test]
    fn what_was_set_stays_whatever_the_waits_are() {
        for (text, length) in [("off", 0), ("0", 0), ("70", 70)] {
            let mut window = Window::new(text.parse().expect("a setting"));
            window.waited(micros(10));
            window.waited(micros(100_000));
            assert!(window.polled_after(micros(100_000)));
            assert_eq!(window.length(), micros(length), "{text}");
        }
    }

    #[test]
    fn a_setting_is_read_as_it_is_written_and_anything_else_is_refused() {
        for text in ["auto", "off", "25"] {
            assert_eq!(text.parse::<Spin>().map(|spin| spin.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "on", "-1", "5us", "99999999999"] {
            assert!(text.parse::<Spin>().is_err(), "{text:?}");
        }
    }
}
