//! The other vCPUs: woken once, run one function, sleep again.
//!
//! A vCPU's number is its initial APIC id, which on QEMU is its index as long as the topology fills its levels, as a
//! plain `-smp N` does. So what an event calls vCPU 3 is what the guest calls 3, in every run.

use core::hint;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::{apic, boot, error, fwcfg};

/// As many vCPUs as there are stacks. APIC ids have 8 bits without x2APIC, so 255 would be the end anyway.
pub const MAX_VCPUS: usize = 128;

/// What secondary vCPUs run: a `fn(usize)`.
static WORK: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static VCPUS: AtomicUsize = AtomicUsize::new(0);
static ARRIVED: AtomicUsize = AtomicUsize::new(0);
static FINISHED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    static trampoline: u8;
    static trampoline_end: u8;
}

/// The number of vCPUs, this one included.
pub fn vcpus() -> usize {
    VCPUS.load(Ordering::Acquire)
}

/// Asks how many vCPUs there are, at the start and where some may have been plugged in since. Before others are started: the device that
/// knows has a selector, which two vCPUs must not use at a time.
pub fn count() {
    VCPUS.store(fwcfg::vcpus(), Ordering::Release);
}

/// Wakes all other vCPUs to run `work` with their number, and returns when each of them has begun. Again only where none of those that
/// were woken before is still there.
///
/// If one does not come up this waits forever; a deadline is the harness's business.
pub fn start(work: fn(usize)) {
    let others = vcpus() - 1;
    if others >= MAX_VCPUS {
        error!("{} vCPUs, and stacks for {MAX_VCPUS}", others + 1);
    }
    WORK.store(work as *mut (), Ordering::Release);
    ARRIVED.store(0, Ordering::Release);
    FINISHED.store(0, Ordering::Release);
    copy_trampoline();
    if others > 0 {
        apic::start_others(boot::TRAMPOLINE);
    }
    wait_for(&ARRIVED, others);
}

/// Waits until every other vCPU has returned from its work; what they wrote before is visible then.
pub fn join() {
    wait_for(&FINISHED, vcpus() - 1);
}

/// Spins until `counter` reaches `value`. What others did before they counted is visible after.
pub fn wait_for(counter: &AtomicUsize, value: usize) {
    while counter.load(Ordering::Acquire) < value {
        hint::spin_loop();
    }
}

/// The life of a secondary vCPU, from its first Rust on.
pub(crate) fn secondary(vcpu: usize) -> ! {
    if vcpu >= vcpus() {
        error!("vCPU with APIC id {vcpu}, and only {} vCPUs: use a topology that fills its levels", vcpus());
    }
    ARRIVED.fetch_add(1, Ordering::Release);
    // SAFETY: `start` stored a `fn(usize)` before it woke this vCPU.
    let work = unsafe { core::mem::transmute::<*mut (), fn(usize)>(WORK.load(Ordering::Acquire)) };
    work(vcpu);
    FINISHED.fetch_add(1, Ordering::Release);
    crate::idt::halt()
}

fn copy_trampoline() {
    let from = &raw const trampoline;
    let bytes = (&raw const trampoline_end).addr() - from.addr();
    let to = usize::try_from(boot::TRAMPOLINE).expect("addresses fit");
    // SAFETY: the boot code lies between its two labels; low memory at TRAMPOLINE is RAM that nobody uses any more.
    unsafe { ptr::copy_nonoverlapping(from, ptr::with_exposed_provenance_mut(to), bytes) };
}
