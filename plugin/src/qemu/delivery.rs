//! What QEMU is about to deliver to a vCPU, an exception or an interrupt, told before it does.
//!
//! A vCPU's loop delivers by two of its processor's operations (`operations`). While somebody wants to be told, two functions of this file
//! stand in their place.
//!
//! A vCPU waits here outside of QEMU's lock, and leaves its loop with what is to be delivered written down: before it begins another block that is
//! its next exception again, and it comes back here. An interrupt is taken from its controller before it is told, as the vector is known only
//! then, and waits in the same place: a machine that is saved meanwhile has it.

use super::capabilities::{DELIVERIES, symbol};
use super::fields::Field;
use super::internals::cpu_of;
use super::raising::{self, Pending};
use super::view::View;
use super::{leaving, operations, outside};
use crate::insn::cache::MOST_VCPUS;
use mem_event::TrapKind;
use std::ffi::{c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// `CPU_INTERRUPT_HARD`, `_NMI`, `_VIRQ`, from QEMU 1 to 11.
const HARD: c_int = 0x2;
const NMI: c_int = 0x200;
const VIRTUAL: c_int = 0x100;
/// `EXCP_INTERRUPT`: the vCPU's loop is left, and nothing else.
const LEAVE: i32 = 0x10000;
const DEBUG_STATUS: usize = 6;
/// Of DR6: B0 to B3, and BS.
const BREAKPOINTS: u64 = 0xf;
const STEP: u64 = 1 << 14;
/// All that DR6 tells of causes: with BD.
const CAUSES: u64 = BREAKPOINTS | 1 << 13 | STEP;
const TRAP_FLAG: u64 = 1 << 8;

/// Debug exceptions are to be told.
pub const DEBUG: u8 = 1;
/// Each exception and interrupt is to be told.
pub const ALL: u8 = 2;

/// What is about to be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its vector.
    pub vector: u8,
    /// As what.
    pub kind: TrapKind,
    /// Its error code, 0 where there is none.
    pub error: u32,
    /// CR2, where it is a page fault.
    pub cr2: u64,
    /// What DR6 says of the causes of a debug exception.
    pub causes: u16,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The guest gets it.
    Deliver,
    /// It does not.
    Drop,
    /// The vCPU leaves its loop, and comes back with it.
    Leave,
}

/// Who is told, in the vCPU's own thread, out of any block and without QEMU's lock.
pub type Hear = fn(u32, &View, Delivery) -> Then;

type Deliver = unsafe extern "C" fn(*mut c_void);
type TakeInterrupt = unsafe extern "C" fn(*mut c_void, c_int) -> bool;

struct Functions {
    deliver: Deliver,
    take_interrupt: TakeInterrupt,
    leave: unsafe extern "C" fn(*mut c_void) -> !,
    pending: unsafe extern "C" fn(*mut c_void, c_int) -> c_int,
    withdraw: unsafe extern "C" fn(*mut c_void, c_int),
    vector: unsafe extern "C" fn(*mut c_void) -> c_int,
    interrupt: unsafe extern "C" fn(*mut c_void, c_int, c_int),
    is_locked: unsafe extern "C" fn() -> bool,
    lock: unsafe extern "C" fn(*const c_char, c_int),
    unlock: unsafe extern "C" fn(),
}

static HEAR: OnceLock<Hear> = OnceLock::new();
/// What is wanted of all vCPUs.
static WANTED: AtomicU8 = AtomicU8::new(0);
/// Of which vCPUs the next is wanted, a bit each.
static NEXT: [AtomicU64; MOST_VCPUS.div_ceil(64)] = [const { AtomicU64::new(0) }; MOST_VCPUS.div_ceil(64)];
/// What a vCPU has as its next exception is an interrupt, which its controller was told that it takes.
static IS_INTERRUPT: [AtomicBool; MOST_VCPUS] = [const { AtomicBool::new(false) }; MOST_VCPUS];

/// Who is told, from the start on.
pub fn listen(hear: Hear) {
    let _ = HEAR.set(hear);
}

/// Why deliveries cannot be told here, if so; once a vCPU is there.
pub fn lack() -> Option<String> {
    if there().is_some() {
        return None;
    }
    let unknown =
        || format!("this QEMU cannot {}: where its vCPUs have their operations is not found", DELIVERIES.what);
    Some(DELIVERIES.lack().unwrap_or_else(unknown))
}

/// What is wanted of all vCPUs from now on.
pub fn want(what: u8) {
    if WANTED.swap(what, Ordering::AcqRel) != what {
        takes_place();
    }
}

/// Whether the next exception or interrupt of a vCPU is wanted, from now on.
pub fn want_next(vcpu: u32, is_wanted: bool) {
    let Some(word) = NEXT.get(vcpu as usize / 64) else { return };
    let bit = 1 << (vcpu % 64);
    let before = if is_wanted { word.fetch_or(bit, Ordering::AcqRel) } else { word.fetch_and(!bit, Ordering::AcqRel) };
    if (before & bit != 0) != is_wanted {
        takes_place();
    }
}

