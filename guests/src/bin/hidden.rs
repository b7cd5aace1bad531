//! Hidden breakpoints: code that is other code for a processor that executes it, and itself for one that reads it.
//!
//! Hardware: nested page tables lead from a frame's number to memory. A hypervisor that leads one number to two memories, by two tables, has a
//! processor execute what it does not read.
//!
//! Xen: altp2m's `change_gfn`. DRAKVUF makes its breakpoints so: a copy of the page with 0xCC in it, at a frame beyond the guest's RAM, shown in a view
//! that lets it be executed alone. Who reads the page violates that, and reads in another view. So a kernel that verifies its own code finds it whole.
//!
//! What this proves: the guest's code is what it is when it reads it, always, while each execution comes to the breakpoint; and the function does
//! what it did.
//!
//! | symbol | what |
//! |---|---|
//! | `HIDDEN` | code that is read and executed: eight times `nop`, then a sum that is doubled |
//! | `SHOWN` | data that a view may show elsewhere: read, written, added to, copied |
//! | `ROUNDS` | how often vCPU 0 executes, how often vCPU 1 reads meanwhile, what is added to the sum: 3, 0 and 0 unless the consumer says so here; then how many breakpoints the guest got, which are delivered to it where an answer says so |
//!
//! Checkpoints: 1 at the start, arguments: vCPUs; 2 after the rounds, arguments: how often vCPU 1 read; 3 before `SHOWN` is used; 4 behind it,
//! arguments: what was read of its words. A guest that nobody watches does the same.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest::idt::{self, Exception};
use guest::{access, checkpoint, failure, println, smp, verdict};

guest::pages!(
    /// Data that a view may show elsewhere.
    SHOWN: 1
);
guest::pages!(
    /// How many rounds.
    ROUNDS: 1
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    .global HIDDEN
    .type HIDDEN, @object
    HIDDEN:
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        nop
        mov rax, rdi
        add rax, rsi
        shl rax, 1
        ret
    .balign 4096
    .size HIDDEN, 4096
    .text
    "#,
);

unsafe extern "C" {
    safe fn HIDDEN(first: u64, second: u64) -> u64;
}

/// Eight times `nop`.
const CODE: u64 = 0x9090_9090_9090_9090;

/// How often vCPU 1 is to read.
static READS: AtomicU64 = AtomicU64::new(0);
/// How often it has.
static READ: AtomicU64 = AtomicU64::new(0);
/// Whether it may begin.
static STAGE: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);

fn main() {
    idt::on_exception(breaks);
    smp::start(other);
    checkpoint(1, smp::vcpus() as u64, 0, 0);
    READS.store(access::read(ROUNDS.address() + 8), Ordering::Release);
    STAGE.store(1, Ordering::Release);
    executes(access::read(ROUNDS.address()));
    smp::join();
    checkpoint(2, READ.load(Ordering::Acquire), 0, 0);
    data();
    verdict::success();
}

/// Its own code has none; behind one that it is given it goes on.
fn breaks(exception: Exception) -> Option<u64> {
    const BREAKPOINT: u64 = 3;
    let behind = (HIDDEN as *const () as u64) + 1;
    (exception.vector == BREAKPOINT && exception.rip == behind).then(|| {
        access::add(ROUNDS.address() + 24, 1);
        behind
    })
}

fn other(_: usize) {
    smp::wait_for(&STAGE, 1);
    for number in 0..READS.load(Ordering::Acquire) {
        reads();
        READ.store(number + 1, Ordering::Release);
    }
}

/// The code at the beginning of the function, read as anything else is.
fn reads() {
    let address = HIDDEN as *const () as u64;
    expect("the code that is read", access::read(address), CODE);
}

/// At least three times, and as long as vCPU 1 reads.
fn executes(rounds: u64) {
    let reads_all = READS.load(Ordering::Acquire);
    let more = access::read(ROUNDS.address() + 16);
    let mut number = 0;
    while number < rounds.max(3) || smp::vcpus() > 1 && READ.load(Ordering::Acquire) < reads_all {
        if number < 3 {
            reads();
        }
        expect("the function", HIDDEN(number, 7), (number + 7 + more) << 1);
        number += 1;
    }
    println!("{number} rounds");
}

/// Reads, writes, what reads and writes, and a copy within a page that may be another one's.
fn data() {
    let at = |word: u64| SHOWN.address() + 8 * word;
    checkpoint(3, 0, 0, 0);
    let first = access::read(at(0));
    access::write(at(1), first + 1);
    let sum = access::add(at(1), 5);
    access::write(at(2), sum);
    let (summed, copied) = (access::read(at(1)), access::read(at(2)));
    expect("what was written", summed, first + 6);
    expect("what was copied", copied, first + 1);
    checkpoint(4, first, summed, copied);
}

fn expect(what: &str, found: u64, expected: u64) {
    if found != expected {
        failure!("{what}: {found:#x} instead of {expected:#x}");
    }
}
