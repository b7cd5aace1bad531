//! The functions that QEMU calls: at installation, when a vCPU begins, halts, goes on and is unplugged, when a block is translated, when all are
//! dropped, at the end.
//!
//! Unwinding must not cross into C: every entry point is an `extern "C"` function, which aborts instead, and calls one safe
//! function that returns its errors.

use crate::entry::install::{self, Facts};
use crate::entry::shim::HOOKS;
use crate::qemu::api::{self, API_VERSION, Callbacks};
use crate::qemu::block::Block;
use crate::qemu::register;
use crate::trap::translate;
use qemu_plugin_sys as sys;
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;

/// Read by QEMU before it calls [`qemu_plugin_install`].
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU looks for this name")]
pub static qemu_plugin_version: c_int = API_VERSION;

const CALLBACKS: Callbacks = Callbacks {
    vcpu_init: Some(on_vcpu_init),
    vcpu_exit: Some(on_vcpu_exit),
    vcpu_idle: Some(on_idle),
    vcpu_resume: Some(on_resume),
    flushed: Some(on_flush),
    exit: Some(on_exit),
    translation: Some(on_translation),
};

/// Called by QEMU when it loads the plugin.
///
/// # Safety
/// QEMU hands in `argc` C strings and a valid description of itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn qemu_plugin_install(
    id: sys::qemu_plugin_id_t,
    info: *const sys::qemu_info_t,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    api::installed(id, CALLBACKS);
    // SAFETY: QEMU's contract of this function; `info` lives for the length of the call.
    let (system, vcpus, target) = unsafe {
        let info = &*info;
        let vcpus = if info.system_emulation { info.__bindgen_anon_1.system.max_vcpus } else { 0 };
        (info.system_emulation, vcpus, CStr::from_ptr(info.target_name).to_string_lossy().into_owned())
    };
    let arguments = (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: `argv` has `argc` strings.
        .map(|index| OsStr::from_bytes(unsafe { CStr::from_ptr(*argv.add(index)) }.to_bytes()).to_owned())
        .collect::<Vec<_>>();
    let facts = Facts { system, target, vcpus: u32::try_from(vcpus).unwrap_or(0) };
    match install::install(&facts, &arguments) {
        Ok(()) => {
            api::register_lifecycle();
            0
        }
        Err(sentence) => {
            eprintln!("mem-event: {sentence}");
            1
        }
    }
}

unsafe extern "C" fn on_vcpu_init(_: sys::qemu_plugin_id_t, index: c_uint) {
    api::announced(index);
    register::know_registers();
    install::vcpu_started(index);
}

/// A vCPU was unplugged. Called with QEMU's lock held, by the thread that unplugs it, after the vCPU's own thread has ended.
unsafe extern "C" fn on_vcpu_exit(_: sys::qemu_plugin_id_t, index: c_uint) {
    install::vcpu_ended(index);
}

/// A vCPU halts, or QEMU stops it. Called with QEMU's lock held.
unsafe extern "C" fn on_idle(_: sys::qemu_plugin_id_t, index: c_uint) {
    install::vcpu_is_busy(index, false);
}

/// It goes on. Called with QEMU's lock held.
unsafe extern "C" fn on_resume(_: sys::qemu_plugin_id_t, index: c_uint) {
    install::vcpu_is_busy(index, true);
}

unsafe extern "C" fn on_flush(_: sys::qemu_plugin_id_t) {
    translate::flushed();
}

unsafe extern "C" fn on_exit(_: sys::qemu_plugin_id_t, _: *mut c_void) {
    install::ended();
}

unsafe extern "C" fn on_translation(_: sys::qemu_plugin_id_t, block: *mut sys::qemu_plugin_tb) {
    // SAFETY: QEMU's block, until this function returns.
    translate::translated(&unsafe { Block::new(block, &HOOKS) });
}
