//! A translation that QEMU gave up in the midst of an instruction, as it does wherever the guest's code is not mapped.
//!
//! QEMU keeps that instruction's descriptor in the translator's context of the vCPU's thread until the next block that passes through a
//! translation callback is done. Where the callback is taken back before, QEMU goes on to put marks for that instruction into blocks whose
//! marks nobody takes out, and ends by them: a general protection fault in `tcg_gen_code` (seen with 10.0.2). So the descriptor is forgotten
//! with the callback.
//!
//! Its place proves itself: within the callback the context holds the block's handle, and two words behind it that of its last instruction.

use super::capabilities::symbol;
use std::cell::OnceCell;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Words of a context that are looked at; one has thousands.
const WORDS: usize = 128;
/// From the block's handle to the instruction's: between them stands the translator's own state (`plugin_db`).
const BEHIND: usize = 2;

/// Whether that is known.
pub(super) fn is_found() -> bool {
    PLACE.load(Ordering::Relaxed) != 0
}

/// Words from a context's start to the instruction's handle; 0 where that is not known.
static PLACE: AtomicUsize = AtomicUsize::new(0);

/// A word of a context.
type Handle = AtomicPtr<c_void>;

/// In a translation callback, with the block's handle and that of its last instruction: looks where they stand.
pub(super) fn find(block: *const c_void, last: *const c_void) {
    let Some(context) = own_context() else { return };
    // SAFETY: this thread translates by this context, which is longer than that.
    let words = unsafe { std::slice::from_raw_parts(context, WORDS) };
    let holds = |at: &usize| {
        let word = |at: usize| words[at].load(Ordering::Relaxed).cast_const();
        word(*at) == block && word(at + BEHIND) == last
    };
    if let Some(at) = (0..WORDS - BEHIND).find(holds) {
        PLACE.store(at + BEHIND, Ordering::Relaxed);
    }
}

/// No vCPU has a translation to end. While none is in a block or in a translation. Says whether that could be seen to.
#[must_use]
pub fn forget() -> bool {
    let place = PLACE.load(Ordering::Relaxed);
    let (Some(contexts), Some(count)) = (symbol(c"tcg_ctxs"), symbol(c"tcg_cur_ctxs")) else { return false };
    if place == 0 {
        return false;
    }
    // SAFETY: `TCGContext **tcg_ctxs` and `unsigned int tcg_cur_ctxs` (tcg/tcg.c), since QEMU 2.11; as many of the array are set, and no thread
    // begins or ends translating meanwhile.
    let contexts = unsafe {
        let first: *const *const Handle = contexts.cast::<*const *const Handle>().read();
        std::slice::from_raw_parts(first, count.cast::<u32>().read() as usize)
    };
    for context in contexts.iter().filter(|context| !context.is_null()) {
        // SAFETY: the place was found in such a context, and holds a descriptor's address or none.
        unsafe { &*context.add(place) }.store(null_mut(), Ordering::Relaxed);
    }
    true
}

/// This thread's vCPU has none to end: before a block that passes through no callback. Says whether that could be seen to.
#[must_use]
pub(super) fn forget_own() -> bool {
    let place = PLACE.load(Ordering::Relaxed);
    let Some(context) = own_context().filter(|_| place != 0) else { return false };
    // SAFETY: as in `forget`, of this thread's own.
    unsafe { &*context.add(place) }.store(null_mut(), Ordering::Relaxed);
    true
}

thread_local! {
    /// Where QEMU says by which context this thread translates, once that was looked up: for each block it would take longer than all else here.
    static OWN: OnceCell<Option<*const *const Handle>> = const { OnceCell::new() };
}

/// The context by which this thread translates.
fn own_context() -> Option<*const Handle> {
    let own =
        OWN.with(|own| *own.get_or_init(|| symbol(c"tcg_ctx").map(|own| own.cast::<*const Handle>().cast_const())))?;
    // SAFETY: `__thread TCGContext *tcg_ctx` (tcg/tcg.c): the look-up gave this thread's own.
    let context = unsafe { own.read() };
    (!context.is_null()).then_some(context)
}
