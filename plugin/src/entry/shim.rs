//! The few instructions between QEMU's generated code and Rust.
//!
//! On x86-64 hosts TCG keeps the CPU state's address in RBP while a block runs (`TCG_AREG0`), and a callback is called
//! straight from the block. A naked function hands RBP on before any Rust prologue can change it. It also is the place to
//! leave a block from: the Rust function has returned, so no Rust frame is jumped over.

use crate::engine::hypervisor::Hypervisor;
use crate::host::state::Go;
use crate::insn::block_start::BlockStart;
use crate::insn::cache::{self, PageCache, Part};
use crate::insn::quick::{Quick, QuickRecipe, Shape};
use crate::insn::recipe::Recipe;
use crate::insn::stop_point::StopPoint;
use crate::insn::subject::Subject;
use crate::qemu::block::{Hook, Hooks};
use crate::qemu::view::View;
use crate::qemu::{internals, proof, unwinding};
use crate::trap;
use mem_event::Rights;
use qemu_plugin_sys as sys;
use std::arch::naked_asm;
use std::ffi::{c_uint, c_void};
use std::mem::offset_of;

/// What a Rust callback tells its shim: null to run the instruction, a CPU state to leave its block.
type Verdict = *mut c_void;

/// A naked function that calls a Rust function with the CPU state as third argument, and leaves the block if told so. Before
/// that, instructions of its own may decide that there is nothing to do.
///
/// The stack is 8 off a multiple of 16 on entry, as after any call; `sub` makes it right for the next. A block is left with the
/// return address into it, by which QEMU finds the instruction to come back to.
macro_rules! shim {
    ($(#[$doc:meta])* $name:ident => $target:ident; $($before:literal,)* { $($operand:tt)* }) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by QEMU's generated code alone.
        #[unsafe(naked)]
        unsafe extern "C" fn $name(vcpu: c_uint, data: *mut c_void) {
            naked_asm!(
                $($before,)*
                "2:",
                "mov rdx, rbp",
                "sub rsp, 8",
                "call {target}",
                "add rsp, 8",
                "test rax, rax",
                "jnz 3f",
                "ret",
                "3:",
                "mov rdi, rax",
                "mov rsi, [rsp]",
                "sub rsp, 8",
                "call {leave}",
                "ud2",
                target = sym $target,
                leave = sym leave_block,
                $($operand)*
            )
        }
    };
}

shim!(
    /// Before an instruction that touches memory; `data` is its recipe.
    before_access_shim => safe_before_access; {}
);
shim!(
    /// Before a checkpoint or a breakpoint; `data` is what is known of it.
    checkpoint_shim => safe_checkpoint; {}
);
shim!(
    /// At the start of a block; `data` is what is known of it.
    start_shim => safe_start; {}
);
shim!(
    /// Before every instruction, while steps are wanted; `data` is the recipe of the instruction's fetch.
    step_shim => safe_step; {}
);
shim!(
    /// Before every instruction, while predictions are verified; `data` is what is known of the instruction.
    predict_shim => safe_predict; {}
);
shim!(
    /// At the start of a block, while the direct view is not proven yet.
    check_view_shim => safe_check_view; "lea rcx, [rsp + 8]", {}
);

/// One quick check. `data` is a quick recipe; the shape's instructions leave the linear address in RDX, using RAX, RCX and R8,
/// with the CPU state in RBP.
///
/// The slot is the first byte's page, the tag must be the last byte's: an operand that reaches into the next page never matches.
/// On x86 the loads of tag and key are as good as acquire loads.
macro_rules! quick_check_of {
    ($name:ident, $part:expr, { $($operand:tt)* }, $($address:literal,)*) => {
        shim!(
            /// Before an instruction with one plain memory operand.
            $name => safe_before_quick;
            $($address,)*
            "movzx ecx, word ptr [rsi + {last}]",
            "add rcx, rdx",
            "shr rcx, 12",
            "shr rdx, 12",
            "and edx, {mask}",
            "imul eax, edi, {size}",
            "lea r8, [rip + {caches}]",
            "add rax, r8",
            "xor rcx, [rax + {key}]",
            "mov [rax + {current}], rsi",
            "cmp rcx, [rax + rdx * 8 + {part}]",
            "jne 2f",
            "ret",
            {
                last = const offset_of!(Quick, last),
                mask = const cache::PAGES - 1,
                size = const size_of::<PageCache>(),
                caches = sym cache::CACHES,
                key = const PageCache::KEY_OFFSET,
                current = const PageCache::CURRENT_OFFSET,
                part = const $part,
                $($operand)*
            }
        );
    };
}

/// The quick checks of a shape, for reads and for writes.
macro_rules! quick_check {
    ($read:ident, $write:ident, { $($operand:tt)* }, $($address:literal,)*) => {
        quick_check_of!($read, PageCache::READ_OFFSET, { $($operand)* }, $($address,)*);
        quick_check_of!($write, PageCache::WRITE_OFFSET, { $($operand)* }, $($address,)*);
    };
}

quick_check!(
    base_read, base_write,
    { displacement = const offset_of!(Quick, displacement), base = const offset_of!(Quick, base), },
    "movsxd rdx, dword ptr [rsi + {displacement}]",
    "movzx eax, word ptr [rsi + {base}]",
    "add rdx, [rbp + rax]",
);
quick_check!(
    base_index_read, base_index_write,
    {
        displacement = const offset_of!(Quick, displacement),
        base = const offset_of!(Quick, base),
        index = const offset_of!(Quick, index),
        scale = const offset_of!(Quick, scale),
    },
    "movzx eax, word ptr [rsi + {index}]",
    "movzx ecx, byte ptr [rsi + {scale}]",
    "mov r8, [rbp + rax]",
    "movsxd rdx, dword ptr [rsi + {displacement}]",
    "shl r8, cl",
    "movzx eax, word ptr [rsi + {base}]",
    "add rdx, r8",
    "add rdx, [rbp + rax]",
);
quick_check!(
    index_read, index_write,
    {
        displacement = const offset_of!(Quick, displacement),
        index = const offset_of!(Quick, index),
        scale = const offset_of!(Quick, scale),
    },
    "movzx eax, word ptr [rsi + {index}]",
    "movzx ecx, byte ptr [rsi + {scale}]",
    "mov r8, [rbp + rax]",
    "movsxd rdx, dword ptr [rsi + {displacement}]",
    "shl r8, cl",
    "add rdx, r8",
);
quick_check!(
    page_read, page_write,
    { displacement = const offset_of!(Quick, displacement), base = const offset_of!(Quick, base), },
    "movzx ecx, word ptr [rsi + {base}]",
    "mov rdx, [rbp + rcx]",
    "movsxd rax, dword ptr [rsi + {displacement}]",
    "and rdx, -4096",
    "add rdx, rax",
);
quick_check!(
    segment_read, segment_write,
    { displacement = const offset_of!(Quick, displacement), segment = const offset_of!(Quick, segment), },
    "movsxd rdx, dword ptr [rsi + {displacement}]",
    "movzx eax, word ptr [rsi + {segment}]",
    "add rdx, [rbp + rax]",
);
quick_check!(
    segment_base_read, segment_base_write,
    {
        displacement = const offset_of!(Quick, displacement),
        base = const offset_of!(Quick, base),
        segment = const offset_of!(Quick, segment),
    },
    "movsxd rdx, dword ptr [rsi + {displacement}]",
    "movzx eax, word ptr [rsi + {segment}]",
    "movzx ecx, word ptr [rsi + {base}]",
    "add rdx, [rbp + rax]",
    "add rdx, [rbp + rcx]",
);

/// What generated code calls.
pub static HOOKS: Hooks = Hooks {
    before_access: before_access_shim,
    before_quick,
    start: start_shim,
    step: step_shim,
    stop: checkpoint_shim,
    predict: predict_shim,
    memory: Some(on_memory),
    check_view: check_view_shim,
};

/// The check for a shape and a part.
fn before_quick(shape: Shape, part: Part) -> Hook {
    let (read, write): (Hook, Hook) = match shape {
        Shape::Base => (base_read, base_write),
        Shape::BaseIndex => (base_index_read, base_index_write),
        Shape::Index => (index_read, index_write),
        Shape::Page => (page_read, page_write),
        Shape::Segment => (segment_read, segment_write),
        Shape::SegmentBase => (segment_base_read, segment_base_write),
    };
    match part {
        Part::Read => read,
        Part::Write => write,
    }
}

/// The registers of a hook's vCPU.
#[inline(always)]
fn registers(state: *mut u8) -> View {
    // SAFETY: a shim hands on what QEMU's generated code keeps in RBP: the CPU state of the vCPU that runs in this thread.
    unsafe { View::new(state) }
}

extern "C" fn safe_before_access(vcpu: c_uint, recipe: *const Recipe, state: *mut u8) -> Verdict {
    // SAFETY: the recipe was registered with this callback and lives until QEMU flushes its blocks, which it does only while no
    // vCPU runs one.
    let recipe = unsafe { &*recipe };
    let view = registers(state);
    verdict(vcpu, trap::gate::before(vcpu, recipe, &view), &view)
}

/// The quick check did not say yes.
extern "C" fn safe_before_quick(vcpu: c_uint, recipe: *const QuickRecipe, state: *mut u8) -> Verdict {
    // SAFETY: as in `safe_before_access`.
    let quick = unsafe { &*recipe };
    let view = registers(state);
    verdict(vcpu, trap::gate::before(vcpu, &quick.recipe, &view), &view)
}

extern "C" fn safe_checkpoint(vcpu: c_uint, stop: *const StopPoint, state: *mut u8) -> Verdict {
    // SAFETY: as in `safe_before_access`.
    let stop = unsafe { &*stop };
    match trap::checkpoint::reached(vcpu, stop, &registers(state)) {
        Go::Run => std::ptr::null_mut(),
        Go::Leave => cpu_to_leave(vcpu),
    }
}

extern "C" fn safe_start(vcpu: c_uint, start: *const BlockStart, state: *mut u8) -> Verdict {
    // SAFETY: as in `safe_before_access`.
    let start = unsafe { &*start };
    let view = registers(state);
    verdict(vcpu, trap::fetch::before(vcpu, start, &view), &view)
}

extern "C" fn safe_step(vcpu: c_uint, fetch: *const Recipe, state: *mut u8) -> Verdict {
    // SAFETY: as in `safe_before_access`.
    let fetch = unsafe { &*fetch };
    let view = registers(state);
    verdict(vcpu, trap::step::before(vcpu, fetch, &view), &view)
}

extern "C" fn safe_predict(_: c_uint, subject: *const Subject, state: *mut u8) -> Verdict {
    // SAFETY: as in `safe_before_access`.
    trap::verify::predict(unsafe { &*subject }, &registers(state));
    std::ptr::null_mut()
}

/// With the block's stack pointer as fourth argument.
extern "C" fn safe_check_view(vcpu: c_uint, _: *mut c_void, state: *mut u8, stack: u64) -> Verdict {
    unwinding::met_block(stack);
    if let Some(hypervisor) = Hypervisor::get() {
        trap::proof::act_on(hypervisor, proof::check(vcpu, &registers(state)));
    }
    std::ptr::null_mut()
}

#[inline(always)]
fn verdict(vcpu: c_uint, go: Go, view: &View) -> Verdict {
    match go {
        Go::Run => std::ptr::null_mut(),
        Go::Leave => {
            trap::leave::block(vcpu, view);
            cpu_to_leave(vcpu)
        }
    }
}

#[cold]
fn cpu_to_leave(vcpu: c_uint) -> Verdict {
    internals::cpu_of(vcpu).map_or(std::ptr::null_mut(), |cpu| cpu.0)
}

/// Leaves the block; does not return. Its own frame is the only one that is jumped over, and owns nothing.
extern "C" fn leave_block(cpu: *mut c_void, return_address: usize) {
    // SAFETY: `cpu` is the vCPU of this thread, and the return address lies in the block that it runs.
    unsafe { internals::leave(cpu, return_address) }
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
    trap::verify::done(subject, vcpu, gla, size, if store { Rights::W } else { Rights::R });
}
