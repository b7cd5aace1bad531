//! What a vCPU's thread does out of any block: work that QEMU runs for the vCPU before it begins another one.
//!
//! Not at once in the thread that asks: a vCPU that translates holds its page's lock, and may stand in the kernel meanwhile until that
//! thread has its frame brought. And of a vCPU that is out of its block all registers stand in its CPU state, as they are.

use super::capabilities::symbol;
use super::current;
use super::internals::{Cpu, cpu_of};
use crate::insn::cache::MOST_VCPUS;
use std::ffi::c_void;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

type Work = unsafe extern "C" fn(*mut c_void, usize);
type Run = unsafe extern "C" fn(*mut c_void, Work, usize);
type OfCpu = unsafe extern "C" fn(*mut c_void);

/// How QEMU is asked to do work.
struct Runs {
    /// Beside the other vCPUs.
    beside: Run,
    /// While no other vCPU runs.
    safely: Option<Run>,
}

fn runs() -> Option<&'static Runs> {
    static RUNS: OnceLock<Option<Runs>> = OnceLock::new();
    // SAFETY: the names have had this signature since QEMU 2.8 (include/hw/core/cpu.h); `run_on_cpu_data` is a union of numbers and
    // pointers of one machine word.
    let run = |run| unsafe { std::mem::transmute::<*mut c_void, Run>(run) };
    RUNS.get_or_init(|| {
        let beside = run(symbol(c"async_run_on_cpu")?);
        Some(Runs { beside, safely: symbol(c"async_safe_run_on_cpu").map(run) })
    })
    .as_ref()
}

/// How much is to be done.
struct Tally {
    of_each: [AtomicU32; MOST_VCPUS],
    of_all: AtomicU32,
}

impl Tally {
    const fn new() -> Tally {
        Tally { of_each: [const { AtomicU32::new(0) }; MOST_VCPUS], of_all: AtomicU32::new(0) }
    }

    /// A vCPU has one thing more to do; says whether it can have any.
    fn adds(&self, vcpu: u32) -> bool {
        let Some(own) = self.of_each.get(vcpu as usize) else { return false };
        own.fetch_add(1, Ordering::AcqRel);
        self.of_all.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// It has so much less to do, at most: what an unplugged one had is forgotten.
    fn takes(&self, vcpu: u32, most: u32) {
        let Some(own) = self.of_each.get(vcpu as usize) else { return };
        let before = own.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| Some(count.saturating_sub(most)));
        self.of_all.fetch_sub(before.unwrap_or_default().min(most), Ordering::AcqRel);
    }
}

/// What vCPUs have yet to do before they begin another block.
static DUE: Tally = Tally::new();
/// What of that is to be done while no other vCPU runs: until all are out of their blocks nothing of it begins.
static SAFELY_DUE: Tally = Tally::new();

struct Due {
    /// Whose counter goes down afterwards; none for what may come later.
    vcpu: Option<u32>,
    /// No other vCPU runs meanwhile.
    is_safe: bool,
    work: Box<dyn FnOnce() + Send>,
}

/// Has a vCPU do something before it begins another block; it must not go on in the one that it stands in ([`is_due`]). From any thread, and
/// without waiting. Says whether QEMU can be asked. The work is done with QEMU's lock held.
pub fn before_next_block(vcpu: u32, work: impl FnOnce() + Send + 'static) -> bool {
    if !DUE.adds(vcpu) {
        return false;
    }
    let is_queued = queue(vcpu, Due { vcpu: Some(vcpu), is_safe: false, work: Box::new(work) });
    if !is_queued {
        DUE.takes(vcpu, 1);
    }
    is_queued
}

/// The same while no other vCPU runs, and without QEMU's lock. Who waits somewhere is to leave its block for that ([`all_are_wanted_out`]).
pub fn while_no_other_runs(vcpu: u32, work: impl FnOnce() + Send + 'static) -> bool {
    if runs().is_none_or(|runs| runs.safely.is_none()) || !DUE.adds(vcpu) {
        return false;
    }
    SAFELY_DUE.adds(vcpu);
    let is_queued = queue(vcpu, Due { vcpu: Some(vcpu), is_safe: true, work: Box::new(work) });
    if !is_queued {
        DUE.takes(vcpu, 1);
        SAFELY_DUE.takes(vcpu, 1);
    }
    is_queued
}

/// Whether something is to be done for which all vCPUs must be out of their blocks.
pub fn all_are_wanted_out() -> bool {
    SAFELY_DUE.of_all.load(Ordering::Acquire) != 0
}

/// The same of something for which the block in which it stands need not be left.
pub fn later(vcpu: u32, work: impl FnOnce() + Send + 'static) -> bool {
    queue(vcpu, Due { vcpu: None, is_safe: false, work: Box::new(work) })
}

