//! The terminal: taken, drawn on, given back as it was, however the program ends.

use super::app::App;
use super::style::Theme;
use super::view;
use crate::refusal::Refusal;
use anyhow::Context;
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
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
pub fn run(mut app: App) -> anyhow::Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).context("cannot catch signals")?;
    }
    // From here on a panic gives the terminal back too.
    let mut terminal = ratatui::try_init().map_err(|error| {
        ratatui::restore();
        Refusal::usage(format!("the terminal cannot be drawn on: {error}"), "run it in a terminal of its own")
    })?;
    let shown = show(&mut terminal, &mut app, &ended);
    ratatui::try_restore().context("cannot give the terminal back")?;
    shown
}

fn show(terminal: &mut DefaultTerminal, app: &mut App, ended: &AtomicBool) -> anyhow::Result<()> {
    let theme = Theme::from_environment();
    while !app.done && !ended.load(Ordering::Relaxed) {
        terminal.draw(|frame| view::draw(frame, app, theme)).context("cannot draw on the terminal")?;
        while !app.done && !ended.load(Ordering::Relaxed) {
            let wait = if app.model.hunting().is_some() { Duration::ZERO } else { IDLE };
            let came = event::poll(wait).context("cannot read the terminal")?;
            if came {
                take(app)?;
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
fn take(app: &mut App) -> anyhow::Result<()> {
    loop {
        if let Event::Key(key) = event::read().context("cannot read the terminal")?
            && key.kind != KeyEventKind::Release
        {
            app.key(key);
        }
        let more = event::poll(Duration::ZERO).context("cannot read the terminal")?;
        if !more || app.done || app.model.hunting().is_some() {
            return Ok(());
        }
    }
}
