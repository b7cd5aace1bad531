//! An exception or interrupt that a vCPU, which is out of its block, gets before its next instruction.
//!
//! QEMU keeps the number of the next exception in its CPU state and looks at it before it begins a block, whoever wrote it. There is none, -1,
//! while a vCPU is out of its block, which is looked at before anything is written. Its error code, whether an instruction raised it and where that one
//! ends stand before the debug registers, in every QEMU from 2 to 11 (target/i386/cpu.h), and the table of what is migrated says where these are.

#![allow(unsafe_code, reason = "writes fields of QEMU's CPU state; the block is argued")]

use super::capabilities::symbol;
use super::fields::{self, Field};
use super::internals::{Cpu, cpu_of};
use super::layout;
use super::view::View;
use crate::insn::registers::Registers as _;
use mem_event::{Trap, TrapKind};
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// No exception.
const NONE: i32 = -1;
/// The vectors of the NMI and of page faults.
const NMI: u8 = 2;
const PAGE_FAULT: u8 = 14;
/// `CPU_INTERRUPT_NMI`, from QEMU 1 to 11.
const INTERRUPT_NMI: c_int = 0x200;
/// Bytes before the debug registers.
const ERROR_CODE: usize = 16;
const IS_INSTRUCTION: usize = 12;
const NEXT: usize = 8;

type Interrupt = unsafe extern "C" fn(*mut c_void, c_int);

/// Whether exceptions can be raised here.
pub fn can_raise() -> bool {
    places().is_some()
}

/// Bytes from a vCPU's start to whether it is halted, and to the number of its next exception.
fn halted_and_exception() -> Option<(usize, usize)> {
    static PLACES: OnceLock<Option<(usize, usize)>> = OnceLock::new();
    *PLACES.get_or_init(fields::halted_and_exception_in_cpu)
}

/// Bytes from a vCPU's start to whether it is halted.
pub(super) fn halted() -> Option<usize> {
    halted_and_exception().map(|(halted, _)| halted)
}

/// Bytes from a vCPU's start to the number of its next exception.
fn exception() -> Option<usize> {
    halted_and_exception().map(|(_, exception)| exception)
}

/// Whether a vCPU is halted, as far as that is known; from any thread.
pub fn is_halted(vcpu: u32) -> bool {
    let Some((halted, Cpu(cpu))) = halted().zip(cpu_of(vcpu)) else { return false };
    // SAFETY: a field of a vCPU, where QEMU's own table of what it migrates has it.
    unsafe { AtomicU32::from_ptr(cpu.cast::<u8>().add(halted).cast::<u32>()) }.load(Ordering::Relaxed) != 0
}

/// Whether it is known where the next exception stands.
pub fn is_known() -> bool {
    exception().is_some()
}

/// Whether a vCPU, which is out of its block, has an exception to be delivered; in its own thread.
pub fn is_raised(vcpu: u32) -> bool {
    let Some((number, Cpu(cpu))) = exception().zip(cpu_of(vcpu)) else { return false };
    // SAFETY: a field of a vCPU, where QEMU's own table of what it migrates has it, in the thread that writes it.
    unsafe { cpu.cast::<u8>().add(number).cast::<i32>().read() != NONE }
}

/// An exception as it stands in the CPU state of a vCPU that is out of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its vector, or another number of QEMU's; -1 for none.
    pub number: i32,
    /// Its error code.
    pub error: u32,
    /// 1 where an instruction raised it, else 0.
    pub is_instruction: i32,
    /// Where that instruction ends.
    pub next: u64,
}

/// As [`halted_and_exception`], and bytes from the start of the CPU state to the debug registers.
fn places() -> Option<((usize, usize), usize)> {
    halted_and_exception().zip(fields::place(Field::Debug).map(|(place, _)| place))
}

impl View {
    /// The exception that this vCPU, which is out of its block, is about to get, in its own thread; `None` where its place is not known.
    pub(super) fn pending(&self, vcpu: u32) -> Option<Pending> {
        let (((_, number), debug), Cpu(cpu)) = places().zip(cpu_of(vcpu))?;
        let state = self.state();
        if state.is_null() {
            return None;
        }
        // SAFETY: as in `raise`.
        unsafe {
            Some(Pending {
                number: cpu.cast::<u8>().add(number).cast::<i32>().read(),
                error: state.add(debug - ERROR_CODE).cast::<u32>().read(),
                is_instruction: state.add(debug - IS_INSTRUCTION).cast::<i32>().read(),
                next: state.add(debug - NEXT).cast::<u64>().read(),
            })
        }
    }

    /// Has this vCPU get that exception, in its own thread, in the place of one that it has, unless that one counts: `gives_way`.
    pub(super) fn set_pending(&self, vcpu: u32, pending: Pending, gives_way: bool) {
        let Some((((_, number), debug), Cpu(cpu))) = places().zip(cpu_of(vcpu)) else { return };
        let state = self.state();
        // SAFETY: as in `raise`.
        unsafe {
            let number = cpu.cast::<u8>().add(number).cast::<i32>();
            if state.is_null() || gives_way && number.read() != NONE {
                return;
            }
            state.add(debug - ERROR_CODE).cast::<u32>().write(pending.error);
            state.add(debug - IS_INSTRUCTION).cast::<i32>().write(pending.is_instruction);
            state.add(debug - NEXT).cast::<u64>().write(pending.next);
            number.write(pending.number);
        }
    }

    /// Has this vCPU, which is out of its block, get a trap before its next instruction, in its own thread; says whether it will.
    pub fn raise(&self, vcpu: u32, trap: Trap) -> bool {
        let Some((((halted, number), debug), Cpu(cpu))) = places().zip(cpu_of(vcpu)) else { return false };
        if trap.vector == NMI && trap.kind == TrapKind::Nmi {
            return interrupt(cpu);
        }
        let length = trap.kind.instruction_length();
        let state = self.state();
        let next = self.instruction_pointer().wrapping_add(length.into());
        // SAFETY: the state of a vCPU that is out of its block, in its own thread, at the places that QEMU's tables name; the three before
        // the debug registers are part of it.
        unsafe {
            let number = cpu.cast::<u8>().add(number).cast::<i32>();
            let is_instruction = state.add(debug - IS_INSTRUCTION).cast::<i32>();
            if number.read() != NONE || !(0..=1).contains(&is_instruction.read()) {
                return false;
            }
            if trap.vector == PAGE_FAULT {
                state.add(layout::control(2).place()).cast::<u64>().write(trap.cr2);
            }
            state.add(debug - ERROR_CODE).cast::<u32>().write(trap.error.unwrap_or(0));
            is_instruction.write(i32::from(length != 0));
            state.add(debug - NEXT).cast::<u64>().write(next);
            number.write(trap.vector.into());
            // One that waits for an interrupt has one now.
            cpu.cast::<u8>().add(halted).cast::<u32>().write(0);
        }
        true
    }
}

/// The NMI, as QEMU's own devices raise it: another one waits until the guest's handler is over.
fn interrupt(cpu: *mut c_void) -> bool {
    let Some(raise) = symbol(c"cpu_interrupt") else { return false };
    // SAFETY: the name has had this signature since QEMU 1.3 (include/hw/core/cpu.h); QEMU's lock is held by the work that calls this.
    unsafe { std::mem::transmute::<*mut c_void, Interrupt>(raise)(cpu, INTERRUPT_NMI) }
    true
}
