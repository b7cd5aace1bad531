//! Instructions that are let through once, alone: of every kind, over page ends, repeated, with other content, and beside a second vCPU.
//!
//! Hardware: a violation leaves the guest before its instruction. A hypervisor that is to let this one access through and stop the next has its
//! emulator do the instruction, by which no right changes for anybody.
//!
//! Xen: `VM_EVENT_FLAG_EMULATE` in a response (`hvm_emulate_one_vm_event`); with `SET_EMUL_READ_DATA` the instruction reads what the response
//! says, with `SET_EMUL_INSN_DATA` it is another one, with `EMULATE_NOWRITE` what it writes goes nowhere.
//!
//! What this proves: each instruction runs once and whole, its next access makes its event again, memory holds what it wrote, and nobody else sees
//! the content that was its alone.
//!
//! | symbol | what |
//! |---|---|
//! | `WATCHED` | two pages side by side, no right to which: let through |
//! | `COPIED` | two pages side by side into which the first two are copied: let through |
//! | `READS` | its word is 0x1111; vCPU 0 reads what the consumer says, vCPU 1 what memory holds |
//! | `MIXED` | read with that content by instructions that write as well: what they wrote stays, and what they read is as it was |
//! | `KEPT` | what is written here is to go nowhere |
//! | `CODED` | a read of this page is to be another instruction, which returns its address: `mov rax, rdi` |
//! | `RUN` | code that may not run |
//! | `READINGS` | how often each vCPU reads `READS`: 200 times unless the consumer says here how often |
//!
//! Checkpoints: 1 before the kinds, with addresses; 2 before the copy; 3 before the contents, argument: vCPUs; 4: end, with everything open. A guest
//! whose consumer does nothing of that succeeds as well: it accepts both, but no mixture.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use guest::page::PAGE_SIZE;
use guest::{access, checkpoint, failure, println, smp, verdict};

guest::pages!(
    /// Let through.
    WATCHED: 2
);
guest::pages!(
    /// Let through, as the destination.
    COPIED: 2
);
guest::pages!(
    /// Read with other content.
    READS: 1
);
guest::pages!(
    /// Read with other content by what writes too.
    MIXED: 1
);
guest::pages!(
    /// Written in vain.
    KEPT: 1
);
guest::pages!(
    /// Read by another instruction.
    CODED: 1
);
guest::pages!(
    /// How often what is other content is read.
    READINGS: 1
);

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    # Each takes an address and a value, and returns what became of both.
    function do_exchange
        xchg [rdi], rsi
        mov rax, rsi
        ret
    done do_exchange
    function do_compare
        mov rax, rsi
        lea rdx, [rsi + 1]
        lock cmpxchg [rdi], rdx
        ret
    done do_compare
    function do_shift
        ror qword ptr [rdi], 8
        mov rax, [rdi]
        ret
    done do_shift
    function do_stack
        mov rax, rsp
        lea rsp, [rdi + 8]
        push rsi
        pop rdx
        mov rsp, rax
        mov rax, rdx
        ret
    done do_stack
    function do_call
        mov rdx, rsp
        lea rsp, [rdi + 8]
        call 2f
    2:  pop rax
        mov rsp, rdx
        lea rcx, [rip + 2b]
        sub rax, rcx
        add rax, rsi
        ret
    done do_call
    function do_vector
        movups xmm0, [rdi]
        paddq xmm0, xmm0
        movups [rdi], xmm0
        mov rax, [rdi]
        ret
    done do_vector
    function do_copy
        mov rcx, rdx
        rep movsb
        ret
    done do_copy
    function do_move
        movsq
        ret
    done do_move
    function do_scan
        mov eax, 0x5a
        mov rcx, rsi
        repne scasb
        mov rax, rcx
        ret
    done do_scan
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
    safe fn do_exchange(address: u64, value: u64) -> u64;
    safe fn do_compare(address: u64, value: u64) -> u64;
    safe fn do_shift(address: u64, value: u64) -> u64;
    safe fn do_stack(address: u64, value: u64) -> u64;
    safe fn do_call(address: u64, value: u64) -> u64;
    safe fn do_vector(address: u64, value: u64) -> u64;
    safe fn do_copy(to: u64, from: u64, bytes: u64);
    safe fn do_move(to: u64, from: u64);
    safe fn do_scan(address: u64, bytes: u64) -> u64;
    safe fn RUN(first: u64, second: u64) -> u64;
}

/// What memory holds at `READS`.
const HELD: u64 = 0x1111;
/// What the consumer has its instruction read.
const TOLD: u64 = 0x7777;
/// How often each vCPU reads it where nobody says.
const USUAL: u64 = 200;

/// How often each vCPU is to read it.
static HOW_OFTEN: AtomicU64 = AtomicU64::new(USUAL);
/// What vCPU 1 has read that was not there.
static WRONG: AtomicUsize = AtomicUsize::new(0);
/// 1 when both may read.
static GATE: AtomicUsize = AtomicUsize::new(0);

