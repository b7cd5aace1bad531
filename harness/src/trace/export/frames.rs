//! What frames did over time: which went out, which came in, which came in again; how many the domain held, and how many it might.

use mem_event::trace::Step;
use mem_event::{Control, DomainConfig, Effect, Gfn, Input, Outcome};
use std::collections::HashSet;

/// What a frame did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// It was evicted.
    Out,
    /// Its content was brought back for the first time.
    In,
    /// It was brought back before.
    Again,
}

/// The frames of a domain.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    /// Moves: when, which frame, what.
    pub moves: Vec<(u64, Gfn, Move)>,
    /// How many frames the domain held, wherever that changed: when, how many.
    pub resident: Vec<(u64, u64)>,
    /// The budget: from when on, how many frames; no entry where there is no limit.
    pub budget: Vec<(u64, u64)>,
    held: u64,
    limit: Option<u64>,
    seen: HashSet<Gfn>,
    has_begun: bool,
}

impl Frames {
    /// All frames of a domain that holds its memory.
    #[must_use]
    pub fn new(config: &DomainConfig) -> Frames {
        Frames { held: config.ram.iter().map(|(_, count)| count).sum(), ..Frames::default() }
    }

    /// The next step; what is shown begins with the first that counts.
    pub fn step(&mut self, step: &Step, counts: bool) {
        let before = (self.held, self.limit);
        if let Outcome::Proceed = step.outcome {
            match step.input {
                Input::Unpopulated { count, .. } => self.held = self.held.saturating_sub(count),
                Input::Control(Control::SetBudget { frames }) => self.limit = Some(frames).filter(|it| *it != u64::MAX),
                _ => {}
            }
        }
        let is_evicted = matches!(step.input, Input::Control(Control::Evict { .. }));
        for effect in &step.effects.list {
            let (gfn, what) = match effect {
                Effect::Punch(gfn) => {
                    self.held = self.held.saturating_sub(1);
                    (gfn, Move::Out)
                }
                Effect::Fill(gfn) => {
                    self.held += 1;
                    (gfn, if self.seen.insert(*gfn) { Move::In } else { Move::Again })
                }
                Effect::Zero(_) | Effect::Unshare { copy: true, .. } => {
                    self.held += 1;
                    continue;
                }
                Effect::Share { .. } => {
                    self.held = self.held.saturating_sub(1);
                    continue;
                }
                _ => continue,
            };
            if counts && (what != Move::Out || is_evicted) {
                self.moves.push((step.time, *gfn, what));
            }
        }
        if counts && (!self.has_begun || before != (self.held, self.limit)) {
            self.has_begun = true;
            self.resident.push((step.time, self.held));
            self.budget.extend(self.limit.map(|limit| (step.time, limit)));
        }
    }
}
