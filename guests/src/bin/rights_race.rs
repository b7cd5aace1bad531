//! A page whose rights change while another vCPU uses it.
//!
//! Hardware: a processor keeps what it knows of EPT in its TLB until it is told to forget (INVEPT). After that no access passes
//! that the tables forbid, but one that was under way may still arrive until the processor has answered.
//!
//! Xen: `p2m_set_mem_access` changes the entry and flushes the EPT of all vCPUs' processors before the call returns: from its answer
//! on the new rights are in force.
//!
//! What this proves: a hypervisor in software must not lose an access between a vCPU's check and the access itself. The consumer takes
//! rights, has its answer, and from then on polls the page for changes; no vCPU may see what the consumer hides there while reads
//! are forbidden.
//!
//! Symbols: `COMMAND`, a page that vCPU 0 writes once: as long as the consumer answers that event without giving the right, the vCPU asks
//! again, and each time the consumer may change something. `RACED`, the page that the other vCPUs use: they read its first word, which
//! must be 0, and count in the word of their own number. `RUN`, a page of code that they run round after round, many times over without
//! leaving the page; each time it counts in the first word of `RUNS`. Checkpoint 1 comes before the others start.

#![no_std]
#![no_main]

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guest::{access, checkpoint, failure, println, skip, smp, verdict};

guest::pages!(
    /// What vCPU 0 asks by.
    COMMAND: 1
);
guest::pages!(
    /// What the others use.
    RACED: 1
);

guest::pages!(
    /// What the code counts in.
    RUNS: 1
);

global_asm!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    .global RUN
    .type RUN, @object
    RUN:
    mov ecx, 100
    1: lock inc qword ptr [RUNS]
    dec ecx
    jnz 1b
    xor eax, eax
    ret
    .balign 4096
    .size RUN, 4096
    .text
    "#
);

unsafe extern "C" {
    static RUN: u8;
}

static STOP: AtomicBool = AtomicBool::new(false);
static ROUNDS: AtomicU64 = AtomicU64::new(0);
/// What was read while reads were forbidden.
static SEEN: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    if !(2..=8).contains(&smp::vcpus()) {
        skip!("{} vCPUs; a race has 2 to 8", smp::vcpus());
    }
    checkpoint(1, COMMAND.address(), RACED.address(), 0);
    smp::start(race);
    access::write(COMMAND.address(), 1);
    STOP.store(true, Ordering::Release);
    smp::join();
    let seen = SEEN.load(Ordering::Acquire);
    if seen != 0 {
        failure!("a read saw {seen:#x} while reads were forbidden");
    }
    println!("{} rounds", ROUNDS.load(Ordering::Acquire));
    verdict::success();
}

fn race(vcpu: usize) {
    let own = RACED.address() + vcpu as u64 * 8;
    let run = (&raw const RUN).expose_provenance() as u64;
    let mut rounds = 0;
    while !STOP.load(Ordering::Acquire) {
        let found = access::read(RACED.address());
        if found != 0 {
            SEEN.store(found, Ordering::Release);
        }
        rounds += 1;
        access::write(own, rounds);
        access::call(run);
    }
    ROUNDS.fetch_add(rounds, Ordering::AcqRel);
}
