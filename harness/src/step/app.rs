//! The model and what is on the screen besides: which panel is large, what is being typed.

use super::model::Model;
use std::fs::File;
use std::io::{BufReader, Read, Seek};

/// A part of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Panel {
    /// The list of steps.
    Steps,
    /// The step at hand with its effects.
    Step,
    /// The rings with their slots.
    Rings,
    /// The vCPUs.
    Vcpus,
    /// The p2m around the frame at hand.
    P2m,
    /// All keys.
    Help,
    /// What the trace's header says.
    Header,
    /// The bookmarks.
    Bookmarks,
}

/// What is asked for at the bottom of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Words to look for.
    Text,
    /// A condition.
    Condition,
    /// A place in the trace.
    Place,
    /// A frame.
    Frame,
}

impl Question {
    /// What stands before the answer.
    #[must_use]
    pub fn prompt(self) -> &'static str {
        match self {
            Question::Text => "look for words: ",
            Question::Condition => "condition: ",
            Question::Place => "go to (step, 50%, 1.5ms): ",
            Question::Frame => "frame (0x502, a symbol): ",
        }
    }
}

/// Everything that is shown.
#[derive(Debug)]
pub struct App<R: Read + Seek = BufReader<File>> {
    /// The trace and where one is in it.
    pub model: Model<R>,
    /// The panel that has the whole screen; `None` for all side by side.
    pub large: Option<Panel>,
    /// How many lines of the large panel are above the screen.
    pub scroll: u16,
    /// What is being asked, and what was typed so far.
    pub question: Option<(Question, String)>,
    /// Rows of the list of steps, as it was drawn last.
    pub page: u16,
    /// It is over.
    pub done: bool,
}

impl<R: Read + Seek> App<R> {
    /// All panels side by side.
    #[must_use]
    pub fn new(model: Model<R>) -> App<R> {
        App { model, large: None, scroll: 0, question: None, page: 10, done: false }
    }

    /// Makes a panel large, or small again if it is.
    pub fn toggle(&mut self, panel: Panel) {
        self.large = (self.large != Some(panel)).then_some(panel);
        self.scroll = 0;
    }
}
