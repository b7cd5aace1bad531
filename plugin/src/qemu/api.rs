//! Everything that touches QEMU: the plugin API's functions, the entry points that QEMU calls, the direct view of the CPU
//! state and the way out of a translation block. A second generation of the API is one more file here.
//!
//! Unwinding must not cross into C: every entry point is an `extern "C"` function, which aborts instead, and calls one safe
//! function that returns its errors.

use super::shim;

use crate::insn::cache::{PageCache, Part};
use crate::insn::quick::Shape;
use crate::insn::recipe::Recipe;
use crate::trap::checkpoint::Stop;
use crate::trap::gate::QuickRecipe;
use crate::trap::verify::Subject;
use mem_event::Rights;
use qemu_plugin_sys as sys;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The API version that this module speaks.
pub const API_VERSION: i32 = 4;

/// Read by QEMU before it calls [`qemu_plugin_install`].
#[unsafe(no_mangle)]
#[allow(non_upper_case_globals, reason = "QEMU looks for this name")]
pub static qemu_plugin_version: c_int = API_VERSION;

/// The plugin's number, known from installation on.
static PLUGIN: AtomicU64 = AtomicU64::new(0);

unsafe extern "C" {
    pub(super) fn g_byte_array_new() -> *mut sys::GByteArray;
    pub(super) fn g_byte_array_set_size(array: *mut sys::GByteArray, length: c_uint) -> *mut sys::GByteArray;
    fn g_array_free(array: *mut sys::GArray, free_segment: c_int) -> *mut c_char;
}

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
    PLUGIN.store(id, Ordering::Relaxed);
    // SAFETY: QEMU's contract of this function; `info` lives for the length of the call.
    let (system, vcpus, target) = unsafe {
        let info = &*info;
        let vcpus = if info.system_emulation { info.__bindgen_anon_1.system.max_vcpus } else { 0 };
        (info.system_emulation, vcpus, CStr::from_ptr(info.target_name).to_string_lossy().into_owned())
    };
    let arguments = (0..usize::try_from(argc).unwrap_or(0))
        // SAFETY: `argv` has `argc` strings.
        .map(|index| unsafe { CStr::from_ptr(*argv.add(index)) }.to_string_lossy().into_owned())
        .collect::<Vec<_>>();
    let facts = Facts { system, target, vcpus: u32::try_from(vcpus).unwrap_or(0) };
    match crate::entry::install::install(&facts, &arguments) {
        Ok(()) => 0,
        Err(sentence) => {
            eprintln!("mem-event: {sentence}");
            1
        }
    }
}

/// What QEMU says of itself at installation.
#[derive(Debug)]
pub struct Facts {
    /// Whether a whole machine is emulated.
    pub system: bool,
    /// The emulated architecture.
    pub target: String,
    /// The most vCPUs there can be.
    pub vcpus: u32,
}

/// Registers the callbacks that every run needs.
pub fn register_lifecycle() {
    let id = PLUGIN.load(Ordering::Relaxed);
    // SAFETY: `id` is this plugin's; the functions live as long as the process (QEMU never unloads a plugin with threads).
    unsafe {
        sys::qemu_plugin_register_vcpu_init_cb(id, Some(on_vcpu_init));
        sys::qemu_plugin_register_vcpu_idle_cb(id, Some(on_idle));
        sys::qemu_plugin_register_vcpu_resume_cb(id, Some(on_resume));
        sys::qemu_plugin_register_flush_cb(id, Some(on_flush));
        sys::qemu_plugin_register_atexit_cb(id, Some(on_exit), std::ptr::null_mut());
    }
}

/// Whether every block that is translated passes through `translate` from now on. May be called from any thread: QEMU takes its
/// plugins' lock, which nobody holds while he waits, and tells each vCPU by work that it does before its next block.
pub fn look_at_translations(on: bool) {
    let callback = on.then_some(on_translation as _);
    // SAFETY: as in `register_lifecycle`; without a function the callback is taken back.
    unsafe { sys::qemu_plugin_register_vcpu_tb_trans_cb(PLUGIN.load(Ordering::Relaxed), callback) }
}

unsafe extern "C" fn on_vcpu_init(_: sys::qemu_plugin_id_t, index: c_uint) {
    HANDLES.get_or_init(find_registers);
    crate::entry::install::vcpu_started(index);
}

/// A vCPU halts, or QEMU stops it. Called with QEMU's lock held.
unsafe extern "C" fn on_idle(_: sys::qemu_plugin_id_t, index: c_uint) {
    crate::entry::install::vcpu_is_busy(index, false);
}

