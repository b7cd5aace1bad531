//! Which vCPU a thread runs: its own, or of several the one that QEMU says it runs now.

use super::capabilities::symbol;
use super::internals::{Cpu, cpu_of};
use std::cell::Cell;
use std::ffi::c_void;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicPtr, Ordering};

/// Where QEMU says which vCPU a thread runs (`current_cpu`).
type Current = *mut *mut c_void;

thread_local! {
    /// The first and the last of this thread's vCPUs, which is one, or all of the machine's, and where QEMU says which one it runs, if it exports
    /// that. Touched in each such thread before any signal.
    static OWN: Cell<Option<(u32, u32, Option<Current>)>> = const { Cell::new(None) };
}

/// The same of the one thread that runs all vCPUs, where one does.
static OF_ALL: AtomicPtr<*mut c_void> = AtomicPtr::new(std::ptr::null_mut());

/// This thread runs that vCPU; says whether it runs another one too.
#[must_use = "vCPUs that wait for others in their thread are refused"]
pub fn begins(vcpu: u32) -> bool {
    let current = symbol(c"current_cpu").map(<*mut c_void>::cast);
    let (first, last, _) = OWN.get().unwrap_or((vcpu, vcpu, current));
    let (first, last) = (first.min(vcpu), last.max(vcpu));
    OWN.set(Some((first, last, current)));
    let runs_others = first != last;
    if runs_others {
        // Such a thread lives as long as the machine.
        OF_ALL.store(current.unwrap_or_default(), Ordering::Release);
    }
    runs_others
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

/// Whether this vCPU is the one that runs, or stands, where one thread runs all; from any thread.
pub fn is_of_all(vcpu: u32) -> bool {
    let current = OF_ALL.load(Ordering::Acquire);
    // SAFETY: a variable of a thread that lives as long as the machine: a word that this thread alone writes.
    let current = (!current.is_null()).then(|| unsafe { AtomicPtr::from_ptr(current) }.load(Ordering::Relaxed));
    current.is_some_and(|current| cpu_of(vcpu) == Some(Cpu(current)))
}