fn queue(vcpu: u32, due: Due) -> bool {
    let Some((runs, Cpu(cpu))) = runs().zip(cpu_of(vcpu)) else { return false };
    let Some(run) = (if due.is_safe { runs.safely } else { Some(runs.beside) }) else { return false };
    let due = Box::into_raw(Box::new(due));
    // SAFETY: QEMU queues the work under its own lock, kicks the vCPU, and runs the work once, in its thread and out of any block.
    unsafe { run(cpu, do_work, due.expose_provenance()) }
    true
}

unsafe extern "C" fn do_work(_: *mut c_void, due: usize) {
    // SAFETY: `queue` made it for this call.
    let Due { vcpu, is_safe, work } = *unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut::<Due>(due)) };
    match vcpu.filter(|_| is_safe) {
        None => work(),
        Some(vcpu) => {
            SAFELY_DUE.takes(vcpu, 1);
            current::exclusively(vcpu, work);
        }
    }
    if let Some(vcpu) = vcpu {
        DUE.takes(vcpu, 1);
    }
}

/// Whether any vCPU has something to do before it begins another block.
pub fn anything_is_due() -> bool {
    DUE.of_all.load(Ordering::Acquire) != 0
}

/// Whether a vCPU has something to do first.
pub fn is_due(vcpu: u32) -> bool {
    DUE.of_each.get(vcpu as usize).is_some_and(|due| due.load(Ordering::Acquire) != 0)
}

/// A vCPU is gone, and QEMU runs no work of its any more. Its own queue held nothing that another vCPU has not to do too.
pub fn forget(vcpu: u32) {
    DUE.takes(vcpu, u32::MAX);
    SAFELY_DUE.takes(vcpu, u32::MAX);
}

/// Has a vCPU forget what it knows of addresses, where QEMU can be asked for that.
pub fn forget_addresses(vcpu: u32) {
    static FORGET: OnceLock<Option<OfCpu>> = OnceLock::new();
    let forget = *FORGET.get_or_init(|| {
        // SAFETY: the name has had this signature since QEMU 7 (include/exec/cputlb.h).
        symbol(c"tlb_flush").map(|forget| unsafe { std::mem::transmute::<*mut c_void, OfCpu>(forget) })
    });
    let Some(forget) = forget else { return };
    later(vcpu, move || {
        if let Some(Cpu(cpu)) = cpu_of(vcpu) {
            // SAFETY: in the thread of this vCPU, out of any block.
            unsafe { forget(cpu) }
        }
    });
}

struct Pausing {
    pause: OfCpu,
    resume: OfCpu,
    machine_runs: unsafe extern "C" fn() -> bool,
}

fn pausing() -> Option<&'static Pausing> {
    static PAUSING: OnceLock<Option<Pausing>> = OnceLock::new();
    PAUSING
        .get_or_init(|| {
            runs()?;
            let (pause, resume) = (symbol(c"cpu_pause")?, symbol(c"cpu_resume")?);
            let machine_runs = symbol(c"runstate_is_running")?;
            // SAFETY: they have had these signatures since QEMU 6 (include/hw/core/cpu.h, and runstate.h).
            Some(unsafe {
                Pausing {
                    pause: std::mem::transmute::<*mut c_void, OfCpu>(pause),
                    resume: std::mem::transmute::<*mut c_void, OfCpu>(resume),
                    machine_runs: std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> bool>(machine_runs),
                }
            })
        })
        .as_ref()
}

/// Whether vCPUs can be kept from running here.
pub fn can_pause() -> bool {
    pausing().is_some()
}

/// Has a vCPU sleep in QEMU's own place for one that is stopped, if it still is to when its work is done.
pub fn pause(vcpu: u32, is_wanted: impl FnOnce() -> bool + Send + 'static) {
    before_next_block(vcpu, move || {
        if let Some((pausing, Cpu(cpu))) = pausing().zip(cpu_of(vcpu)).filter(|_| is_wanted()) {
            // SAFETY: in the thread of this vCPU, which holds QEMU's lock: it only marks itself as stopped.
            unsafe { (pausing.pause)(cpu) }
        }
    });
}

/// Has a vCPU go on, unless it is to sleep again when its work is done. One that QEMU's monitor stopped stays so: that is another mark.
pub fn resume(vcpu: u32, is_wanted: impl FnOnce() -> bool + Send + 'static) {
    later(vcpu, move || {
        let Some((pausing, Cpu(cpu))) = pausing().zip(cpu_of(vcpu)).filter(|_| is_wanted()) else { return };
        // SAFETY: as in `pause`. While the machine is stopped, or about to be, it stays as it is: what starts the machine lets all go on.
        unsafe {
            if (pausing.machine_runs)() {
                (pausing.resume)(cpu);
            }
        }
    });
}
