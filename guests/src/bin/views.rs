//! Views: one vCPU may do what another may not, with the same frame and at the same time.
//!
//! Hardware: each processor has a pointer to the nested page tables that it goes by, so two of them may go by different ones. Switching is a
//! write of one word.
//!
//! Xen: altp2m. A domain has up to ten views, `HVMOP_altp2m_switch_p2m` has all vCPUs go by one, `VM_EVENT_FLAG_ALTERNATE_P2M` in a response the
//! vCPU that it answers. A vCPU whose view forbids an access makes an event, with the number of its view.
//!
//! What this proves: each vCPU is judged by its own view, nothing that its view allows makes an event or gets lost, and a switch by an answer is in
//! force when the vCPU goes on.
//!
//! | symbol | what |
//! |---|---|
//! | `RUN` | code that vCPU 1's view forbids to run |
//! | `SUMS` | its first word is added to by vCPU 0, whose view allows it; vCPU 1's allows reads alone |
//! | `NINE` | nine pages: of each some view forbids reads |
//! | `ONE`, `OTHER` | read by turns: view 0 forbids the second, view 1 the first |
//! | `ROUNDS` | how often; none unless the consumer says so here |
//!
//! Checkpoints: 1 at the start, arguments: vCPUs; 2 vCPU 1 has run `RUN`; 3 both are done with `SUMS`; 11 to 19 before the read of a page of `NINE`;
//! 4 before the turns; 5 after them. A guest that nobody watches does the same.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, smp, verdict};

guest::pages!(
    /// Added to by one, read by the other.
    SUMS: 1
);
guest::pages!(
    /// A page for each view.
    NINE: 9
);
guest::pages!(
    /// Read by turns with the next.
    ONE: 1
);
guest::pages!(
    /// Read by turns with the one before.
    OTHER: 1
);
guest::pages!(
    /// How many turns.
    ROUNDS: 1
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    .global RUN
    .type RUN, @object
    RUN:
        mov rax, rdi
        add rax, rsi
        shl rax, 1
        ret
    .balign 4096
    .size RUN, 4096
    .text
    "#,
);

unsafe extern "C" {
    safe fn RUN(first: u64, second: u64) -> u64;
}

/// How often vCPU 0 adds.
const ADDITIONS: u64 = 300;

/// How far vCPU 1 may go.
static STAGE: AtomicUsize = AtomicUsize::new(0);
/// How far it has gone.
static DONE: AtomicUsize = AtomicUsize::new(0);
/// What it has read last.
static LAST: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    smp::start(other);
    checkpoint(1, smp::vcpus() as u64, 0, 0);
    runs(0);
    advance(1);
    checkpoint(2, 0, 0, 0);
    sums();
    checkpoint(3, LAST.load(Ordering::Acquire), 0, 0);
    for number in 0..9 {
        checkpoint(11 + number, number, 0, 0);
        expect("a page", access::read(NINE.address() + number * PAGE_SIZE), 0);
    }
    checkpoint(4, 0, 0, 0);
    turns(access::read(ROUNDS.address()));
    smp::join();
    checkpoint(5, 0, 0, 0);
    verdict::success();
}

/// vCPU 1 goes on to a stage, and has come there when this returns.
fn advance(stage: usize) {
    STAGE.store(stage, Ordering::Release);
    if smp::vcpus() > 1 {
        smp::wait_for(&DONE, stage);
    }
}

fn other(_: usize) {
    smp::wait_for(&STAGE, 1);
    runs(1);
    DONE.store(1, Ordering::Release);
    smp::wait_for(&STAGE, 2);
    let mut last = 0;
    while last < ADDITIONS {
        let read = access::read(SUMS.address());
        if read < last || read > ADDITIONS {
            failure!("the sum was {last} and is {read}");
        }
        last = read;
    }
    LAST.store(last, Ordering::Release);
    DONE.store(2, Ordering::Release);
}

fn runs(vcpu: u64) {
    for number in 0..3 {
        expect("run", RUN(number, vcpu), (number + vcpu) << 1);
    }
}

/// One adds while the other reads.
fn sums() {
    STAGE.store(2, Ordering::Release);
    for number in 0..ADDITIONS {
        expect("a sum", access::add(SUMS.address(), 1), number);
    }
    advance(2);
}

fn turns(rounds: u64) {
    for number in 0..rounds {
        let at = number % 512 * 8;
        expect("one page", access::read(ONE.address() + at), 0);
        expect("the other page", access::read(OTHER.address() + at), 0);
    }
    println!("{rounds} rounds");
}

fn expect(what: &str, found: u64, expected: u64) {
    if found != expected {
        failure!("{what}: {found:#x} instead of {expected:#x}");
    }
}