/// It goes on. Called with QEMU's lock held.
unsafe extern "C" fn on_resume(_: sys::qemu_plugin_id_t, index: c_uint) {
    crate::entry::install::vcpu_is_busy(index, true);
}

unsafe extern "C" fn on_flush(_: sys::qemu_plugin_id_t) {
    crate::trap::translate::flushed();
}

unsafe extern "C" fn on_exit(_: sys::qemu_plugin_id_t, _: *mut c_void) {
    crate::entry::install::ended();
}

unsafe extern "C" fn on_translation(_: sys::qemu_plugin_id_t, block: *mut sys::qemu_plugin_tb) {
    crate::trap::translate::translated(&Block(block));
}

/// After an access to guest memory.
unsafe extern "C" fn on_memory(vcpu: c_uint, info: sys::qemu_plugin_meminfo_t, gla: u64, subject: *mut c_void) {
    // SAFETY: QEMU's own description of the access; the subject lives until the next flush.
    let (size, store, subject) = unsafe {
        (
            1u16 << sys::qemu_plugin_mem_size_shift(info),
            sys::qemu_plugin_mem_is_store(info),
            &*subject.cast::<Subject>(),
        )
    };
    crate::trap::verify::done(subject, vcpu, gla, size, if store { Rights::W } else { Rights::R });
}

/// A block that QEMU is translating, valid during the translation callback.
#[derive(Debug)]
pub struct Block(*mut sys::qemu_plugin_tb);

/// One instruction of a [`Block`].
#[derive(Debug)]
pub struct Instruction<'a>(*mut sys::qemu_plugin_insn, std::marker::PhantomData<&'a Block>);

impl Block {
    /// The block's instructions in order.
    pub fn instructions(&self) -> impl Iterator<Item = Instruction<'_>> {
        // SAFETY: the block is valid while `self` lives, and so are the instructions below its count.
        let count = unsafe { sys::qemu_plugin_tb_n_insns(self.0) };
        (0..count).map(|index| {
            // SAFETY: as above; the index is below the count.
            Instruction(unsafe { sys::qemu_plugin_tb_get_insn(self.0, index) }, std::marker::PhantomData)
        })
    }

    /// Has the direct view checked against the API whenever the block begins.
    pub fn check_view_at_start(&self) {
        // SAFETY: the block is valid; the shim has the callback's signature and keeps its calling convention.
        unsafe {
            sys::qemu_plugin_register_vcpu_tb_exec_cb(
                self.0,
                Some(shim::CHECK_VIEW),
                sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_R_REGS,
                std::ptr::null_mut(),
            );
        }
    }
}