/// Whether debug exceptions are wanted.
pub fn wants_debug() -> bool {
    WANTED.load(Ordering::Acquire) & DEBUG != 0
}

/// Whether the next exception or interrupt of a vCPU is wanted.
pub fn wants(vcpu: u32) -> bool {
    let word = NEXT.get(vcpu as usize / 64);
    WANTED.load(Ordering::Acquire) & ALL != 0
        || word.is_some_and(|word| word.load(Ordering::Acquire) >> (vcpu % 64) & 1 != 0)
}

/// The vCPU is gone, or another machine's: it has nothing that was to be delivered.
pub fn forget(vcpu: u32) {
    if let Some(is_interrupt) = IS_INTERRUPT.get(vcpu as usize) {
        is_interrupt.store(false, Ordering::Release);
    }
}

/// The functions of this file stand in the place of QEMU's, or those do, as is wanted.
fn takes_place() {
    static ONE: Mutex<()> = Mutex::new(());
    let Some(functions) = there() else { return };
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let is_wanted = WANTED.load(Ordering::Acquire) != 0 || NEXT.iter().any(|word| word.load(Ordering::Acquire) != 0);
    // Where it could not, it would not be there.
    let _ = functions.stand(is_wanted);
}

/// Where deliveries can be told; once a vCPU is there.
fn there() -> Option<&'static Functions> {
    static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
    if FUNCTIONS.get().is_none() && cpu_of(0).is_none() {
        return None;
    }
    FUNCTIONS.get_or_init(|| functions().filter(|functions| raising::can_raise() && functions.stand(false))).as_ref()
}

impl Functions {
    /// Those of this file stand in the place of QEMU's, or those do; says whether they could.
    fn stand(&self, is_wanted: bool) -> bool {
        let own = [self.deliver as *mut c_void, self.take_interrupt as *mut c_void];
        let here = [on_exception as *mut c_void, on_interrupt as *mut c_void];
        own.iter().zip(if is_wanted { here } else { own }).all(|(own, other)| operations::put(*own, other))
    }
}

fn functions() -> Option<Functions> {
    DELIVERIES.lacks().is_none().then_some(())?;
    // SAFETY: the names have had these signatures since QEMU 8.2 (target/i386/cpu.h, target/i386/tcg/helper-tcg.h, include/exec/cpu-common.h,
    // include/qemu/main-loop.h); most for much longer.
    unsafe {
        Some(Functions {
            deliver: std::mem::transmute::<*mut c_void, Deliver>(symbol(c"x86_cpu_do_interrupt")?),
            take_interrupt: std::mem::transmute::<*mut c_void, TakeInterrupt>(symbol(c"x86_cpu_exec_interrupt")?),
            leave: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> !>(symbol(
                c"cpu_loop_exit",
            )?),
            pending: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int) -> c_int>(symbol(
                c"x86_cpu_pending_interrupt",
            )?),
            withdraw: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int)>(symbol(
                c"cpu_reset_interrupt",
            )?),
            vector: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void) -> c_int>(symbol(
                c"cpu_get_pic_interrupt",
            )?),
            interrupt: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int, c_int)>(symbol(
                c"do_interrupt_x86_hardirq",
            )?),
            is_locked: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> bool>(symbol(c"bql_locked")?),
            lock: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char, c_int)>(symbol(
                c"bql_lock_impl",
            )?),
            unlock: std::mem::transmute::<*mut c_void, unsafe extern "C" fn()>(symbol(c"bql_unlock")?),
        })
    }
}

/// What a function of this file does in the end, when nothing of Rust's is left on the stack that would be jumped over.
enum End {
    /// What QEMU does.
    Own,
    /// An interrupt is delivered, by this CPU state and with this vector.
    Interrupt(*mut c_void, c_int),
    /// Nothing.
    Nothing,
    /// The vCPU's loop begins anew, with the exception that stands in its state.
    Again,
}

/// In the place of `x86_cpu_do_interrupt`.
unsafe extern "C" fn on_exception(cpu: *mut c_void) {
    let Some(functions) = there() else { return };
    let end = exception(functions, cpu);
    // SAFETY: as QEMU calls it itself, with its lock held, and the vCPU of this thread out of any block. What is jumped over where the delivery
    // faults, or the loop begins anew, is this frame, which owns nothing.
    unsafe {
        match end {
            End::Own => (functions.deliver)(cpu),
            End::Interrupt(state, vector) => (functions.interrupt)(state, vector, 1),
            End::Nothing => {}
            End::Again => (functions.leave)(cpu),
        }
    }
}

/// In the place of `x86_cpu_exec_interrupt`.
unsafe extern "C" fn on_interrupt(cpu: *mut c_void, request: c_int) -> bool {
    let Some(functions) = there() else { return false };
    let end = interrupt(functions, cpu, request);
    // SAFETY: as above.
    unsafe {
        match end {
            End::Own => (functions.take_interrupt)(cpu, request),
            End::Interrupt(state, vector) => {
                (functions.interrupt)(state, vector, 1);
                true
            }
            End::Nothing => false,
            End::Again => (functions.leave)(cpu),
        }
    }
}

