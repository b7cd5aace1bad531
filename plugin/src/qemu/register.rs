//! Registers by the plugin API, and where each has its name.

use super::declared::{append_register, g_array_get_element_size};
use qemu_plugin_sys as sys;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::sync::OnceLock;

unsafe extern "C" {
    pub(super) fn g_byte_array_new() -> *mut sys::GByteArray;
    pub(super) fn g_byte_array_set_size(array: *mut sys::GByteArray, length: c_uint) -> *mut sys::GByteArray;
    fn g_array_free(array: *mut sys::GArray, free_segment: c_int) -> *mut c_char;
}

/// A register that the plugin API knows by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(usize);

/// The registers that are read through the API, in the order of [`Handles`].
const NAMES: [&str; 31] = [
    "rax",
    "rcx",
    "rdx",
    "rbx",
    "rsp",
    "rbp",
    "rsi",
    "rdi",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rip",
    "es",
    "cs",
    "ss",
    "ds",
    "fs",
    "gs",
    "cr0",
    "cr3",
    "cr4",
    "efer",
    "eflags",
    "fs_base",
    "gs_base",
    "k_gs_base",
];

impl Register {
    /// RIP.
    pub const RIP: Register = Register(16);
    /// CR0.
    pub const CR0: Register = Register(23);
    /// CR3.
    pub const CR3: Register = Register(24);
    /// CR4.
    pub const CR4: Register = Register(25);
    /// EFER.
    pub const EFER: Register = Register(26);

    /// RFLAGS, inside a block without the arithmetic flags.
    pub const EFLAGS: Register = Register(27);
    /// The base of FS.
    pub const FS_BASE: Register = Register(28);
    /// The base of GS.
    pub const GS_BASE: Register = Register(29);

    /// `MSR_KERNEL_GS_BASE`.
    pub const KERNEL_GS_BASE: Register = Register(30);

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        NAMES[self.0]
    }

    /// A general register in encoding order, 0 to 15.
    pub fn general(number: u8) -> Register {
        Register(usize::from(number & 15))
    }

    /// A segment register's selector in encoding order, 0 to 5.
    pub fn selector(number: u8) -> Register {
        Register(17 + usize::from(number.min(5)))
    }
}

/// QEMU's handles for [`NAMES`]; null where it does not know the register.
struct Handles {
    named: [*mut sys::qemu_plugin_register; NAMES.len()],
    vectors: [*mut sys::qemu_plugin_register; 16],
}

// SAFETY: the handles are numbers in disguise, the same for all vCPUs and threads.
unsafe impl Send for Handles {}
// SAFETY: as above; they are never written after they were found.
unsafe impl Sync for Handles {}

static HANDLES: OnceLock<Handles> = OnceLock::new();

/// QEMU's handles for XMM0 to XMM15, once registers are known.
pub(super) fn vector_handles() -> Option<[*mut sys::qemu_plugin_register; 16]> {
    HANDLES.get().map(|handles| handles.vectors)
}

/// Asks QEMU for its registers, once; in a vCPU's thread that begins.
pub fn know_registers() {
    HANDLES.get_or_init(find_registers);
}

/// Asks QEMU for its registers; in a vCPU thread.
fn find_registers() -> Handles {
    let mut handles = Handles { named: [std::ptr::null_mut(); NAMES.len()], vectors: [std::ptr::null_mut(); 16] };
    // SAFETY: called from the vCPU init callback, where QEMU allows it; the array is ours and holds `len` descriptors, each of
    // the size that it says, which begin with what version 4 declares.
    unsafe {
        let array = sys::qemu_plugin_get_registers();
        let size = g_array_get_element_size(array) as usize;
        for index in 0..(*array).len as usize {
            let descriptor = &*(*array).data.add(index * size).cast::<sys::qemu_plugin_reg_descriptor>();
            let name = CStr::from_ptr(descriptor.name).to_bytes();
            if let Some(index) = NAMES.iter().position(|known| known.as_bytes() == name) {
                handles.named[index] = descriptor.handle;
            }
            let vector = name.strip_prefix(b"xmm").and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
            if let Some(handle) = vector.and_then(|number: usize| handles.vectors.get_mut(number)) {
                *handle = descriptor.handle;
            }
        }
        g_array_free(array, 1);
    }
    handles
}

thread_local! {
    pub(super) static VALUE: RefCell<Option<*mut sys::GByteArray>> = const { RefCell::new(None) };
}

/// A register's value by the public API; `None` where QEMU does not know it. Only inside a callback with registers.
pub fn read_register(register: Register) -> Option<u64> {
    let handle = HANDLES.get()?.named[register.0];
    if handle.is_null() {
        return None;
    }
    VALUE.with_borrow_mut(|array| {
        // SAFETY: the array is this thread's own; QEMU appends the register's bytes to it, `len` says how many.
        unsafe {
            let array = *array.get_or_insert_with(|| g_byte_array_new());
            g_byte_array_set_size(array, 0);
            append_register(handle, array);
            let size = Some((*array).len as usize).filter(|size| *size > 0)?.min(8);
            let bytes = std::slice::from_raw_parts((*array).data, size);
            Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        }
    })
}
