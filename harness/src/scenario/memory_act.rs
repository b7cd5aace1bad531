//! What an act to the guest's memory names, and what it needs.

use super::act::{MemoryAct, are_frames};
use super::share;
use super::text::Place;
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;

impl MemoryAct {
    /// The place that it names, if it names one.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match self {
            MemoryAct::Watch { frames, .. }
            | MemoryAct::SetAccess { frames, .. }
            | MemoryAct::Unmap { frames }
            | MemoryAct::Nominate { frames, .. }
            | MemoryAct::Evict { frames, .. }
            | MemoryAct::Prep { frames, .. }
            | MemoryAct::Balloon { frames, .. }
            | MemoryAct::Share { frames, .. }
            | MemoryAct::Populate { frames, .. }
            | MemoryAct::Show { frames, .. } => Some(frames),
            MemoryAct::Write { at, .. } | MemoryAct::Expect { at, .. } => Some(at),
            // Not "all others": a new act is asked which place it names.
            MemoryAct::Budget { .. }
            | MemoryAct::DefaultAccess { .. }
            | MemoryAct::AccessRequired { .. }
            | MemoryAct::NoConsumer { .. }
            | MemoryAct::Monitor { .. }
            | MemoryAct::SingleStep { .. }
            | MemoryAct::Views { .. }
            | MemoryAct::CreateView { .. }
            | MemoryAct::DestroyView { .. }
            | MemoryAct::SwitchView { .. }
            | MemoryAct::Inject { .. } => None,
        }
    }

    /// As [`super::Act::check`].
    ///
    /// # Errors
    /// As there.
    pub fn check(&self, symbols: &Symbols) -> Result<(), (Refusal, &Place)> {
        match self {
            MemoryAct::Share { frames, with, .. } => share::pairs(frames, with, symbols).map(drop),
            MemoryAct::Populate { frames, copy: Some(other), .. } | MemoryAct::Show { frames, of: Some(other), .. } => {
                share::pairs(other, frames, symbols).map(drop)
            }
            MemoryAct::Write { at, .. } | MemoryAct::Expect { at, .. } if !at.is_linear() => {
                at.address(symbols).map(drop).map_err(|refusal| (refusal, at))
            }
            MemoryAct::Watch { frames, .. } | MemoryAct::SetAccess { frames, .. } if frames.is_ram() => Ok(()),
            _ => self.place().map_or(Ok(()), |frames| are_frames(frames, symbols)),
        }
    }

    /// Whether accesses or CPU events must be trapped for it.
    #[must_use]
    pub fn needs_gate(&self) -> bool {
        match self {
            MemoryAct::Watch { .. }
            | MemoryAct::SetAccess { .. }
            | MemoryAct::DefaultAccess { .. }
            | MemoryAct::Monitor { .. }
            | MemoryAct::SingleStep { .. }
            | MemoryAct::CreateView { .. }
            | MemoryAct::Show { .. } => true,
            MemoryAct::Unmap { .. }
            | MemoryAct::Views { .. }
            | MemoryAct::DestroyView { .. }
            | MemoryAct::SwitchView { .. }
            | MemoryAct::Nominate { .. }
            | MemoryAct::Evict { .. }
            | MemoryAct::Prep { .. }
            | MemoryAct::Balloon { .. }
            | MemoryAct::Share { .. }
            | MemoryAct::Populate { .. }
            | MemoryAct::Budget { .. }
            | MemoryAct::AccessRequired { .. }
            | MemoryAct::NoConsumer { .. }
            | MemoryAct::Write { .. }
            | MemoryAct::Expect { .. }
            | MemoryAct::Inject { .. } => false,
        }
    }
}
