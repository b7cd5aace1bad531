//! Which blocks pass through the translation callback, and what QEMU reads as their code.
//!
//! While a plugin has one, QEMU passes every block of a vCPU through it, and has each of their accesses store its value for a callback that may want
//! it: a Linux boots a tenth slower, with nothing done in any block. But it asks a bit of the vCPU's, at each translation, and is led to
//! translate by a word of the processor's operations. So where a function stands in that place which knows the code's address, the bit is set for
//! the blocks that are wanted and for no other.
//!
//! By the same function QEMU is led to a copy of the code where it may not read what the vCPU may execute: read where it is, the page would be open to all
//! vCPUs meanwhile.
//!
//! The bit's place proves itself: among what a vCPU's first words point to, exactly one word had the bits of all callbacks that this plugin has,
//! but for that of translations, before it had this one, and has that too afterwards.

use super::capabilities::{PASSING, TURNS, symbol};
use super::fields::Memory;
use super::internals::{Cpu, cpu_of};
use super::{apart, current, operations, unfinished};
use std::cell::{Cell, UnsafeCell};
use std::ffi::{c_int, c_void};
use std::ptr::with_exposed_provenance;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Whether a block that a vCPU is about to translate is wanted, by where its code is in this process, if that is RAM.
pub type Wants = fn(Option<u64>) -> bool;

/// Copies the code from this address in this process on, to the end of its page, where QEMU may not read it; says whether it did.
pub type Copies = fn(u64, &mut [u8]) -> bool;

const PAGE: usize = 4096;

/// A page of code, aligned as QEMU's is.
#[repr(align(4096))]
struct Page(UnsafeCell<[u8; PAGE]>);

thread_local! {
    static COPY: Page = const { Page(UnsafeCell::new([0; PAGE])) };
    /// The address that the copy's first byte stands for, while a block is translated from it; else 0.
    static STANDS_FOR: Cell<u64> = const { Cell::new(0) };
}

/// `QEMU_PLUGIN_EV_VCPU_TB_TRANS` (include/qemu/plugin-event.h).
const TRANSLATION: u64 = 1 << 2;
/// What this plugin has from its start on (`api::register_lifecycle`): vCPUs that begin, end, halt and go on. The numbers of what comes after
/// these are others in each release.
const LIFECYCLE: u64 = 1 << 0 | 1 << 1 | 1 << 3 | 1 << 4;
/// No release has more than this of kinds.
const KINDS: u64 = (1 << 20) - 1;
/// Words of a vCPU that are looked at: what is common to all processors is shorter.
const WORDS: usize = 2048;

type Translate = unsafe extern "C" fn(*mut c_void, *mut c_void, *mut c_int, u64, *mut c_void);

/// Words from a vCPU's start to the address of its bits; 0 where that is not known.
static PLACE: AtomicUsize = AtomicUsize::new(0);
/// Where it may be, by what stood there before the callback was registered.
static MAY_BE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
static WANTS: OnceLock<Wants> = OnceLock::new();
static COPIES: OnceLock<Copies> = OnceLock::new();
/// The callback is registered. Where it is not, the bit is QEMU's alone.
static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

/// Who says which blocks are wanted, and who copies code, from the start on.
pub fn ask(wants: Wants, copies: Copies) {
    let _ = WANTS.set(wants);
    let _ = COPIES.set(copies);
}

/// Has QEMU's translation come by here, once a vCPU is there. Where it cannot, every block passes, and code is read where it is.
pub fn takes_place() {
    let _ = comes_by_here();
}

fn comes_by_here() -> bool {
    own().is_some_and(|own| operations::put(own as *mut c_void, on_translation as *mut c_void))
}

/// Has blocks tell vCPUs apart that one thread runs, from now on, where this vCPU is one of those. Before QEMU 10.0 they do.
///
/// # Errors
/// Why they do not.
pub fn tells_apart(vcpu: u32) -> Result<(), String> {
    if !current::runs_all() {
        return Ok(());
    }
    let has_word = || cpu_of(vcpu).is_some_and(|Cpu(cpu)| apart::translates_for_all(cpu, false));
    match TURNS.lack() {
        Some(lack) => Err(lack),
        None if own().is_none() || comes_by_here() && has_word() => Ok(()),
        None => Err(format!("this QEMU cannot {}", TURNS.what)),
    }
}

/// Where code is in this process that QEMU reads there while this thread translates.
pub(super) fn place_of(read: u64) -> u64 {
    let (stands_for, copy) = (STANDS_FOR.get(), COPY.with(|copy| copy.0.get() as u64));
    match read.checked_sub(copy).filter(|offset| stands_for != 0 && *offset < PAGE as u64) {
        Some(offset) => stands_for + offset,
        None => read,
    }
}

/// What QEMU is to read in the place of this code; the code itself where it may.
fn readable(code: *mut c_void) -> *mut c_void {
    let (address, Some(copies)) = (code as u64, COPIES.get().filter(|_| !code.is_null())) else { return code };
    let offset = code.addr() % PAGE;
    COPY.with(|copy| {
        // SAFETY: this thread's own, which nobody reads but QEMU, and that within the call that follows.
        let page = unsafe { &mut *copy.0.get() };
        if !copies(address, &mut page[offset..]) {
            return code;
        }
        STANDS_FOR.set(address - offset as u64);
        COPIED.fetch_add(1, Ordering::Relaxed);
        copy.0.get().cast::<u8>().wrapping_add(offset).cast()
    })
}

