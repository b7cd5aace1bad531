//! The peer that the bench measures beside the plugin: what QEMU's plugin API offers without the work of stopping anything.
//!
//! After each access to guest memory QEMU calls back, the access's physical address is asked for (`qemu_plugin_get_hwaddr`) and
//! looked up in a bitmap of watched frames. A touch of a watched frame is counted: to stop it, it is too late.

#![allow(unsafe_code, reason = "a plugin of a dozen calls to the plugin API")]

use qemu_plugin_sys as sys;
use std::ffi::{c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

/// The plugin API's version, read by QEMU before it calls [`qemu_plugin_install`].
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU looks for this name")]
pub static qemu_plugin_version: c_int = 4;

/// Frames that the bitmap covers: 4 GiB.
const FRAMES: usize = 1 << 20;
/// The frame that is watched; no machine of the bench has so much memory.
const WATCHED: usize = FRAMES - 1;

static WATCH: [AtomicU64; FRAMES / 64] = [const { AtomicU64::new(0) }; FRAMES / 64];
static TOUCHES: AtomicU64 = AtomicU64::new(0);

/// Called by QEMU when it loads the plugin.
///
/// # Safety
/// Nothing of what QEMU hands in is looked at.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: sys::qemu_plugin_id_t,
    _: *const sys::qemu_info_t,
    _: c_int,
    _: *const *const c_char,
) -> c_int {
    WATCH[WATCHED / 64].store(1 << (WATCHED % 64), Ordering::Relaxed);
    // SAFETY: `id` is this plugin's; the functions live as long as the process.
    unsafe {
        sys::qemu_plugin_register_vcpu_tb_trans_cb(id, Some(on_translation));
        sys::qemu_plugin_register_atexit_cb(id, Some(on_exit), std::ptr::null_mut());
    }
    0
}

unsafe extern "C" fn on_translation(_: sys::qemu_plugin_id_t, block: *mut sys::qemu_plugin_tb) {
    // SAFETY: the block and its instructions are valid during this callback.
    unsafe {
        for index in 0..sys::qemu_plugin_tb_n_insns(block) {
            sys::qemu_plugin_register_vcpu_mem_cb(
                sys::qemu_plugin_tb_get_insn(block, index),
                Some(on_access),
                sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_NO_REGS,
                sys::qemu_plugin_mem_rw::QEMU_PLUGIN_MEM_RW,
                std::ptr::null_mut(),
            );
        }
    }
}

unsafe extern "C" fn on_access(_: c_uint, info: sys::qemu_plugin_meminfo_t, gla: u64, _: *mut c_void) {
    // SAFETY: QEMU's own description of the access; what it returns is valid during this callback.
    let address = unsafe {
        let place = sys::qemu_plugin_get_hwaddr(info, gla);
        if place.is_null() || sys::qemu_plugin_hwaddr_is_io(place) {
            return;
        }
        sys::qemu_plugin_hwaddr_phys_addr(place)
    };
    let frame = usize::try_from(address >> 12).unwrap_or(FRAMES);
    let word = WATCH.get(frame / 64).map_or(0, |word| word.load(Ordering::Relaxed));
    if word >> (frame % 64) & 1 != 0 {
        TOUCHES.fetch_add(1, Ordering::Relaxed);
    }
}

unsafe extern "C" fn on_exit(_: sys::qemu_plugin_id_t, _: *mut c_void) {
    eprintln!("peer: {} touches of the watched frame", TOUCHES.load(Ordering::Relaxed));
}