/// The number of a vCPU.
fn number_of(cpu: *mut c_void) -> Option<u32> {
    (0..).map_while(|number| Some((number, cpu_of(number)?))).find(|(_, it)| it.0 == cpu).map(|(number, _)| number)
}

fn exception(functions: &Functions, cpu: *mut c_void) -> End {
    let Some(number) = number_of(cpu) else { return End::Own };
    let Some((hear, view)) = HEAR.get().zip(leaving::view_of(number)) else { return End::Own };
    let Some((pending, vector)) = view.pending(number).and_then(|it| Some((it, u8::try_from(it.number).ok()?))) else {
        return End::Own;
    };
    let is_interrupt = IS_INTERRUPT.get(number as usize).is_some_and(|it| it.load(Ordering::Acquire));
    let kind = match vector {
        _ if is_interrupt => TrapKind::Interrupt,
        _ if pending.is_instruction == 0 => TrapKind::Exception,
        3 | 4 => TrapKind::SoftwareException,
        _ => TrapKind::SoftwareInterrupt,
    };
    let has_error = kind == TrapKind::Exception && matches!(vector, 8 | 10..=14 | 17 | 21);
    let delivery = Delivery {
        vector,
        kind,
        error: if has_error { pending.error } else { 0 },
        cr2: if vector == 14 && kind == TrapKind::Exception { view.cr2() } else { 0 },
        causes: causes(&view),
    };
    let then =
        if view.runs_nested() { Then::Deliver } else { without_lock(functions, || hear(number, &view, delivery)) };
    match then {
        Then::Leave => {
            let is_queued = outside::before_next_block(number, move || {
                if let Some(view) = leaving::view_of(number) {
                    // A debug exception gives way to what was injected meanwhile; what is on its way to the guest does not, as in Xen.
                    let gives_way = vector == 1 && kind == TrapKind::Exception;
                    view.set_pending(number, pending, gives_way);
                }
            });
            if is_queued {
                view.set_pending(number, Pending { number: LEAVE, ..pending }, false);
                return End::Again;
            }
        }
        Then::Drop => return End::Nothing,
        Then::Deliver => {}
    }
    forget(number);
    if is_interrupt { End::Interrupt(view.state().cast(), c_int::from(vector)) } else { End::Own }
}

fn interrupt(functions: &Functions, cpu: *mut c_void, request: c_int) -> End {
    let Some(number) = number_of(cpu).filter(|number| wants(*number)) else { return End::Own };
    let Some((hear, view)) = HEAR.get().zip(leaving::view_of(number)) else { return End::Own };
    let Some(pending) = view.pending(number).filter(|_| !view.runs_nested()) else { return End::Own };
    // SAFETY: in the vCPU's own thread, with QEMU's lock held, as `x86_cpu_exec_interrupt` asks and takes itself.
    match unsafe { (functions.pending)(cpu, request) } {
        HARD => {
            // SAFETY: as above.
            let vector = unsafe {
                (functions.withdraw)(cpu, HARD | VIRTUAL);
                (functions.vector)(view.state().cast())
            };
            let Ok(short) = u8::try_from(vector) else { return End::Interrupt(view.state().cast(), vector) };
            if let Some(is_interrupt) = IS_INTERRUPT.get(number as usize) {
                is_interrupt.store(true, Ordering::Release);
            }
            let exception = Pending { number: short.into(), error: 0, is_instruction: 0, ..pending };
            view.set_pending(number, exception, false);
            End::Again
        }
        NMI => {
            let delivery = Delivery { vector: 2, kind: TrapKind::Nmi, error: 0, cr2: 0, causes: 0 };
            match without_lock(functions, || hear(number, &view, delivery)) {
                // It is asked for still, and comes back.
                Then::Leave => {
                    view.set_pending(number, Pending { number: LEAVE, ..pending }, false);
                    End::Again
                }
                Then::Deliver | Then::Drop => End::Own,
            }
        }
        _ => End::Own,
    }
}

/// What DR6 says of the causes of a debug exception that is about to be delivered. The guest may have left BS there from one before.
fn causes(view: &View) -> u16 {
    let status = view.field_of_several(Field::Debug, DEBUG_STATUS).unwrap_or(0) & CAUSES;
    let is_old = status & BREAKPOINTS != 0 && view.kept_flags() & TRAP_FLAG == 0;
    let [low, high, ..] = (if is_old { status & !STEP } else { status }).to_le_bytes();
    u16::from_le_bytes([low, high])
}

/// Does something without QEMU's lock, which this thread holds or not.
fn without_lock<T>(functions: &Functions, work: impl FnOnce() -> T) -> T {
    // SAFETY: none of QEMU's callers of the two functions holds anything over the call that the lock guards: the interrupts asked for are handed
    // in, and read again afterwards.
    unsafe {
        let is_locked = (functions.is_locked)();
        if is_locked {
            (functions.unlock)();
        }
        let done = work();
        if is_locked {
            (functions.lock)(c"mem-event".as_ptr(), 0);
        }
        done
    }
}