/// The translation callback is about to be registered, or was taken back.
pub(super) fn will_be_registered(is_registered: bool) {
    if is_registered && PLACE.load(Ordering::Acquire) == 0 {
        *MAY_BE.lock().unwrap_or_else(PoisonError::into_inner) = candidates().unwrap_or_default();
    }
    IS_REGISTERED.store(is_registered, Ordering::Release);
    if is_registered {
        takes_place();
    }
}

/// Which words of a vCPU lead to what has exactly these of the known bits.
fn leading_to(bits: u64, cpu: *mut c_void, words: impl Iterator<Item = usize>) -> Option<Vec<usize>> {
    let memory = Memory::own()?;
    let leads = |number: &usize| {
        let address = memory.word(cpu as u64 + 8 * *number as u64).filter(|address| address.is_multiple_of(8));
        let found = address.and_then(|address| memory.word(address));
        found.is_some_and(|found| found & !KINDS == 0 && found & (LIFECYCLE | TRANSLATION) == bits)
    };
    Some(words.filter(leads).collect())
}

/// Where in a vCPU the address of its bits may stand, while the callback is not registered.
fn candidates() -> Option<Vec<usize>> {
    PASSING.lacks().is_none().then_some(())?;
    leading_to(LIFECYCLE, cpu_of(0)?.0, 1..WORDS)
}

/// Looks which of the places has the bit of translations now: once there is one, it is known.
fn find(cpu: *mut c_void) -> Option<usize> {
    let mut places = MAY_BE.lock().unwrap_or_else(PoisonError::into_inner);
    if places.is_empty() {
        return None;
    }
    let now = leading_to(LIFECYCLE | TRANSLATION, cpu, places.iter().copied())?;
    let first = *now.first()?;
    *places = Vec::new();
    if now.len() > 1 {
        return None;
    }
    PLACE.store(first, Ordering::Release);
    Some(first)
}

/// The bits of a vCPU, in its own thread.
fn bits_of(cpu: *mut c_void) -> Option<&'static AtomicU64> {
    let place = match PLACE.load(Ordering::Acquire) {
        0 => find(cpu)?,
        place => place,
    };
    // SAFETY: the word has proven to be the address of the vCPU's bits (`CPUPluginState`), which it has from before its first block until its end.
    unsafe {
        let bits = cpu.cast::<usize>().add(place).read();
        with_exposed_provenance::<AtomicU64>(bits).as_ref()
    }
}

fn own() -> Option<Translate> {
    static OWN: OnceLock<Option<Translate>> = OnceLock::new();
    *OWN.get_or_init(|| {
        let own = symbol(c"x86_translate_code")?;
        // SAFETY: the name has had this signature since QEMU 10.0 (target/i386/tcg/helper-tcg.h), and stands in the table since then.
        Some(unsafe { std::mem::transmute::<*mut c_void, Translate>(own) })
    })
}

/// In the place of `x86_translate_code`.
unsafe extern "C" fn on_translation(
    cpu: *mut c_void,
    block: *mut c_void,
    most: *mut c_int,
    address: u64,
    code: *mut c_void,
) {
    let Some(own) = own() else { return };
    if IS_REGISTERED.load(Ordering::Acquire) {
        choose(cpu, code);
    }
    // One that was given up left it set.
    STANDS_FOR.set(0);
    let read = readable(code);
    let is_for_all = current::runs_all() && apart::translates_for_all(cpu, true);
    // SAFETY: as QEMU calls it itself; it reads the code from there to the page's end at most. Where code is not there, this frame is jumped over,
    // which owns nothing.
    unsafe { own(cpu, block, most, address, read) }
    STANDS_FOR.set(0);
    if is_for_all {
        // One that was given up left it set, and its vCPU looks for other blocks until it has translated one.
        apart::translates_for_all(cpu, false);
    }
}

/// Sets the bit for this block, or takes it away.
fn choose(cpu: *mut c_void, code: *mut c_void) {
    let (Some(bits), Some(wants)) = (bits_of(cpu), WANTS.get()) else { return };
    let code = (!code.is_null()).then_some(code as u64);
    CHOSEN_AMONG.fetch_add(1, Ordering::Relaxed);
    if wants(code) || !unfinished::forget_own() {
        CHOSEN.fetch_add(1, Ordering::Relaxed);
        bits.fetch_or(TRANSLATION, Ordering::Relaxed);
    } else {
        bits.fetch_and(!TRANSLATION, Ordering::Relaxed);
    }
}

static CHOSEN: AtomicU64 = AtomicU64::new(0);
static CHOSEN_AMONG: AtomicU64 = AtomicU64::new(0);
static COPIED: AtomicU64 = AtomicU64::new(0);

/// How many blocks were wanted, and of how many, where there was a choice, and how many were translated from copies, in words.
pub fn reports() -> impl Iterator<Item = String> {
    let [chosen, among, copied] = [&CHOSEN, &CHOSEN_AMONG, &COPIED].map(|count| count.load(Ordering::Relaxed));
    let looked_at = (among != 0).then(|| format!("of {among} blocks {chosen} were looked at"));
    let copied = (copied != 0).then(|| format!("{copied} blocks were translated from copies"));
    looked_at.into_iter().chain(copied)
}
