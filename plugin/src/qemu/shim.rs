//! The few instructions between QEMU's generated code and Rust.
//!
//! On x86-64 hosts TCG keeps the CPU state's address in RBP while a block runs (`TCG_AREG0`), and a callback is called
//! straight from the block. A naked function hands RBP on before any Rust prologue can change it. It also is the place to
//! leave a block from: the Rust function has returned, so no Rust frame is jumped over.

use super::leave;
use super::view::View;
use crate::gate::QuickRecipe;
use crate::recipe::Recipe;
use std::arch::naked_asm;
use std::ffi::{c_uint, c_void};

/// What a Rust callback tells its shim: null to run the instruction, a CPU state to leave its block.
type Verdict = *mut c_void;

macro_rules! shim {
    ($(#[$doc:meta])* $name:ident => $target:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// Called by QEMU's generated code alone.
        #[unsafe(naked)]
        pub(super) unsafe extern "C" fn $name(vcpu: c_uint, data: *mut c_void) {
            // The stack is 8 off a multiple of 16 on entry, as after any call; `sub` makes it right for the next. A block is
            // left with the return address into it, by which QEMU finds the instruction to come back to.
            naked_asm!(
                "mov rdx, rbp",
                "sub rsp, 8",
                "call {target}",
                "add rsp, 8",
                "test rax, rax",
                "jnz 2f",
                "ret",
                "2:",
                "mov rdi, rax",
                "mov rsi, [rsp]",
                "sub rsp, 8",
                "call {leave}",
                "ud2",
                target = sym $target,
                leave = sym leave_block,
            )
        }
    };
}

shim!(
    /// Before an instruction that touches memory; `data` is its recipe.
    before_access => safe_before_access
);
shim!(
    /// Before an instruction with one plain memory operand; `data` is its quick recipe.
    before_quick => safe_before_quick
);
shim!(
    /// Before a checkpoint.
    checkpoint => safe_checkpoint
);
shim!(
    /// At the start of a block, while the direct view is not proven yet.
    check_view => safe_check_view
);

extern "C" fn safe_before_access(vcpu: c_uint, recipe: *const Recipe, state: *mut u8) -> Verdict {
    // SAFETY: the recipe was registered with this callback and lives until QEMU flushes its blocks, which it does only while no
    // vCPU runs one.
    let recipe = unsafe { &*recipe };
    verdict(vcpu, crate::gate::before(vcpu, recipe, &View::new(state)))
}

extern "C" fn safe_before_quick(vcpu: c_uint, recipe: *const QuickRecipe, state: *mut u8) -> Verdict {
    // SAFETY: as in `safe_before_access`.
    let recipe = unsafe { &*recipe };
    verdict(vcpu, crate::gate::before_quick(vcpu, recipe, &View::new(state)))
}

extern "C" fn safe_checkpoint(vcpu: c_uint, _: *mut c_void, state: *mut u8) -> Verdict {
    verdict(vcpu, crate::checkpoint::reached(vcpu, &View::new(state)))
}

extern "C" fn safe_check_view(vcpu: c_uint, _: *mut c_void, state: *mut u8) -> Verdict {
    super::view::check(vcpu, &View::new(state));
    std::ptr::null_mut()
}

#[inline(always)]
fn verdict(vcpu: c_uint, go: crate::park::Go) -> Verdict {
    match go {
        crate::park::Go::Run => std::ptr::null_mut(),
        crate::park::Go::Leave => cpu_to_leave(vcpu),
    }
}

#[cold]
fn cpu_to_leave(vcpu: c_uint) -> Verdict {
    leave::cpu_of(vcpu).map_or(std::ptr::null_mut(), |cpu| cpu.0)
}

/// Leaves the block; does not return. Its own frame is the only one that is jumped over, and owns nothing.
extern "C" fn leave_block(cpu: *mut c_void, return_address: usize) {
    if let Some(leave) = leave::leave_function() {
        // SAFETY: `cpu` is the vCPU of this thread, and the return address lies in the block that it runs.
        unsafe { leave(cpu, return_address) }
    }
}
