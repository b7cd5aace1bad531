//! What this program can do only where QEMU exports more than the plugin API: a row each, with the names that it needs, looked up once.
//!
//! Each is optional and proves itself where it is used. What is done without it is said there, and in a line where a user would wonder.

use super::source;
use std::ffi::{CStr, c_void};

/// One ability and the names that it rests on.
#[derive(Debug)]
pub struct Capability {
    /// What it is, as a sentence goes on after "this QEMU cannot".
    pub what: &'static str,
    names: &'static [&'static CStr],
}

/// Telling the guest instruction that a vCPU stands in, in the kernel, by its thread's host registers.
pub const UNWINDING: Capability = Capability {
    what: "say which instruction a stopped vCPU stands in",
    names: &[c"cpu_unwind_state_data", c"in_code_gen_buffer", c"qemu_get_cpu", c"async_run_on_cpu"],
};

/// Having a vCPU that stands in the kernel leave its block.
pub const LEAVING: Capability = Capability {
    what: "have a vCPU leave its block that stands in the kernel",
    names: &[
        c"cpu_loop_exit_restore",
        c"bql_locked",
        c"get_ptr_rcu_reader",
        c"current_cpu",
        c"cpu_unwind_state_data",
        c"in_code_gen_buffer",
        c"qemu_get_cpu",
    ],
};

impl Capability {
    /// The first name that this QEMU does not export, if there is one.
    pub fn lacks(&self) -> Option<&'static str> {
        self.names.iter().find(|name| symbol(name).is_none()).and_then(|name| name.to_str().ok())
    }
}

/// The address of what QEMU exports under a name.
pub(super) fn symbol(name: &CStr) -> Option<*mut c_void> {
    if source::names_fail() {
        return None;
    }
    // SAFETY: a look-up by name without side effects.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}
