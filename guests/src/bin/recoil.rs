//! A hot function into which a consumer puts a breakpoint.
//!
//! Hardware: `int3` is fetched like any instruction. Where another byte stands when the hypervisor goes back, that one runs.
//!
//! Xen: a consumer puts 0xcc into a function. At the event it puts the old byte back and lets the vCPU step over it, and then writes 0xcc
//! again. The guest never sees its breakpoint. A breakpoint that is the guest's own, the consumer injects.
//!
//! What this proves: it works as often as the function is called, on several vCPUs, and the function does each time what it is there for.
//!
//! Symbols: `HOT`, a function at the begin of a page; `COUNT`, whose first word says how often it ran; `OWN`, a breakpoint of the guest's
//! own; `MORE`, whose first word is how often each vCPU calls the function (none, unless a consumer writes another number there).
//!
//! | checkpoint | what follows |
//! |---|---|
//! | 1 | the calls, on all vCPUs at once (argument: vCPUs) |
//! | 2 | the guest's own breakpoint, which its handler must see once |
//! | 3 | end (arguments: calls that the function counted, breakpoints that the handler saw) |

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest::idt::{self, Exception};
use guest::{access, checkpoint, failure, println, smp, verdict};

guest::pages!(
    /// How often the function ran.
    COUNT: 1
);
guest::pages!(
    /// How often each vCPU calls it.
    MORE: 1
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    function HOT
        nop
        lock inc qword ptr [COUNT]
        xor eax, eax
        ret
    done HOT
    .balign 4096
    function OWN
        int3
        xor eax, eax
        ret
    done OWN
    .balign 4096
    .text
    "#
);

unsafe extern "C" {
    safe fn HOT() -> u64;
    safe fn OWN() -> u64;
}

const BREAKPOINT: u64 = 3;

static BREAKPOINTS: AtomicU64 = AtomicU64::new(0);
/// Set when the vCPUs may begin.
static BEGUN: AtomicUsize = AtomicUsize::new(0);
/// How many others are done.
static DONE: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);

fn main() {
    idt::on_exception(met);
    access::write(COUNT.address(), 0);
    access::write(MORE.address(), 0);
    smp::start(others);
    let vcpus = smp::vcpus();
    checkpoint(1, vcpus as u64, 0, 0);
    BEGUN.store(1, Ordering::Release);
    calls();
    smp::wait_for(&DONE, vcpus - 1);
    let (counted, due) = (access::read(COUNT.address()), vcpus as u64 * access::read(MORE.address()));
    if counted != due {
        failure!("the function ran {counted} times, and was called {due} times");
    }
    check_breakpoints(0);
    checkpoint(2, 0, 0, 0);
    OWN();
    check_breakpoints(1);
    checkpoint(3, counted, BREAKPOINTS.load(Ordering::Relaxed), 0);
    smp::join();
    println!("the function did {counted} times what it is there for");
    verdict::success();
}

fn others(_: usize) {
    smp::wait_for(&BEGUN, 1);
    calls();
    DONE.fetch_add(1, Ordering::Release);
}

fn calls() {
    for _ in 0..access::read(MORE.address()) {
        HOT();
    }
}

fn check_breakpoints(due: u64) {
    let met = BREAKPOINTS.load(Ordering::Relaxed);
    if met != due {
        failure!("the guest met {met} breakpoints where {due} is its own");
    }
}

fn met(exception: Exception) -> Option<u64> {
    (exception.vector == BREAKPOINT).then(|| {
        BREAKPOINTS.fetch_add(1, Ordering::Relaxed);
        exception.rip
    })
}
