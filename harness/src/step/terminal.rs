//! The terminal: taken, drawn on, given back as it was, however the program ends.

use super::app::App;
use super::style::Theme;
use super::view;
use crate::refusal::Refusal;
use anyhow::Context;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fs::File;
use std::io::IsTerminal;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long nothing is looked at while no key is pressed: a signal is seen after this.
const IDLE: Duration = Duration::from_millis(100);
/// Steps that a search looks at between two looks at the keys.
const SLICE: u64 = 1 << 13;

/// Shows the trace until it is left by key or signal.
///
/// # Errors
/// The terminal cannot be used, or goes away.
pub fn run(mut app: App, theme: Theme) -> anyhow::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).context("cannot catch signals")?;
    }
    let keys = keys()?;
    // From here on a panic gives the terminal back too.
    let mut terminal = ratatui::try_init().map_err(|error| {
        ratatui::restore();
        Refusal::usage(format!("the terminal cannot be drawn on: {error}"), "run it in a terminal of its own")
    })?;
    let shown = show(&mut terminal, &mut app, theme, &keys, &ended);
    if is_gone(&keys, Duration::ZERO)? {
        // There is nothing to give back, and nobody to tell: what the terminal's destructor writes would fail, and panic.
        std::mem::forget(terminal);
        return Ok(());
    }
    ratatui::try_restore().context("cannot give the terminal back")?;
    shown
}

fn show(
    terminal: &mut DefaultTerminal,
    app: &mut App,
    theme: Theme,
    keys: &OwnedFd,
    ended: &AtomicBool,
) -> anyhow::Result<()> {
    while !app.done && !ended.load(Ordering::Relaxed) {
        terminal.draw(|frame| view::draw(frame, app, theme)).context("cannot draw on the terminal")?;
        while !app.done && !ended.load(Ordering::Relaxed) {
            let wait = if app.model.hunting().is_some() { Duration::ZERO } else { IDLE };
            if is_gone(keys, wait)? {
                return Ok(());
            }
            let came = event::poll(Duration::ZERO).context("cannot read the terminal")?;
            if came {
                take(app, keys)?;
            }
            let hunting = app.model.hunting().is_some();
            app.model.advance(SLICE);
            if came || hunting {
                break;
            }
        }
    }
    Ok(())
}

/// Everything that was typed: who holds a key down does not see each step drawn.
fn take(app: &mut App, keys: &OwnedFd) -> anyhow::Result<()> {
    loop {
        if let Event::Key(key) = event::read().context("cannot read the terminal")?
            && key.kind != KeyEventKind::Release
        {
            app.key(key);
        }
        let more =
            !is_gone(keys, Duration::ZERO)? && event::poll(Duration::ZERO).context("cannot read the terminal")?;
        if !more || app.done || app.model.hunting().is_some() {
            return Ok(());
        }
    }
}

/// Where keys come from: what crossterm reads.
fn keys() -> anyhow::Result<OwnedFd> {
    let input = std::io::stdin();
    if input.is_terminal() {
        return input.as_fd().try_clone_to_owned().context("cannot read the terminal");
    }
    Ok(File::open("/dev/tty").context("cannot open the terminal")?.into())
}

/// Waits for a key, and not longer than this. Whether the terminal is gone: crossterm would look for a key there for ever.
fn is_gone(keys: &OwnedFd, wait: Duration) -> anyhow::Result<bool> {
    let mut looked_at = [PollFd::new(keys, PollFlags::IN)];
    let wait = Timespec::try_from(wait).context("a wait that is too long")?;
    match rustix::event::poll(&mut looked_at, Some(&wait)) {
        // Interrupted by a signal; the caller checks for it.
        Err(Errno::INTR) => Ok(false),
        polled => {
            polled.context("cannot wait for the terminal")?;
            Ok(looked_at[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL))
        }
    }
}
