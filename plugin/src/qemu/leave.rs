//! Leaving a translation block from inside a callback, and coming back to the same instruction.
//!
//! A vCPU that waits in a callback holds up everything for which QEMU needs all vCPUs out of their blocks. So it leaves now and
//! then. With plugin API 4 that is `cpu_loop_exit_restore`, which QEMU exports for its own modules: an optional capability,
//! looked up by name. Without it vCPUs wait where they are.

use std::ffi::{CStr, c_int, c_void};
use std::sync::OnceLock;

/// QEMU's `CPUState` of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(pub(super) *mut c_void);

// SAFETY: only an address; QEMU keeps a vCPU's state in place for the vCPU's life.
unsafe impl Send for Cpu {}
// SAFETY: as above.
unsafe impl Sync for Cpu {}

type GetCpu = unsafe extern "C" fn(c_int) -> *mut c_void;
pub(super) type Leave = unsafe extern "C" fn(*mut c_void, usize) -> !;

/// What QEMU exports besides the plugin API.
struct Exports {
    get_cpu: GetCpu,
    leave: Leave,
}

fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: a look-up by name without side effects.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

fn exports() -> Option<&'static Exports> {
    static EXPORTS: OnceLock<Option<Exports>> = OnceLock::new();
    EXPORTS
        .get_or_init(|| {
            let get_cpu = symbol(c"qemu_get_cpu")?;
            let leave = symbol(c"cpu_loop_exit_restore")?;
            // SAFETY: these names have had these signatures in every QEMU from 2.x to 11 (include/hw/core/cpu.h and
            // include/exec/exec-all.h or its successors).
            Some(unsafe {
                Exports {
                    get_cpu: std::mem::transmute::<*mut c_void, GetCpu>(get_cpu),
                    leave: std::mem::transmute::<*mut c_void, Leave>(leave),
                }
            })
        })
        .as_ref()
}

/// Whether vCPUs can leave their blocks here.
pub fn can_leave() -> bool {
    exports().is_some()
}

/// The state of a vCPU, where QEMU exports the look-up.
pub fn cpu_of(vcpu: u32) -> Option<Cpu> {
    let exports = exports()?;
    // SAFETY: QEMU walks its list of vCPUs and returns null for a number that is not there.
    let cpu = unsafe { (exports.get_cpu)(c_int::try_from(vcpu).ok()?) };
    (!cpu.is_null()).then_some(Cpu(cpu))
}

/// The function that leaves, for the shim.
pub(super) fn leave_function() -> Option<Leave> {
    exports().map(|exports| exports.leave)
}
