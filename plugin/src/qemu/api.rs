//! The plugin's number, the callbacks that QEMU is given, the recipes that blocks note, and the end of the process.

use super::declared::{self, Callback};
use super::passing;
use crate::insn::cache::PageCache;
use crate::insn::quick::QuickRecipe;
use crate::insn::recipe::Recipe;
use qemu_plugin_sys as sys;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// What QEMU calls for whatever the plugin is used for. Written where the plugin is entered: nothing down here knows the functions.
#[derive(Clone, Copy, Debug)]
pub struct Callbacks {
    /// A vCPU's thread begins.
    pub vcpu_init: Callback,
    /// A vCPU was unplugged; its thread is over.
    pub vcpu_exit: Callback,
    /// A vCPU halts, or QEMU stops it. Called with QEMU's lock held.
    pub vcpu_idle: Callback,
    /// It goes on. Called with QEMU's lock held.
    pub vcpu_resume: Callback,
    /// QEMU dropped all its blocks.
    pub flushed: Callback,
    /// QEMU ends.
    pub exit: Callback,
    /// A block is being translated.
    pub translation: Callback,
}

/// The plugin's number and its callbacks, known from installation on.
static INSTALLED: OnceLock<(sys::qemu_plugin_id_t, Callbacks)> = OnceLock::new();

/// QEMU loads the plugin under this number. Nothing is registered yet.
pub fn installed(id: sys::qemu_plugin_id_t, callbacks: Callbacks) {
    let _ = INSTALLED.set((id, callbacks));
}

/// Registers the callbacks that every run needs.
pub fn register_lifecycle() {
    let Some((id, callbacks)) = INSTALLED.get() else { return };
    // SAFETY: `id` is this plugin's; the functions live as long as the process (QEMU never unloads a plugin with threads).
    unsafe {
        declared::register_vcpu_init(*id, Some(callbacks.vcpu_init), null_mut());
        declared::register_vcpu_exit(*id, Some(callbacks.vcpu_exit), null_mut());
        declared::register_vcpu_idle(*id, Some(callbacks.vcpu_idle), null_mut());
        declared::register_vcpu_resume(*id, Some(callbacks.vcpu_resume), null_mut());
        declared::register_flush(*id, Some(callbacks.flushed), null_mut());
        declared::register_exit(*id, Some(callbacks.exit), null_mut());
    }
}

/// Whether every block that is translated passes through the translation callback from now on. May be called from any thread: QEMU
/// takes its plugins' lock, which no thread holds while it waits, and tells each vCPU by work that it does before its next block.
pub fn look_at_translations(on: bool) {
    let Some((id, callbacks)) = INSTALLED.get() else { return };
    passing::will_be_registered(on);
    // SAFETY: as in `register_lifecycle`; without a function the callback is taken back.
    unsafe { declared::register_translation(*id, on.then_some(callbacks.translation), null_mut()) }
}

/// The recipe whose check ran last on the vCPU of this cache. Only while the vCPU is stopped in the middle of a block, where
/// QEMU cannot flush its blocks and free the recipe.
pub fn current_recipe(cache: &PageCache) -> Option<&Recipe> {
    match cache.current() {
        0 => None,
        // SAFETY: stored by `PageCache::is_checking` from a reference to a recipe that lives until the next flush.
        odd if odd & 1 != 0 => Some(unsafe { &*((odd & !1) as *const Recipe) }),
        // SAFETY: stored by a quick check, whose data is a quick recipe that lives until the next flush.
        quick => Some(unsafe { &(*(quick as *const QuickRecipe)).recipe }),
    }
}

/// Where each vCPU's current recipe is noted.
pub(super) fn noted() -> sys::qemu_plugin_u64 {
    static SCOREBOARD: OnceLock<usize> = OnceLock::new();
    // SAFETY: made once, never freed; one number a vCPU.
    let score = *SCOREBOARD.get_or_init(|| unsafe { sys::qemu_plugin_scoreboard_new(size_of::<u64>()) } as usize);
    sys::qemu_plugin_u64 { score: score as *mut sys::qemu_plugin_scoreboard, offset: 0 }
}

/// How many vCPUs QEMU has made scoreboards for: one more than the highest number of those that it has announced. vCPUs are announced in
/// any order, and some of those that are possible may never be.
static ANNOUNCED: AtomicU32 = AtomicU32::new(0);

/// QEMU announces a vCPU. From here on, and not before, its number may be handed to QEMU, which ends the process over any other.
pub fn announced(vcpu: u32) {
    ANNOUNCED.fetch_max(vcpu + 1, Ordering::AcqRel);
}

/// The recipe that was noted last for a vCPU, under the same conditions as [`current_recipe`]; none for one that is not announced.
pub fn noted_recipe(vcpu: u32) -> Option<&'static Recipe> {
    if vcpu >= ANNOUNCED.load(Ordering::Acquire) {
        return None;
    }
    // SAFETY: the scoreboard has a number for every announced vCPU; what is noted lives until the next flush, which forgets it.
    unsafe { (sys::qemu_plugin_u64_get(noted(), vcpu) as *const Recipe).as_ref() }
}

/// No recipe is noted any more. A vCPU that is not announced has run no block that could have noted one.
pub fn forget_noted(vcpu: u32) {
    if vcpu < ANNOUNCED.load(Ordering::Acquire) {
        // SAFETY: as above.
        unsafe { sys::qemu_plugin_u64_set(noted(), vcpu, 0) }
    }
}

/// Ends the process at once: QEMU's exit handlers wait for vCPU threads, and this is called from one.
pub fn end_process(status: i32) -> ! {
    // SAFETY: ends the process; nothing is unwound and nothing runs after it.
    unsafe { libc::_exit(status) }
}
