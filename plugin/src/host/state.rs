//! The one state of a vCPU in the plugin, and how it changes.
//!
//! ```text
//!            stand                    go(Run)
//!   Runs ────────────▶ Stands ─────────────────▶ Runs, Back
//!     ▲                  │ go(Leave)
//!     │ go(Run)          ▼          stand, arrive
//!   AtCheckpoint ────▶ Left ───────────────────▶ Stands, AtCheckpoint
//!           go(Leave)
//! ```
//!
//! All transitions are made in the vCPU's own thread; others only read. What the state says is where the vCPU is and where it may go.
//! What it waits for, how it sleeps and what it has to report lies beside it ([`crate::host::waiting`], [`crate::host::trap_data`],
//! [`crate::host::checkpoints`]).
//!
//! A vCPU that the host's MMU stopped stands in the kernel, in the middle of any of these, and may leave its block from there: the engine
//! keeps its access (`engine/kernel_stops.rs`).

use crate::host::checkpoints::Arrival;

/// What a vCPU does after a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// Execute the instruction.
    Run,
    /// Leave the block, let QEMU do what it needs, come back to the same instruction.
    Leave,
}

/// Where a vCPU is. Addresses are linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// It runs the guest, is halted, or does QEMU's work.
    #[default]
    Runs,
    /// It stands before an instruction that is checked, in its callback; there it also waits.
    Stands {
        /// The instruction.
        before: u64,
        /// Whether it may leave its block here.
        may_leave: bool,
        /// Whether it left its block at this instruction, is back, and has reported nothing since: then a block begins here.
        is_back: bool,
    },
    /// It stands before the instruction of a checkpoint or breakpoint, in its callback, and may leave its block.
    AtCheckpoint(Arrival),
    /// It left its block before this instruction: it does QEMU's work and comes back. From a checkpoint it may take an interrupt on the way;
    /// else only where interrupts cannot be inhibited, or one that none can inhibit (NMI, SMI).
    Left {
        /// The instruction.
        before: u64,
    },
    /// It came back to this instruction, and a check of it passed: that of its fetch, maybe, with the check of its operands still to
    /// come in the same block.
    Back {
        /// The instruction.
        before: u64,
    },
}

impl State {
    /// A check begins that may make the vCPU wait.
    ///
    /// From `Left` at the same instruction it is back. From `Left` at another one it took an interrupt on the way: that it had left is
    /// forgotten, and when it comes back there it leaves once more where it must. From `Back` at the same instruction it is its next
    /// check. From any other state the vCPU came here without having left.
    #[must_use]
    pub fn stand(self, before: u64, may_leave: bool) -> State {
        let is_back = self == State::Left { before } || self == State::Back { before };
        State::Stands { before, may_leave, is_back }
    }

    /// The vCPU reports something at the instruction that it stands before. For what it reports next, maybe after many rounds of a
    /// loop through the middle of a longer block, a block must begin anew.
    #[must_use]
    pub fn report(self) -> State {
        match self {
            State::Stands { before, may_leave, .. } => State::Stands { before, may_leave, is_back: false },
            other => other,
        }
    }

    /// The vCPU reached a checkpoint or a breakpoint, for the first time or again: `Arrivals` tells which, since the vCPU may have left
    /// from there and be at another one now, in an interrupt's handler.
    #[must_use]
    pub fn arrive(self, arrival: Arrival) -> State {
        State::AtCheckpoint(arrival)
    }

    /// The callback ends.
    ///
    /// `Run` forgets where the vCPU stood, but for one that came back and reported nothing: another check of the same instruction may
    /// follow. `Leave` keeps the instruction, whatever the vCPU stood there for. From the others, in which no callback is under way,
    /// nothing changes.
    #[must_use]
    pub fn go(self, go: Go) -> State {
        match (self, go) {
            (State::Stands { before, is_back: true, .. }, Go::Run) => State::Back { before },
            (State::Stands { .. } | State::AtCheckpoint(_), Go::Run) => State::Runs,
            (State::Stands { before, .. }, Go::Leave) => State::Left { before },
            (State::AtCheckpoint(arrival), Go::Leave) => State::Left { before: arrival.rip },
            (State::Runs | State::Left { .. } | State::Back { .. }, _) => self,
        }
    }

    /// While it is out of its block, the vCPU was put before another instruction: what is there has not been done yet, as where it comes back.
    #[must_use]
    pub fn moved(self, before: u64) -> State {
        State::Left { before }
    }

    /// Whether the vCPU may leave its block now: not in the middle of a repeated instruction, of which QEMU stores the flags' kind only
    /// in its first operations, after the callback.
    #[must_use]
    pub fn may_leave(self) -> bool {
        !matches!(self, State::Stands { may_leave: false, .. })
    }

    /// Whether the vCPU left its block before this instruction, and is back in no check of it yet.
    #[must_use]
    pub fn is_back_at(self, rip: u64) -> bool {
        self == State::Left { before: rip }
    }

    /// Whether a block begins at the instruction that the vCPU stands before, because it came back to it.
    #[must_use]
    pub fn begins_block(self) -> bool {
        matches!(self, State::Stands { is_back: true, .. })
    }
}
