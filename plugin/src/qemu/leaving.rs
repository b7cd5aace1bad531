//! A vCPU that the kernel holds in a fault leaves its block: by a signal to its thread, whose handler goes back to the instruction as QEMU does
//! for a guest's exception there.
//!
//! A signal comes when it comes, maybe into a look-up of QEMU's or a device model, where it must do nothing. So the thread that signals
//! leaves a mark before: where the vCPU stands, by host program counter and stack pointer. The handler takes the mark, and goes on only
//! if the interrupted registers are those, this thread runs that vCPU, QEMU's big lock is free of it, and it is in no read-side section
//! of RCU beside that of running blocks, of which there is none while QEMU runs one instruction in an exclusive section. The mark is taken back before the vCPU is let go on: after that no signal leads anywhere, and one
//! that took the mark before finds the page still out.
//!
//! It leaves with interrupts inhibited for one instruction, as after `sti`: QEMU does what it has to do, and the vCPU comes back to the same
//! instruction without an interrupt's handler on the way.

#![allow(unsafe_code, reason = "a signal's handler that does not return; each block is argued")]

use super::capabilities::{LEAVING, symbol};
use super::internals::cpu_of;
use super::source::ViewCheck;
use super::unwinding::Place;
use super::view::{self, View};
use super::{current, fields, layout};
use crate::insn::cache::MOST_VCPUS;
use mem_event::mark::Mark;
use std::ffi::{c_int, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which real-time signal it is, counted from the first, unless the arguments say otherwise.
const SIGNAL: c_int = 7;
/// In `hflags`: no interrupt before the next instruction is over.
const INHIBIT_INTERRUPTS: u32 = 1 << 3;
/// Bytes from the start of QEMU's data on a thread's read-side sections of RCU to how many it is in (include/qemu/rcu.h, since 2.3).
const DEPTH: usize = 12;

type Leave = unsafe extern "C" fn(*mut c_void, usize) -> !;
type IsLocked = unsafe extern "C" fn() -> bool;
type Reader = unsafe extern "C" fn() -> *mut u8;

struct Functions {
    leave: Leave,
    is_locked: IsLocked,
    reader: Reader,
    signal: c_int,
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// What a vCPU's thread shares with those that tell it to leave.
struct Told {
    /// Where it stands: host program counter and stack pointer, the address by which QEMU finds the instruction, the vCPU, its CPU state, and in
    /// how many read-side sections it may be.
    mark: Mark,
    /// How often it left.
    left: AtomicU64,
}

static TOLD: [Told; MOST_VCPUS] = [const { Told { mark: Mark::new(), left: AtomicU64::new(0) } }; MOST_VCPUS];

/// Takes the signal; which one the arguments may say. Nothing where QEMU lacks what is needed.
///
/// # Errors
/// A sentence: the signal is none, or taken.
pub fn install(wanted: Option<c_int>) -> Result<(), String> {
    let range = libc::SIGRTMIN()..=libc::SIGRTMAX();
    let signal = wanted.unwrap_or(*range.start() + SIGNAL);
    if !range.contains(&signal) {
        return Err(format!("signal={signal}: a real-time signal, {} to {}", range.start(), range.end()));
    }
    let Some(functions) = functions(signal) else { return Ok(()) };
    // SAFETY: both are plain structures of which zeros are a value; the handler has the signature of SA_SIGINFO.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &raw mut before);
        if before.sa_sigaction != libc::SIG_DFL {
            return Err(format!("signal={signal}: this process uses that signal already; take another one"));
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        // The handler does not return where it leaves, so the signal must not be blocked meanwhile.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER | libc::SA_RESTART;
        libc::sigaction(signal, &raw const action, std::ptr::null_mut());
    }
    let _ = FUNCTIONS.set(functions);
    Ok(())
}

fn functions(signal: c_int) -> Option<Functions> {
    LEAVING.lacks().is_none().then_some(())?;
    let (leave, is_locked) = (symbol(c"cpu_loop_exit_restore")?, symbol(c"bql_locked")?);
    let reader = symbol(c"get_ptr_rcu_reader")?;
    // SAFETY: the first has had this signature since QEMU 2.5, the second since 8.2, and the third, which QEMU's coroutine-safe
    // variables have made (include/qemu/coroutine-tls.h), since 7.0.
    Some(unsafe {
        Functions {
            leave: std::mem::transmute::<*mut c_void, Leave>(leave),
            is_locked: std::mem::transmute::<*mut c_void, IsLocked>(is_locked),
            reader: std::mem::transmute::<*mut c_void, Reader>(reader),
            signal,
        }
    })
}

/// Whether vCPUs can be told to leave here.
pub fn is_there() -> bool {
    FUNCTIONS.get().is_some()
}

/// A vCPU's thread begins, and may be signalled from here on; in that thread.
pub fn begin(vcpu: u32) {
    let Some(functions) = FUNCTIONS.get().filter(|_| (vcpu as usize) < MOST_VCPUS) else { return };
    // QEMU starts its threads with all signals blocked.
    // SAFETY: the set is made here, and the mask is this thread's own.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, functions.signal);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// The state in place of a vCPU that stands; where none was compared with the API yet, because nothing is watched, it is where QEMU's table
/// of what it migrates says.
pub fn view_of(vcpu: u32) -> Option<View> {
    let by_table = || {
        let distance = fields::state_in_cpu().filter(|_| ViewCheck::now() != ViewCheck::Api)?;
        fields::find(distance as u64);
        // SAFETY: the state of a vCPU that stands, at the distance at which QEMU's own table has it.
        cpu_of(vcpu).map(|cpu| unsafe { View::new(cpu.0.cast::<u8>().add(distance)) })
    };
    view::view_of(vcpu).or_else(by_table)
}

/// Tells a vCPU to leave its block from where it stands, which must cost nothing there: nothing of its instruction has been done.
pub fn tell(vcpu: u32, thread: i32, place: &Place, view: &View) {
    let Some((functions, told)) = FUNCTIONS.get().zip(TOLD.get(vcpu as usize)) else { return };
    let Some(cpu) = cpu_of(vcpu) else { return };
    let [cpu, state] = [cpu.0.expose_provenance(), view.state().expose_provenance()].map(|address| address as u64);
    told.mark.set([place.counter, place.stack, place.address, cpu, state, place.sections.into()]);
    // SAFETY: signals a thread of this process; where it is gone nothing happens.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, functions.signal) };
}

/// The vCPU is about to be let go on: what it was told is void.
pub fn take_back(vcpu: u32) {
    if let Some(told) = TOLD.get(vcpu as usize) {
        told.mark.take_back();
    }
}

/// This thread's vCPU is about to leave its block from a callback: it comes back to its instruction without an interrupt's handler on the way.
/// Where its state in place is not proven, it leaves plainly.
pub fn without_interrupts(view: &View) {
    if ViewCheck::now() != ViewCheck::Proven || view.is_by_api() {
        return;
    }
    // SAFETY: the proven state of this thread's vCPU, in a callback; no other thread writes there while it runs.
    unsafe { inhibit_interrupts(view.state()) }
}

/// # Safety
/// It is a CPU state, and its vCPU's thread is the caller's.
unsafe fn inhibit_interrupts(state: *mut u8) {
    // SAFETY: by this function's contract; the field is within the state.
    unsafe {
        let flags = state.add(layout::HFLAGS.place()).cast::<u32>();
        flags.write(flags.read() | INHIBIT_INTERRUPTS);
    }
}

/// Whether the vCPU was told, and its thread has not heard of it yet. Asked before [`times`], that says whether it left.
pub fn is_pending(vcpu: u32) -> bool {
    TOLD.get(vcpu as usize).is_some_and(|told| told.mark.is_pending())
}

/// How often the vCPU left so.
pub fn times(vcpu: u32) -> u64 {
    TOLD.get(vcpu as usize).map_or(0, |told| told.left.load(Ordering::Relaxed))
}

/// How often vCPUs left so.
pub fn all_times() -> u64 {
    TOLD.iter().map(|told| told.left.load(Ordering::Relaxed)).sum()
}

/// Nothing but atomics, registers and three functions of QEMU's that read this thread's own variables.
extern "C" fn on_signal(_: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    let Some((own, current)) = current::own() else { return };
    let own = TOLD.get(*own.start() as usize..=*own.end() as usize).unwrap_or_default();
    let marked = own.iter().find_map(|told| Some((told, told.mark.take()?)));
    let Some((told, [counter, stack, address, cpu, state, sections])) = marked else { return };
    let [Ok(address), Ok(cpu), Ok(state)] = [address, cpu, state].map(usize::try_from) else {
        return told.mark.decided();
    };
    let Some(functions) = FUNCTIONS.get() else { return told.mark.decided() };
    let cpu = std::ptr::with_exposed_provenance_mut::<c_void>(cpu);
    // SAFETY: the kernel hands in the interrupted context; `current` is this thread's variable; the reader's data are QEMU's for this
    // thread. The mark names the very place where the thread was interrupted, in the middle of the fault that it stands in, so no lock
    // is held that the look-up of its block needs, and QEMU's functions on the way own nothing that a guest's exception there would
    // not leave behind as well. Of Rust there is no frame but this one, which owns nothing.
    unsafe {
        let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let is = |register: c_int, value: u64| {
            let found = usize::try_from(register).ok().and_then(|at| registers.get(at));
            found.is_some_and(|found| found.cast_unsigned() == value)
        };
        let is_there = is(libc::REG_RIP, counter) && is(libc::REG_RSP, stack) && *current == cpu;
        let depth = u64::from((functions.reader)().add(DEPTH).cast::<u32>().read());
        if !is_there || (functions.is_locked)() || depth != sections {
            return told.mark.decided();
        }
        inhibit_interrupts(std::ptr::with_exposed_provenance_mut(state));
        told.left.fetch_add(1, Ordering::Relaxed);
        told.mark.decided();
        (functions.leave)(cpu, address)
    }
}
