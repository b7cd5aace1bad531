//! `step`: a trace in the terminal, step by step, with the engine as it was.
//!
//! | file | what lives there |
//! |---|---|
//! | [`model`] | where one is: position, frame and vCPU at hand, bookmarks; knows no terminal |
//! | [`moment`] | the engine before and after the step at hand |
//! | [`hunt`] | going to the next step that fits, in slices |
//! | [`app`], [`keys`] | what is on the screen besides, and what each key does |
//! | [`view`], `view_…` | the screen: each panel is a function from the model to lines |
//! | [`style`] | colours, and how to do without |
//! | [`terminal`] | the terminal, taken and given back |

pub mod app;
pub mod hunt;
pub mod keys;
pub mod model;
pub mod moment;
pub mod style;
pub mod terminal;
pub mod view;
pub mod view_help;
pub mod view_p2m;
pub mod view_rings;
pub mod view_step;
pub mod view_steps;
pub mod view_vcpus;

use crate::output::Color;
use crate::refusal::Refusal;
use crate::trace;
use app::App;
use clap::Args;
use mem_event::trace::{Player, PlayerError};
use model::Model;
use std::io::IsTerminal;
use std::path::PathBuf;
use style::Theme;

/// `step`
#[derive(Clone, Debug, Args)]
pub struct StepOptions {
    /// The trace.
    pub trace: PathBuf,
    /// Where to begin: a step (1234), a part of the whole (50%) or a time (1.5ms).
    #[arg(long, value_name = "PLACE")]
    pub at: Option<String>,
    /// The kernel that the guest ran, with whose names addresses are shown: its vmlinux, bzImage, System.map or output of /proc/kallsyms.
    #[arg(long, value_name = "FILE")]
    pub symbols: Option<PathBuf>,
}

/// `step`; always 0: the trace was looked at.
///
/// # Errors
/// No trace, no such place in it, no terminal.
pub fn step(arguments: &StepOptions, color: Color) -> anyhow::Result<u8> {
    let mut tape = trace::open(&arguments.trace)?;
    let symbols = trace::names::of(&mut tape, arguments.symbols.as_deref())?;
    let path = arguments.trace.display();
    let player =
        Player::new(tape).map_err(|stop: PlayerError| Refusal::usage(format!("{path}: {stop}"), trace::REMEDY))?;
    let mut model = Model::new(player).with_names(symbols);
    if let Some(place) = &arguments.at {
        let forms = "write a step (1234), a part (50%) or a time (1.5ms)";
        let place = model.place(place).map_err(|why| Refusal::usage(format!("--at {place:?}: {why}"), forms))?;
        model.go(place);
    }
    let dumb = std::env::var_os("TERM").is_some_and(|name| name == "dumb");
    if dumb || !std::io::stdout().is_terminal() {
        let remedy = "run it in a terminal of its own, or use `mem-event show`, which writes lines";
        return Err(
            Refusal::usage("step draws on a terminal, and the output is none that can be drawn on", remedy).into()
        );
    }
    terminal::run(App::new(model), Theme::new(color.is_on()))?;
    Ok(0)
}
