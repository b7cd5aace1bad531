//! What the plugin API declares otherwise from version to version, beside `qemu-plugin-sys`, which has it as version 4 does.
//!
//! - Functions that take a callback got a last argument, user data, in version 7. A function of an older version does not look at a third
//!   argument, so one declaration serves all.
//! - The callbacks themselves lost the plugin's number, which came first, and got the data, which come last: their two arguments are taken
//!   as numbers, and which is which depends on the version that is spoken.
//! - A register's descriptor got longer in version 6: the array says how long each is.
//! - Reading a register returned its length, and returns whether it was read from version 6 on: the array's length tells it in all.
//!
//! Version 6 (QEMU 11.0) is built to its header: no QEMU that speaks it was to be had.

use super::version;
use qemu_plugin_sys as sys;
use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicI32, Ordering};

/// A callback with two arguments in every version.
pub type Callback = unsafe extern "C" fn(usize, usize);

unsafe extern "C" {
    #[link_name = "qemu_plugin_register_vcpu_init_cb"]
    pub(super) fn register_vcpu_init(id: sys::qemu_plugin_id_t, callback: Option<Callback>, data: *mut c_void);
    #[link_name = "qemu_plugin_register_vcpu_exit_cb"]
    pub(super) fn register_vcpu_exit(id: sys::qemu_plugin_id_t, callback: Option<Callback>, data: *mut c_void);
    #[link_name = "qemu_plugin_register_vcpu_idle_cb"]
    pub(super) fn register_vcpu_idle(id: sys::qemu_plugin_id_t, callback: Option<Callback>, data: *mut c_void);
    #[link_name = "qemu_plugin_register_vcpu_resume_cb"]
    pub(super) fn register_vcpu_resume(id: sys::qemu_plugin_id_t, callback: Option<Callback>, data: *mut c_void);
    #[link_name = "qemu_plugin_register_flush_cb"]
    pub(super) fn register_flush(id: sys::qemu_plugin_id_t, callback: Option<Callback>, data: *mut c_void);
    #[link_name = "qemu_plugin_register_atexit_cb"]
    pub(super) fn register_exit(id: sys::qemu_plugin_id_t, callback: Option<Callback>, data: *mut c_void);
    #[link_name = "qemu_plugin_register_vcpu_tb_trans_cb"]
    pub(super) fn register_translation(id: sys::qemu_plugin_id_t, callback: Option<Callback>, data: *mut c_void);

    /// Appends the register's bytes to the array.
    #[link_name = "qemu_plugin_read_register"]
    pub(super) fn append_register(handle: *mut sys::qemu_plugin_register, array: *mut sys::GByteArray);

    pub(super) fn g_array_get_element_size(array: *mut sys::GArray) -> c_uint;
}

/// What is spoken; known from installation on.
static SPOKEN: AtomicI32 = AtomicI32::new(version::OLDEST);

/// This version is spoken from here on, which the QEMU takes; before anything is registered.
pub fn speaks(number: c_int) {
    SPOKEN.store(number, Ordering::Relaxed);
}

/// The version that is spoken.
pub fn spoken() -> c_int {
    SPOKEN.load(Ordering::Relaxed)
}

/// What a callback is about, of its two arguments: a vCPU, or a block.
#[inline]
pub fn subject(first: usize, second: usize) -> usize {
    if spoken() >= version::NEWEST { first } else { second }
}

/// The vCPU that a callback is about.
#[allow(
    clippy::cast_possible_truncation,
    reason = "the upper half of a register that holds an unsigned int is undefined"
)]
pub fn vcpu(first: usize, second: usize) -> u32 {
    subject(first, second) as u32
}
