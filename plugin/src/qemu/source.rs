//! Where registers are read: in place, while nothing speaks against it, or through the plugin API.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Where registers are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Source {
    /// In place if that proves itself, else through the plugin API.
    #[default]
    Auto,
    /// Through the plugin API: only flat 64-bit code is checked.
    Api,
    /// In place; where that does not prove itself the run ends.
    Direct,
}

/// What a test makes wrong, to see what happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Falsify {
    /// Nothing.
    #[default]
    Nothing,
    /// The view's first comparison with the API.
    Proof,
    /// A later one, after the view has proven itself.
    Sample,
    /// Every look-up by name of what QEMU exports besides the API, as in a QEMU that was built without modules.
    Names,
    /// What unwinding tells.
    Unwinding,
    /// Notes: unwinding is believed from the start.
    Notes,
    /// The end of unwinding's proof: it is held against notes to the end of the run.
    Enough,
}

/// Where the view's proof stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ViewCheck {
    /// Not enough comparisons yet.
    Unproven = 0,
    /// Every comparison agreed.
    Proven = 1,
    /// Registers are read through the API.
    Api = 2,
}

static STANDING: AtomicU32 = AtomicU32::new(ViewCheck::Unproven as u32);
/// Where registers are to be read, and what a test makes wrong.
static WANTED: OnceLock<(Source, Falsify)> = OnceLock::new();

impl ViewCheck {
    /// The standing now.
    pub fn now() -> ViewCheck {
        match STANDING.load(Ordering::Acquire) {
            1 => ViewCheck::Proven,
            2 => ViewCheck::Api,
            _ => ViewCheck::Unproven,
        }
    }
}

/// Registers are to be read so; before anything runs.
pub fn choose(source: Source, falsify: Falsify) {
    if source == Source::Api {
        STANDING.store(ViewCheck::Api as u32, Ordering::Release);
    }
    let _ = WANTED.set((source, falsify));
}

/// Unproven until now, and this from now on; says whether it was so.
pub(super) fn becomes(standing: ViewCheck) -> bool {
    let unproven = ViewCheck::Unproven as u32;
    STANDING.compare_exchange(unproven, standing as u32, Ordering::AcqRel, Ordering::Relaxed).is_ok()
}

fn wanted() -> (Source, Falsify) {
    WANTED.get().copied().unwrap_or_default()
}

/// Whether registers are read through the API from the first difference on.
pub(super) fn gives_way() -> bool {
    wanted().0 == Source::Auto
}

/// For tests: this much is wrong of what is in place.
pub(super) fn falsified() -> u64 {
    match wanted().1 {
        Falsify::Nothing | Falsify::Names | Falsify::Unwinding | Falsify::Notes | Falsify::Enough => 0,
        Falsify::Proof => 1,
        Falsify::Sample => u64::from(ViewCheck::now() == ViewCheck::Proven),
    }
}

/// For tests: QEMU exports nothing besides the API.
pub(super) fn names_fail() -> bool {
    wanted().1 == Falsify::Names
}

/// For tests: unwinding tells other instructions.
pub(super) fn unwinding_fails() -> bool {
    wanted().1 == Falsify::Unwinding
}
