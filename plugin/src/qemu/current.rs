//! Which vCPU a thread runs: its own, or of several the one that QEMU says it runs now.

use super::capabilities::symbol;
use super::internals::{Cpu, cpu_of};
use std::cell::Cell;
use std::ffi::c_void;
use std::ops::RangeInclusive;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Where QEMU says which vCPU a thread runs (`current_cpu`).
type Current = *mut *mut c_void;

thread_local! {
    /// The first and the last of this thread's vCPUs, which is one, or all of the machine's, and where QEMU says which one it runs, if it exports
    /// that. Touched in each such thread before any signal.
    static OWN: Cell<Option<(u32, u32, Option<Current>)>> = const { Cell::new(None) };
}

/// Whether one thread runs all vCPUs.
static SHARES: AtomicBool = AtomicBool::new(false);
/// Where QEMU says which one that thread runs.
static OF_ALL: AtomicPtr<*mut c_void> = AtomicPtr::new(std::ptr::null_mut());

/// This thread runs that vCPU.
pub fn begins(vcpu: u32) {
    let current = symbol(c"current_cpu").map(<*mut c_void>::cast);
    let (first, last, _) = OWN.get().unwrap_or((vcpu, vcpu, current));
    let (first, last) = (first.min(vcpu), last.max(vcpu));
    OWN.set(Some((first, last, current)));
    if first != last {
        // Such a thread lives as long as the machine.
        OF_ALL.store(current.unwrap_or_default(), Ordering::Release);
        SHARES.store(true, Ordering::Release);
    }
}

/// The vCPUs of this thread, and where QEMU says which one it runs. In a signal's handler too.
pub(super) fn own() -> Option<(RangeInclusive<u32>, Current)> {
    let (first, last, current) = OWN.get()?;
    Some((first..=last, current?))
}

/// The vCPU that this thread runs: the translation callback of API 4 does not say.
pub fn vcpu() -> u32 {
    match OWN.get() {
        Some((first, last, _)) if first != last => (first..=last).find(|vcpu| is_of_all(*vcpu)).unwrap_or(last),
        own => own.map_or(0, |(vcpu, ..)| vcpu),
    }
}

/// Whether one thread runs all vCPUs, by turns.
pub fn runs_all() -> bool {
    SHARES.load(Ordering::Acquire)
}

/// Whether this vCPU may be in a block: by its own thread, or as the one whose turn it is. From any thread.
pub fn may_run(vcpu: u32) -> bool {
    !runs_all() || is_of_all(vcpu)
}

type Exclusively = unsafe extern "C" fn();

/// QEMU's ways into an exclusive section, and out of it.
fn sections() -> Option<(Exclusively, Exclusively)> {
    static SECTIONS: OnceLock<Option<(Exclusively, Exclusively)>> = OnceLock::new();
    *SECTIONS.get_or_init(|| {
        let [start, end] = [symbol(c"start_exclusive")?, symbol(c"end_exclusive")?];
        // SAFETY: the names have had this signature since QEMU 2.8 (include/exec/cpu-common.h).
        Some(unsafe {
            (
                std::mem::transmute::<*mut c_void, Exclusively>(start),
                std::mem::transmute::<*mut c_void, Exclusively>(end),
            )
        })
    })
}

/// Work of a vCPU, in an exclusive section of QEMU's. QEMU counts sections by the vCPU that its variable names. Where one thread runs all, that is the
/// one that it ran last, and this one's own step would wait for the end of that one's section.
pub(super) fn exclusively(vcpu: u32, work: impl FnOnce()) {
    let own = own().zip(cpu_of(vcpu)).zip(sections()).filter(|_| runs_all());
    let Some((((_, current), Cpu(cpu)), (start, end))) = own else { return work() };
    // SAFETY: in the one thread that runs vCPUs, out of any block and in an exclusive section: so is no other vCPU, and none waits for one. The
    // variable is this thread's, and is as it was when QEMU looks at it.
    unsafe {
        let before = current.read();
        end();
        current.write(cpu);
        start();
        work();
        end();
        current.write(before);
        start();
    }
}

/// Whether this vCPU is the one that runs, or stands, where one thread runs all; from any thread.
pub fn is_of_all(vcpu: u32) -> bool {
    let current = OF_ALL.load(Ordering::Acquire);
    // SAFETY: a variable of a thread that lives as long as the machine: a word that this thread alone writes.
    let current = (!current.is_null()).then(|| unsafe { AtomicPtr::from_ptr(current) }.load(Ordering::Relaxed));
    current.is_some_and(|current| cpu_of(vcpu) == Some(Cpu(current)))
}
