//! A guest that does what no guest should, and a run that watches it must end with a verdict all the same.
//!
//! Hardware: takes what a processor is given. Page tables and code may change under another processor's feet; a reset, a triple fault, a
//! sleep state or a device's request for power ends everything at once, whatever the other processors are doing.
//!
//! Xen: has been brought down by each of these in its time: a vCPU that was paused for good by a domain that died, tables that
//! changed between a check and a use, a domain that slept with events outstanding.
//!
//! What this proves: that the harness ends, with a verdict that says what became of the guest.
//!
//! Symbols: `WAY`, whose first word says which way the guest goes, and may be written at checkpoint 1; `PAGES`, 64 pages that are
//! used as data and code. The ways:
//!
//! | | |
//! |---|---|
//! | 0 | rewrites: vCPU 0 changes an entry, its table and the code behind it, while the others use all of them |
//! | 1 | storm: each vCPU reads, writes and runs all pages, loads CR3, writes an MSR and meets breakpoints, without end in between |
//! | 2 | reset by the port 0xcf9, while the other vCPUs use `PAGES` |
//! | 3 | triple fault, likewise |
//! | 4 | sleep (S3) by the ACPI registers of an ICH9, likewise |
//! | 5 | power off by the same |
//! | 6 | all registers of all devices of the first PCI bus written with ones, again and again |
//!
//! Ways 0 and 1 end with success; of the others only 5 ends by itself.

#![no_std]
#![no_main]

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use guest::idt::{self, Exception};
use guest::page::PAGE_SIZE;
use guest::segments::Pointer;
use guest::tables::{self, Use};
use guest::{access, checkpoint, failure, pci, port, println, skip, smp, verdict};

guest::pages!(
    /// Data and code.
    PAGES: 64
);
guest::pages!(
    /// What comes behind the page at the line: code that returns.
    RETURN: 1
);
guest::pages!(
    /// Which way.
    WAY: 1
);

const ROUNDS: u64 = 400;
/// `mov eax, N; ret` in eight bytes.
const CODE: u64 = 0x9090_c300_0000_00b8;
const CODE_AT: u64 = 0x800;
const BREAKPOINT: u64 = 3;
const INVALID_OPCODE: u64 = 6;
const PAGE_FAULT: u64 = 14;
/// The reset control register: a full reset.
const RESET: u16 = 0xcf9;
/// PM1 control: the sleep type in bits 10 to 12, and "now".
const SLEEP_NOW: u16 = 1 << 13;

static BEGIN: AtomicUsize = AtomicUsize::new(0);
static STOP: AtomicBool = AtomicBool::new(false);

guest::main!(main);

fn main() {
    for page in 0..64 {
        access::write(address(page), page);
        access::write(address(page) + CODE_AT, CODE | page << 8);
    }
    access::write(RETURN.address(), 0xc3);
    tables::map(tables::FREE, address(0), Use::ReadWrite);
    tables::map(tables::FREE + PAGE_SIZE, RETURN.address(), Use::Read);
    idt::on_exception(met);
    checkpoint(1, WAY.address(), PAGES.address(), smp::vcpus() as u64);
    let way = access::read(WAY.address());
    smp::start(if way == 0 { use_the_line } else { use_pages });
    BEGIN.store(1, Ordering::Release);
    match way {
        0 => rewrite(),
        1 => use_pages(0),
        2 => port::write_u8(RESET, 6),
        3 => fault_thrice(),
        4 => sleep(1),
        5 => sleep(0),
        6 => all_ones(),
        other => skip!("no way {other}"),
    }
    if way > 1 {
        // What was asked for happens when QEMU gets to it.
        wait();
    }
    STOP.store(true, Ordering::Release);
    smp::join();
    println!("way {way}, {} vCPUs", smp::vcpus());
    verdict::success();
}

fn address(page: u64) -> u64 {
    PAGES.address() + page * PAGE_SIZE
}

/// What changing code and tables may lead to, on any vCPU.
fn met(exception: Exception) -> Option<u64> {
    match exception.vector {
        BREAKPOINT => Some(exception.rip),
        // Half an instruction; a page that was there a moment ago. Once more, by the tables that are there now.
        INVALID_OPCODE | PAGE_FAULT => {
            tables::forget_all();
            Some(exception.rip)
        }
        _ => None,
    }
}

/// The entry of the line, its table's entry, and the code behind it, in turn.
fn rewrite() {
    let (entry, table) = (tables::place(tables::FREE, 0), tables::place(tables::FREE, 1));
    let (mapped, linked) = (access::read(entry), access::read(table));
    for round in 0..ROUNDS {
        let page = round % 64;
        access::write(entry, mapped & !tables::ADDRESS | address(page));
        access::write(address(page) + CODE_AT, CODE | (round & 0xff) << 8);
        access::write(entry, 0);
        access::write(table, 0);
        access::write(table, linked);
        // A reserved bit, and a frame where no memory is.
        access::write(entry, mapped | 1 << 51);
        access::write(entry, mapped & !tables::ADDRESS | 0xff_ffff_f000);
        access::write(entry, mapped);
    }
}

/// Uses the page at the line as data and as code, whatever it is at the moment.
fn use_the_line(_: usize) {
    smp::wait_for(&BEGIN, 1);
    while !STOP.load(Ordering::Acquire) {
        tables::forget_all();
        // A word of a page that is memory, or of one that is none.
        let _ = access::read(tables::FREE);
        let found = access::call(tables::FREE + CODE_AT);
        if found > 0xff && found != 0xffff_ffff {
            failure!("the code returned {found:#x}");
        }
    }
}

fn use_pages(vcpu: usize) {
    smp::wait_for(&BEGIN, 1);
    for round in 0..ROUNDS {
        let page = address((round + vcpu as u64 * 8) % 64);
        let found = access::read(page);
        access::write(page + 8 * (1 + vcpu as u64), found + round);
        let _ = access::call(page + CODE_AT);
        tables::forget_all();
        // SAFETY: a breakpoint that the handler knows; STAR counts only with SYSCALL, which nobody uses.
        unsafe {
            asm!("int3", options(nostack));
            asm!("wrmsr", in("ecx") 0xc000_0081_u32, in("eax") 0, in("edx") (round & 0xff) as u32, options(nostack));
        }
    }
}

/// Without a table of handlers an exception is a fault while handling one, and that is a third.
fn fault_thrice() {
    let nothing = Pointer(0, 0);
    // SAFETY: it is the end of this guest, which is what is wanted.
    unsafe { asm!("lidt [{}]", "ud2", in(reg) &raw const nothing, options(nostack)) };
}

fn sleep(kind: u16) {
    const BRIDGE: u32 = 0x06_01_00;
    const PM_BASE: u32 = 0x40;
    let Some(bridge) = pci::by_class(BRIDGE) else { skip!("no ISA bridge, so no ACPI registers") };
    let base = bridge.word(PM_BASE) & 0xff80;
    let Ok(base @ 1..) = u16::try_from(base) else { skip!("the ISA bridge names no ACPI registers") };
    port::write_u16(base + 4, SLEEP_NOW | kind << 10);
}

/// Base addresses, interrupt lines, capabilities, commands.
fn all_ones() {
    for register in (4..256).step_by(4) {
        pci::devices().for_each(|device| device.set_word(register, u32::MAX));
    }
}

fn wait() -> ! {
    loop {
        // SAFETY: stops this vCPU and touches nothing.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}
