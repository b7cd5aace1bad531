//! The functions that QEMU calls: at installation, when a vCPU begins, halts, goes on and is unplugged, when a block is translated, when all are
//! dropped, at the end.
//!
//! Unwinding must not cross into C: every entry point is an `extern "C"` function, which aborts instead, and calls one safe
//! function that returns its errors.

use crate::entry::install::{self, Facts};
use crate::entry::shim::HOOKS;
use crate::qemu::api::{self, Callbacks};
use crate::qemu::block::Block;
use crate::qemu::{declared, program, register, version};
use crate::trap::translate;
use qemu_plugin_sys as sys;
use std::ffi::{CStr, OsStr, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicI32, Ordering};

/// Read by QEMU before it calls [`qemu_plugin_install`].
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU looks for this name")]
pub static qemu_plugin_version: AtomicI32 = AtomicI32::new(version::OLDEST);

/// Runs while QEMU opens this file, before it reads the number above, which is why that is no constant: it lies in memory that can be
/// written.
#[used]
#[unsafe(link_section = ".init_array")]
static CHOOSE: extern "C" fn() = choose_version;

extern "C" fn choose_version() {
    qemu_plugin_version.store(program::api_number(), Ordering::Relaxed);
}

const CALLBACKS: Callbacks = Callbacks {
    vcpu_init: on_vcpu_init,
    vcpu_exit: on_vcpu_exit,
    vcpu_idle: on_idle,
    vcpu_resume: on_resume,
    flushed: on_flush,
    exit: on_exit,
    translation: on_translation,
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
    declared::speaks(qemu_plugin_version.load(Ordering::Relaxed));
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

unsafe extern "C" fn on_vcpu_init(first: usize, second: usize) {
    let index = declared::vcpu(first, second);
    api::announced(index);
    register::know_registers();
    install::vcpu_started(index);
}

/// A vCPU was unplugged. Called with QEMU's lock held, by the thread that unplugs it, after the vCPU's own thread has ended.
unsafe extern "C" fn on_vcpu_exit(first: usize, second: usize) {
    install::vcpu_ended(declared::vcpu(first, second));
}

/// A vCPU halts, or QEMU stops it. Called with QEMU's lock held.
unsafe extern "C" fn on_idle(first: usize, second: usize) {
    install::vcpu_is_busy(declared::vcpu(first, second), false);
}

/// It goes on. Called with QEMU's lock held.
unsafe extern "C" fn on_resume(first: usize, second: usize) {
    install::vcpu_is_busy(declared::vcpu(first, second), true);
}

unsafe extern "C" fn on_flush(_: usize, _: usize) {
    translate::flushed();
}

unsafe extern "C" fn on_exit(_: usize, _: usize) {
    install::ended();
}

unsafe extern "C" fn on_translation(first: usize, second: usize) {
    let block = std::ptr::with_exposed_provenance_mut(declared::subject(first, second));
    // SAFETY: QEMU's block, until this function returns.
    translate::translated(&unsafe { Block::new(block, &HOOKS) });
}
