//! Unwinding held against the notes that instructions leave before they run: it is believed, and notes are given up, once it has told the same
//! often enough.
//!
//! The touches are those of the run, and so many more as are provoked by the service thread. A touch counts where one of the two explains
//! it to the byte. Where unwinding tells no memory instruction and a note explains the touch, either may be right: after a `push` an interrupt's
//! frame goes where the next `push` would, and after a `pop` an `iret` reads where the next `pop` would.

use crate::insn::recipe::Recipe;
use crate::qemu::capabilities::UNWINDING;
use crate::qemu::internals;
use crate::qemu::unwinding::{Kind, Place};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

/// How often the two must agree, by kind of place. What a helper is called from is found like a slow path and unwound like generated code, and
/// many guests use none that touches memory.
const ENOUGH: [u64; Kind::ALL.len()] = [100, 0, 100];
/// Touches of which unwinding tells nothing, as a share of all: more speak against it.
const MOST_UNTOLD: u64 = 16;

/// What is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Standing {
    /// Notes; unwinding is being held against them.
    Unproven = 0,
    /// Unwinding; nothing is noted.
    Proven = 1,
    /// Notes, for good.
    Refuted = 2,
}

/// Where tests and fidelity want the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Course {
    /// Notes are given up as soon as it is proven.
    #[default]
    Proves,
    /// The two are held against each other to the end.
    Goes,
    /// Nothing is noted from the start.
    Trusts,
}

static STANDING: AtomicU8 = AtomicU8::new(Standing::Unproven as u8);
static GOES_ON: AtomicBool = AtomicBool::new(false);
static AGREED: [AtomicU64; Kind::ALL.len()] = [const { AtomicU64::new(0) }; Kind::ALL.len()];
static DIFFERED: AtomicU64 = AtomicU64::new(0);
static UNTOLD: AtomicU64 = AtomicU64::new(0);

impl Standing {
    /// Now.
    pub fn now() -> Standing {
        match STANDING.load(Ordering::Acquire) {
            1 => Standing::Proven,
            2 => Standing::Refuted,
            _ => Standing::Unproven,
        }
    }
}

/// The run begins, under a gate that may need notes. Says what this QEMU lacks, where unwinding cannot be.
pub fn begin(course: Course) {
    let lacks = UNWINDING.lacks().map(|name| format!("this QEMU cannot {} (it exports no {name})", UNWINDING.what));
    let lacks =
        lacks.or_else(|| (!internals::can_flush()).then(|| "this QEMU drops no blocks when asked to".to_owned()));
    match (lacks, course) {
        (Some(why), _) => refute(&why),
        (None, Course::Trusts) => STANDING.store(Standing::Proven as u8, Ordering::Release),
        (None, Course::Goes) => GOES_ON.store(true, Ordering::Release),
        (None, Course::Proves) => {}
    }
}

/// Notes go.
fn prove() {
    let [unproven, proven] = [Standing::Unproven, Standing::Proven].map(|standing| standing as u8);
    if STANDING.compare_exchange(unproven, proven, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
        eprintln!(
            "mem-event: gate=mmu notes no instruction any more: of {} touches unwinding told the noted one",
            agreed()
        );
    }
}

/// Notes stay; says why.
fn refute(why: &str) {
    if STANDING.swap(Standing::Refuted as u8, Ordering::AcqRel) != Standing::Refuted as u8 {
        eprintln!("mem-event: gate=mmu notes each memory instruction, which costs a fifth: {why}");
    }
}

/// Whether it is unproven for want of touches in places of this kind.
pub fn lacks(kind: Kind) -> bool {
    let kind = kind as usize;
    Standing::now() == Standing::Unproven && AGREED[kind].load(Ordering::Relaxed) < ENOUGH[kind]
}

/// Of a touch: the instruction that was noted and the place that unwinding tells; `explained` by one of them to the byte.
pub fn compare(noted: Option<&Recipe>, place: Option<Place>, explained: bool) {
    let Some(noted) = noted.filter(|_| explained && Standing::now() == Standing::Unproven) else { return };
    match place {
        None => {
            let untold = UNTOLD.fetch_add(1, Ordering::Relaxed) + 1;
            if untold > MOST_UNTOLD + agreed() / MOST_UNTOLD {
                refute(&format!("of {untold} touches unwinding tells nothing"));
            }
        }
        Some(place) if place.page_offset == noted.page_offset => {
            AGREED[place.kind as usize].fetch_add(1, Ordering::Relaxed);
            let is_enough = |(agreed, enough): (&AtomicU64, u64)| agreed.load(Ordering::Relaxed) >= enough;
            if !GOES_ON.load(Ordering::Relaxed) && AGREED.iter().zip(ENOUGH).all(is_enough) {
                prove();
            }
        }
        Some(place) => {
            DIFFERED.fetch_add(1, Ordering::Relaxed);
            let (told, was) = (place.page_offset, noted.page_offset);
            refute(&format!(
                "unwinding tells an instruction at {told:#x} of its page ({:?}), noted was {was:#x}",
                place.kind
            ));
        }
    }
}

fn agreed() -> u64 {
    AGREED.iter().map(|agreed| agreed.load(Ordering::Relaxed)).sum()
}

/// What the comparison came to, where it went on to the end.
pub fn report() -> Option<Report> {
    (GOES_ON.load(Ordering::Relaxed)).then(|| Report {
        agreed: AGREED.each_ref().map(|agreed| agreed.load(Ordering::Relaxed)),
        differed: DIFFERED.load(Ordering::Relaxed),
        untold: UNTOLD.load(Ordering::Relaxed),
    })
}

/// How often unwinding and notes agreed, by kind of place, differed, and how often unwinding told nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    agreed: [u64; Kind::ALL.len()],
    differed: u64,
    untold: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [code, helper, slow_path] = self.agreed;
        let Report { differed, untold, .. } = self;
        write!(
            f,
            "places: {code} in generated code, {helper} in helpers, {slow_path} in slow paths as noted; {differed} others, {untold} untold"
        )
    }
}