guest::main!(main);

fn main() {
    let (watched, vcpus) = (WATCHED.address(), smp::vcpus());
    smp::start(reads_what_is_there);
    checkpoint(1, watched, WATCHED.bytes(), 0);
    // In a page, over its end, and in the next one.
    for at in [watched + 0x10, watched + PAGE_SIZE - 3, watched + PAGE_SIZE + 0x20] {
        kinds(at);
    }
    checkpoint(2, watched, COPIED.address(), 0);
    copies(watched);
    access::write(READS.address(), HELD);
    access::write(MIXED.address(), HELD);
    access::write(MIXED.address() + FROM, HELD);
    access::write(KEPT.address(), HELD);
    access::write(CODED.address(), HELD);
    checkpoint(3, vcpus as u64, 0, 0);
    let readings = match access::read(READINGS.address()) {
        0 => USUAL,
        said => said,
    };
    HOW_OFTEN.store(readings, Ordering::Release);
    GATE.store(1, Ordering::Release);
    let told = (0..readings).map(|_| access::read(READS.address())).filter(|read| *read == TOLD).count() as u64;
    let held = contents();
    let added = access::add(MIXED.address(), 5);
    do_move(MIXED.address() + TO, MIXED.address() + FROM);
    smp::join();
    checkpoint(4, told, held, added);
    mixed(added, if told == 0 { HELD } else { TOLD });
    let wrong = WRONG.load(Ordering::Acquire);
    let kept = access::read(KEPT.address());
    println!("{told} of {readings} readings were told, {wrong} of another vCPU's wrong, {kept:#x} was kept");
    let is_whole = [(0, HELD + 1, HELD), (readings, HELD, CODED.address())].contains(&(told, kept, held));
    if !is_whole || wrong != 0 || access::read(READS.address()) != HELD {
        failure!("told {told} times, {kept:#x} kept, {held:#x} read, {wrong} readings wrong");
    }
    verdict::success();
}

/// In `MIXED`: what is copied, and where to.
const FROM: u64 = 0x40;
const TO: u64 = 0x80;

/// What was read is what memory held, or what the consumer said, as is due; what was written is made of that, and the rest is as it was.
fn mixed(added: u64, due: u64) {
    expect("added to", added, due);
    let at = |offset: u64| access::read(MIXED.address() + offset);
    let found = [at(0), at(TO), at(FROM), at(8), at(TO + 8)];
    if found != [added + 5, added, HELD, 0, 0] {
        failure!("added to {added:#x} and copied: {found:x?}");
    }
}

/// vCPU 0's share: a write that may go nowhere, a read that may be another instruction.
fn contents() -> u64 {
    access::write(KEPT.address(), HELD + 1);
    access::read(CODED.address())
}

fn reads_what_is_there(_: usize) {
    smp::wait_for(&GATE, 1);
    let wrong = (0..HOW_OFTEN.load(Ordering::Acquire)).filter(|_| access::read(READS.address()) != HELD).count();
    WRONG.fetch_add(wrong, Ordering::AcqRel);
}

fn expect(what: &str, found: u64, expected: u64) {
    if found != expected {
        failure!("{what}: {found:#x} instead of {expected:#x}");
    }
}

/// Reads, writes and read-modify-writes of one place, against plain arithmetic.
fn kinds(at: u64) {
    let mut held = 0x0102_0304_0506_0708;
    access::write(at, held);
    expect("read", access::read(at), held);
    expect("xadd", access::add(at, 0x0101), held);
    held += 0x0101;
    expect("xchg", do_exchange(at, 0x1122_3344_5566_7788), held);
    held = 0x1122_3344_5566_7788;
    expect("cmpxchg of another", do_compare(at, 5), held);
    expect("cmpxchg", do_compare(at, held), held);
    held += 1;
    held = held.rotate_right(8);
    expect("ror", do_shift(at, 0), held);
    expect("push and pop", do_stack(at, 0x99), 0x99);
    expect("pushed", access::read(at), 0x99);
    expect("call and pop", do_call(at, 0x55), 0x55);
    access::write(at, 0x0123_4567);
    access::write(at + 8, 3);
    expect("vector", do_vector(at, 0), 0x0246_8ace);
    expect("vector's second half", access::read(at + 8), 6);
    expect("run", RUN(at, 1), (at + 1) << 1);
}

/// Repeated instructions over two pages each.
fn copies(from: u64) {
    for number in 0..PAGE_SIZE / 64 {
        access::write(from + 0x800 + number * 64, number * 0x0101_0101);
    }
    access::write(from + 0x17f8, 0x5a00_0000_0000_0000);
    let to = COPIED.address() + 0x400;
    do_copy(to, from + 0x800, PAGE_SIZE);
    for number in 0..PAGE_SIZE / 64 - 1 {
        expect("copied", access::read(to + number * 64), number * 0x0101_0101);
    }
    expect("scanned", do_scan(to, 2 * PAGE_SIZE), PAGE_SIZE);
}
