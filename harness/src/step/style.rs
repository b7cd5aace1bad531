//! How the screen is coloured. Colours only underline what letters and signs say too; without them nothing is lost.

use ratatui::style::{Color, Modifier, Style};

/// The styles in use.
#[derive(Clone, Copy, Debug)]
pub struct Theme {
    color: bool,
}

impl Theme {
    /// With colours or without.
    #[must_use]
    pub fn new(color: bool) -> Theme {
        Theme { color }
    }

    fn colored(self, color: Color, modifier: Modifier) -> Style {
        let style = Style::new().add_modifier(modifier);
        if self.color { style.fg(color) } else { style }
    }

    /// The step at hand.
    #[must_use]
    pub fn cursor(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// A panel's title.
    #[must_use]
    pub fn title(self) -> Style {
        self.colored(Color::Cyan, Modifier::BOLD)
    }

    /// What this step changed.
    #[must_use]
    pub fn changed(self) -> Style {
        self.colored(Color::Yellow, Modifier::BOLD)
    }

    /// A difference, damage, a crash.
    #[must_use]
    pub fn bad(self) -> Style {
        self.colored(Color::Red, Modifier::BOLD)
    }

    /// What matters less.
    #[must_use]
    pub fn dim(self) -> Style {
        self.colored(Color::DarkGray, Modifier::empty())
    }
}
