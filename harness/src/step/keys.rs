//! What each key does.

use super::app::{App, Panel, Question};
use super::hunt::Goal;
use crate::scenario::range::Frames;
use crate::trace::condition::Condition;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::io::{Read, Seek};

impl<R: Read + Seek> App<R> {
    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            match key.code {
                KeyCode::Char('c') if self.model.hunting().is_some() => self.model.give_up(),
                KeyCode::Char('c') => self.done = true,
                _ => {}
            }
        } else if let Some((question, text)) = self.question.take() {
            self.answer(key.code, question, text);
        } else if self.model.hunting().is_some() {
            match key.code {
                KeyCode::Esc => self.model.give_up(),
                KeyCode::Char('q') => self.done = true,
                _ => {}
            }
        } else if !self.move_by(key.code) && !self.go_to(key.code) {
            self.show(key.code);
        }
    }

    fn move_by(&mut self, key: KeyCode) -> bool {
        let page = i64::from(self.page.max(2)) - 1;
        match key {
            KeyCode::Down | KeyCode::Right | KeyCode::Char('j' | 'l' | ' ') => self.model.go_by(1),
            KeyCode::Up | KeyCode::Left | KeyCode::Char('k' | 'h') | KeyCode::Backspace => self.model.go_by(-1),
            KeyCode::PageDown => self.model.go_by(page),
            KeyCode::PageUp => self.model.go_by(-page),
            KeyCode::Home | KeyCode::Char('g') => self.model.go(1),
            KeyCode::End | KeyCode::Char('G') => self.model.go(u64::MAX),
            _ => return false,
        }
        true
    }

    fn go_to(&mut self, key: KeyCode) -> bool {
        let KeyCode::Char(letter) = key else { return false };
        let back = letter.is_uppercase();
        match letter {
            'f' | 'F' => match self.model.frame() {
                Some(gfn) => self.model.hunt(Goal::Frame(gfn), back),
                None => self.model.say("no frame is at hand: p chooses one"),
            },
            'v' | 'V' => match self.model.vcpu() {
                Some(vcpu) => self.model.hunt(Goal::Vcpu(vcpu), back),
                None => self.model.say("no vCPU is at hand yet"),
            },
            'e' | 'E' => self.model.hunt(Goal::Event, back),
            'n' | 'N' => self.model.hunt_again(back),
            'd' => self.model.hunt(Goal::Difference, false),
            'm' => self.model.toggle_bookmark(),
            '\'' => self.model.go_to_bookmark(false),
            '"' => self.model.go_to_bookmark(true),
            '/' => self.question = Some((Question::Text, String::new())),
            'c' => self.question = Some((Question::Condition, String::new())),
            ':' => self.question = Some((Question::Place, String::new())),
            'p' => self.question = Some((Question::Frame, String::new())),
            _ => return false,
        }
        true
    }

    fn show(&mut self, key: KeyCode) {
        match key {
            KeyCode::Char('1') => self.toggle(Panel::Steps),
            KeyCode::Char('2') => self.toggle(Panel::Step),
            KeyCode::Char('3') => self.toggle(Panel::Rings),
            KeyCode::Char('4') => self.toggle(Panel::Vcpus),
            KeyCode::Char('5') => self.toggle(Panel::P2m),
            KeyCode::Char('b') => self.toggle(Panel::Bookmarks),
            KeyCode::Char('i') => self.toggle(Panel::Header),
            KeyCode::Char('?') | KeyCode::F(1) => self.toggle(Panel::Help),
            KeyCode::Char(']') | KeyCode::Tab => self.scroll = self.scroll.saturating_add(5),
            KeyCode::Char('[') | KeyCode::BackTab => self.scroll = self.scroll.saturating_sub(5),
            KeyCode::Esc => self.large = None,
            KeyCode::Char('q') => self.done = true,
            _ => self.model.say("no such key: ? shows all"),
        }
    }

    fn answer(&mut self, key: KeyCode, question: Question, mut text: String) {
        match key {
            KeyCode::Enter => self.ask(question, text.trim()),
            KeyCode::Esc => {}
            KeyCode::Backspace if text.is_empty() => {}
            KeyCode::Backspace => {
                text.pop();
                self.question = Some((question, text));
            }
            KeyCode::Char(letter) => {
                text.push(letter);
                self.question = Some((question, text));
            }
            _ => self.question = Some((question, text)),
        }
    }

    fn ask(&mut self, question: Question, text: &str) {
        if text.is_empty() {
            return;
        }
        let done = match question {
            Question::Text => {
                self.model.hunt(Goal::Text(text.to_lowercase()), false);
                Ok(())
            }
            Question::Condition => self.look_for(text),
            Question::Place => self.model.place(text).map(|number| self.model.go(number)),
            Question::Frame => self.choose(text),
        };
        if let Err(why) = done {
            self.model.say(why);
        }
    }

    fn look_for(&mut self, text: &str) -> Result<(), String> {
        let condition = Condition::parse(text).map_err(|refusal| refusal.what)?;
        if condition.asks_for_waits() {
            return Err(
                "how long a wait takes is known at its end only: `mem-event show --where` finds such steps".into()
            );
        }
        self.model.hunt(Goal::Condition(text.to_owned(), condition), false);
        Ok(())
    }

    fn choose(&mut self, text: &str) -> Result<(), String> {
        let number = crate::scenario::amount::number(text).map(mem_event::Gfn);
        let frame = match number {
            Some(gfn) => gfn,
            None => Frames::parse(text, self.model.symbols()).map_err(|refusal| refusal.to_string())?.first,
        };
        self.model.choose_frame(frame);
        Ok(())
    }
}
