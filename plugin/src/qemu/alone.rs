//! One instruction of a vCPU, run by QEMU itself while no other vCPU runs.
//!
//! QEMU has the means for instructions that it cannot make atomic otherwise (`cpu_exec_step_atomic`): a block of one instruction, in an exclusive
//! section. It may return without having run anything: the block begins with QEMU's exit check, and a request that comes in
//! between ends it there. A guest's exception that the instruction raises is noted, and delivered when the vCPU goes on.

#![allow(unsafe_code, reason = "functions of QEMU's, one of which runs guest code")]

use super::capabilities::{ALONE, symbol};
use super::internals::{Cpu, counts_instructions, cpu_of};
use super::view::View;
use super::{raising, request};
use std::ffi::c_void;
use std::sync::OnceLock;

type Step = unsafe extern "C" fn(*mut c_void);
type IsStopped = unsafe extern "C" fn(*mut c_void) -> bool;

struct Functions {
    step: Step,
    is_stopped: IsStopped,
}

fn functions() -> Option<&'static Functions> {
    static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
    FUNCTIONS
        .get_or_init(|| {
            ALONE.lacks().is_none().then_some(())?;
            // Where instructions are counted QEMU has none left for a vCPU outside of its loop.
            (raising::is_known() && !counts_instructions()).then_some(())?;
            let (step, is_stopped) = (symbol(c"cpu_exec_step_atomic")?, symbol(c"cpu_is_stopped")?);
            // SAFETY: the names have had these signatures since QEMU 2.8 (include/exec/cpu-common.h, include/hw/core/cpu.h).
            Some(unsafe {
                Functions {
                    step: std::mem::transmute::<*mut c_void, Step>(step),
                    is_stopped: std::mem::transmute::<*mut c_void, IsStopped>(is_stopped),
                }
            })
        })
        .as_ref()
}

/// Whether instructions can be run alone here.
pub fn is_there() -> bool {
    functions().is_some()
}

/// Runs a vCPU's next instruction, or nothing. In work that QEMU runs in this vCPU's thread while no other vCPU runs
/// ([`super::outside::while_no_other_runs`]).
pub fn one_instruction(vcpu: u32, view: &View) {
    let Some((functions, Cpu(cpu))) = functions().zip(cpu_of(vcpu)) else { return };
    request::forget(view);
    // SAFETY: this is the thread of this vCPU, which it runs (`while_no_other_runs`), out of any block, in an exclusive section, as QEMU's own caller
    // of the function is. What the function jumps over where the instruction raises an exception are frames of generated code and of QEMU's
    // helpers: callbacks of this plugin have returned by then.
    unsafe { (functions.step)(cpu) }
}

/// Whether the machine or the vCPU is stopped, or about to be reset: QEMU does a vCPU's work then too, but it is to run nothing. In its own
/// thread, and so until its work is done.
pub fn is_stopped(vcpu: u32) -> bool {
    let Some((functions, Cpu(cpu))) = functions().zip(cpu_of(vcpu)) else { return true };
    // SAFETY: it only looks at two variables.
    unsafe { (functions.is_stopped)(cpu) }
}