impl Instruction<'_> {
    /// The instruction's bytes.
    pub fn bytes<'b>(&self, buffer: &'b mut [u8; 16]) -> &'b [u8] {
        // SAFETY: the instruction is valid and the buffer has the length that is passed.
        let length = unsafe { sys::qemu_plugin_insn_data(self.0, buffer.as_mut_ptr().cast(), buffer.len()) };
        &buffer[..length.min(16)]
    }

    /// Where QEMU reads its first byte in this process; 0 for what is no memory.
    pub fn host_address(&self) -> u64 {
        // SAFETY: the instruction is valid.
        unsafe { sys::qemu_plugin_insn_haddr(self.0) as u64 }
    }

    /// The linear address at translation; right in its low 12 bits only (blocks are position independent).
    pub fn address(&self) -> u64 {
        // SAFETY: the instruction is valid.
        unsafe { sys::qemu_plugin_insn_vaddr(self.0) }
    }

    /// Before each execution, `gate::before` is called with this recipe, which must live until the next flush.
    pub fn call_before(&self, recipe: &'static Recipe) {
        self.register(shim::BEFORE_ACCESS, std::ptr::from_ref(recipe).cast_mut().cast());
    }

    /// The same for a recipe that has a quick form, after a check of its shape in place.
    pub fn call_before_quick(&self, recipe: &'static QuickRecipe, shape: Shape, part: Part) {
        self.register(shim::before_quick(shape, part), std::ptr::from_ref(recipe).cast_mut().cast());
    }

    /// Before each execution, `gate::step` is called with this recipe of the instruction's fetch.
    pub fn call_step(&self, fetch: &'static Recipe) {
        self.register(shim::STEP, std::ptr::from_ref(fetch).cast_mut().cast());
    }

    /// Before each execution its accesses are predicted, and each that QEMU then reports is compared.
    pub fn verify(&self, subject: &'static Subject) {
        let data = std::ptr::from_ref(subject).cast_mut().cast();
        self.register(shim::PREDICT, data);
        // SAFETY: the instruction is valid, the function has the callback's signature, the subject lives until the next flush.
        unsafe {
            sys::qemu_plugin_register_vcpu_mem_cb(
                self.0,
                Some(on_memory),
                sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_NO_REGS,
                sys::qemu_plugin_mem_rw::QEMU_PLUGIN_MEM_RW,
                data,
            );
        }
    }

    /// Before each execution, without a call, this recipe is noted as the vCPU's current one.
    pub fn note(&self, recipe: &'static Recipe) {
        // SAFETY: the instruction is valid; the scoreboard lives for ever.
        unsafe {
            sys::qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(
                self.0,
                sys::qemu_plugin_op::QEMU_PLUGIN_INLINE_STORE_U64,
                noted(),
                std::ptr::from_ref(recipe) as u64,
            );
        }
    }

    /// How many bytes it has.
    pub fn length(&self) -> usize {
        // SAFETY: the instruction is valid.
        unsafe { sys::qemu_plugin_insn_size(self.0) }
    }

    /// Before each execution, the vCPU stops and says so.
    pub fn call_checkpoint(&self, stop: &'static Stop) {
        self.register(shim::CHECKPOINT, std::ptr::from_ref(stop).cast_mut().cast());
    }

    fn register(&self, shim: shim::Shim, data: *mut c_void) {
        // SAFETY: the instruction is valid; the shims have the callback's signature. R_REGS makes QEMU store its registers
        // into the CPU state before the call, which the direct view relies on.
        unsafe {
            sys::qemu_plugin_register_vcpu_insn_exec_cb(
                self.0,
                Some(shim),
                sys::qemu_plugin_cb_flags::QEMU_PLUGIN_CB_R_REGS,
                data,
            );
        }
    }
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
fn noted() -> sys::qemu_plugin_u64 {
    static SCOREBOARD: OnceLock<usize> = OnceLock::new();
    // SAFETY: made once, never freed; one number a vCPU.
    let score = *SCOREBOARD.get_or_init(|| unsafe { sys::qemu_plugin_scoreboard_new(size_of::<u64>()) } as usize);
    sys::qemu_plugin_u64 { score: score as *mut sys::qemu_plugin_scoreboard, offset: 0 }
}

/// The recipe that was noted last for a vCPU, under the same conditions as [`current_recipe`].
pub fn noted_recipe(vcpu: u32) -> Option<&'static Recipe> {
    // SAFETY: the scoreboard has a number for every vCPU; what is noted lives until the next flush, which forgets it.
    unsafe { (sys::qemu_plugin_u64_get(noted(), vcpu) as *const Recipe).as_ref() }
}

/// No recipe is noted any more.
pub fn forget_noted(vcpu: u32) {
    // SAFETY: as above.
    unsafe { sys::qemu_plugin_u64_set(noted(), vcpu, 0) }
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
pub(super) struct Handles {
    named: [*mut sys::qemu_plugin_register; NAMES.len()],
    pub(super) vectors: [*mut sys::qemu_plugin_register; 16],
}

// SAFETY: the handles are numbers in disguise, the same for all vCPUs and threads.
unsafe impl Send for Handles {}
// SAFETY: as above; they are never written after they were found.
unsafe impl Sync for Handles {}

pub(super) static HANDLES: OnceLock<Handles> = OnceLock::new();

/// Asks QEMU for its registers; in a vCPU thread.
fn find_registers() -> Handles {
    let mut handles = Handles { named: [std::ptr::null_mut(); NAMES.len()], vectors: [std::ptr::null_mut(); 16] };
    // SAFETY: called from the vCPU init callback, where QEMU allows it; the array is ours and holds `len` descriptors.
    unsafe {
        let array = sys::qemu_plugin_get_registers();
        let descriptors =
            std::slice::from_raw_parts((*array).data.cast::<sys::qemu_plugin_reg_descriptor>(), (*array).len as usize);
        for descriptor in descriptors {
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
            let size = sys::qemu_plugin_read_register(handle, array);
            let size = usize::try_from(size).ok().filter(|size| *size > 0)?.min((*array).len as usize).min(8);
            let bytes = std::slice::from_raw_parts((*array).data, size);
            Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
        }
    })
}

/// Ends the process at once: QEMU's exit handlers wait for vCPU threads, and this is called from one.
pub fn end_process(status: i32) -> ! {
    // SAFETY: ends the process; nothing is unwound and nothing runs after it.
    unsafe { libc::_exit(status) }
}
