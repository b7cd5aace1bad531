//! A guest page fault comes before the EPT violation.
//!
//! Hardware: an address is translated by the guest's page tables first. If they forbid the access the guest gets its
//! page fault and EPT is never asked about the page itself. Only when the guest has repaired its tables and the
//! instruction runs again can the frame behind it cause a violation.
//!
//! Xen: gets this from the processor. A hypervisor in software has to walk the guest's tables before it asks the
//! p2m, and must leave to the guest what is the guest's.
//!
//! What this proves: one page fault for a read of a page that is not present, one for a write to a page that is
//! read-only, each with the right address and error code, each handled by the guest; then the access, and with the
//! frame watched its event, with the linear address of the alias and the guest-physical address of the frame.
//!
//! Symbol `WATCHED`: the frame, mapped at the 1 TiB line by the fault handler. Checkpoint 1: before (arguments: address of the
//! frame, address of the alias). Then a read at offset 0x10 of the alias, a write at 0x20, a read at 0x20. Checkpoint 2: end
//! (argument: number of page faults).

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::idt::{self, PageFault};
use guest::tables::{self, Use};
use guest::{access, checkpoint, failure, println, verdict};

guest::pages!(
    /// The frame behind the alias.
    WATCHED: 1
);

const ALIAS: u64 = tables::FREE;
const READ_AT: u64 = 0x10;
const WRITE_AT: u64 = 0x20;
const CONTENT: u64 = 0x6261_636b_6564_2121;
const WRITTEN: u64 = 0x7772_6974_7465_6e21;

/// Faults as they must come: address, error code (1 present, 2 write), and what the handler then allows.
const FAULTS: [(u64, u64, Use); 2] = [(ALIAS + READ_AT, 0, Use::Read), (ALIAS + WRITE_AT, 3, Use::ReadWrite)];

static FAULTS_SEEN: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    access::write(WATCHED.address() + READ_AT, CONTENT);
    idt::on_page_fault(repair);
    checkpoint(1, WATCHED.address(), ALIAS, 0);

    let read = access::read(ALIAS + READ_AT);
    access::write(ALIAS + WRITE_AT, WRITTEN);
    let written = access::read(ALIAS + WRITE_AT);
    let faults = FAULTS_SEEN.load(Ordering::Relaxed);
    checkpoint(2, faults, 0, 0);

    println!("{faults} page faults, read {read:#x}, wrote {written:#x}");
    if faults != 2 {
        failure!("{faults} page faults instead of 2");
    }
    if (read, written) != (CONTENT, WRITTEN) {
        failure!("read {read:#x} and {written:#x} instead of {CONTENT:#x} and {WRITTEN:#x}");
    }
    verdict::success();
}

fn repair(fault: PageFault) -> bool {
    let number = FAULTS_SEEN.fetch_add(1, Ordering::Relaxed);
    let (address, code, usage) = match number {
        0 => FAULTS[0],
        1 => FAULTS[1],
        _ => failure!("page fault too many: {fault:x?}"),
    };
    if (fault.address, fault.code) != (address, code) {
        failure!("page fault {fault:x?} instead of address {address:#x}, code {code}");
    }
    tables::map(ALIAS, WATCHED.address(), usage);
    true
}
