//! Which of the tool's descriptors are Xen's. A table of atomics: it is read at each call of the functions that are taken, also
//! within a signal's handler.

use libc::c_int;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Descriptors that can be Xen's.
const MOST: usize = 1 << 16;

const NONE: u32 = 0;
const PRIVCMD: u32 = 1;

static KINDS: [AtomicU32; MOST] = [const { AtomicU32::new(NONE) }; MOST];

/// What is behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `/dev/xen/privcmd`.
    Privcmd,
    /// `/dev/xen/evtchn`, opened as the device with this number.
    Evtchn(u32),
}

impl Kind {
    fn number(kind: Option<Kind>) -> u32 {
        match kind {
            None => NONE,
            Some(Kind::Privcmd) => PRIVCMD,
            Some(Kind::Evtchn(device)) => device.saturating_add(PRIVCMD + 1),
        }
    }
}

fn place(fd: c_int) -> Option<&'static AtomicU32> {
    KINDS.get(usize::try_from(fd).ok()?)
}

/// What is behind a descriptor, if it is Xen's.
pub fn kind(fd: c_int) -> Option<Kind> {
    match place(fd)?.load(Ordering::Acquire) {
        NONE => None,
        PRIVCMD => Some(Kind::Privcmd),
        device => Some(Kind::Evtchn(device - PRIVCMD - 1)),
    }
}

static HAS_EVTCHN: AtomicBool = AtomicBool::new(false);

/// Whether `/dev/xen/evtchn` was opened.
pub fn has_evtchn() -> bool {
    HAS_EVTCHN.load(Ordering::Relaxed)
}

/// From now on this is behind a descriptor. What was there before is the answer; false where the descriptor's number is too high.
pub fn set(fd: c_int, kind: Option<Kind>) -> bool {
    let Some(place) = place(fd) else { return kind.is_none() };
    if let Some(Kind::Evtchn(_)) = kind {
        HAS_EVTCHN.store(true, Ordering::Relaxed);
    }
    place.store(Kind::number(kind), Ordering::Release);
    true
}

/// Whether any descriptor has this behind it.
pub fn is_open(kind: Kind) -> bool {
    let number = Kind::number(Some(kind));
    KINDS.iter().any(|place| place.load(Ordering::Acquire) == number)
}
