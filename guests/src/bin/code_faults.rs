//! Executes an instruction whose second half is not mapped, and writes CR3, until somebody has it stop.
//!
//! Hardware: a fetch where nothing is mapped is a page fault at the instruction, however much of it is there.
//!
//! Xen: a consumer may come and go at any time, and with it what it monitors.
//!
//! What this proves: what the hypervisor begins to do for an instruction that then cannot be fetched leaves nothing behind, however often a
//! consumer comes and goes in between.
//!
//! Symbols: `CODE`: a page that ends within an instruction. `ROUNDS`: how many there were. `STOP`: not 0 where it is to stop.

#![no_std]
#![no_main]

use core::arch::asm;
use guest::idt::{self, Exception};
use guest::page::PAGE_SIZE;
use guest::tables::{self, Use};
use guest::{access, println, verdict};

guest::needs!(consumer);

guest::pages!(
    /// Its last bytes are the begin of an instruction.
    CODE: 1
);
guest::pages!(
    /// Rounds.
    ROUNDS: 1
);
guest::pages!(
    /// Whether it is to stop.
    STOP: 1
);

guest::functions!(
    r#"
    .text
    function jump_astray
        call rdi
        ret
    done jump_astray
    function come_back
        ret
    done come_back
    "#
);

unsafe extern "C" {
    safe fn jump_astray(to: u64);
    safe fn come_back();
}

const PAGE_FAULT: u64 = 14;
/// The begin of `mov rax, imm64`, of which two of ten bytes are there.
const BEGIN: [u8; 2] = [0x48, 0xb8];
/// Where that is executed.
const ASTRAY: u64 = tables::FREE + PAGE_SIZE - 2;

guest::main!(main);

fn main() {
    idt::on_exception(met);
    access::write(STOP.address(), 0);
    access::write(CODE.address() + PAGE_SIZE - 8, u64::from(u16::from_le_bytes(BEGIN)) << 48);
    tables::map(tables::FREE, CODE.address(), Use::Read);
    let mut rounds = 0;
    while access::read(STOP.address()) == 0 {
        jump_astray(ASTRAY);
        // SAFETY: the bit says how the table is cached, which changes nothing here; a write that changed no bit would be no event.
        unsafe { asm!("mov {0}, cr3", "xor {0}, 8", "mov cr3, {0}", out(reg) _, options(nostack)) };
        rounds += 1;
        access::write(ROUNDS.address(), rounds);
    }
    println!("{rounds} rounds");
    verdict::success();
}

/// Back to where the call came from, by way of a function that does nothing.
fn met(exception: Exception) -> Option<u64> {
    let is_astray = exception.vector == PAGE_FAULT && exception.rip == ASTRAY;
    is_astray.then_some(come_back as *const () as u64)
}
