//! Debug exceptions that an instruction raises: `int1`, of one byte, which debuggers of hardware use (ICEBP).
//!
//! Hardware: `int1` raises #DB as a trap: the handler comes back behind it. A hypervisor may have #DB exit to it, and is told that an instruction
//! raised it, and how long that one is.
//!
//! Xen: `hvm_monitor_debug` tells a listener before the guest gets it; who wants the guest to have it injects it again (`xc_hvm_inject_trap`). An
//! asynchronous event only tells.
//!
//! What this proves: the guest gets each of its own exceptions once, in every mode, and none where a listener has put another instruction there.
//!
//! Symbols: `INT1`, a function whose first byte is `int1` at the begin of a page. Checkpoints 1 to 4 come before a call of it (arguments: how often
//! the handler has run); 5 is the end. A listener may put a `nop` there while it is told, and the guest sees that it has.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest::idt::{self, Exception};
use guest::{access, checkpoint, failure, verdict};

guest::functions!(
    r#"
    .section .code_pages, "ax", @progbits
    .balign 4096
    function INT1
        .byte 0xf1
        xor eax, eax
        ret
    done INT1
    .balign 4096
    .text
    "#
);

unsafe extern "C" {
    safe fn INT1() -> u64;
}

const DEBUG: u64 = 1;
const CALLS: u64 = 4;

/// How often the handler ran.
static MET: AtomicU64 = AtomicU64::new(0);

guest::main!(main);

fn main() {
    idt::on_exception(met);
    let address = INT1 as *const () as u64;
    let mut due = 0;
    for number in 1..=CALLS {
        checkpoint(number, MET.load(Ordering::Relaxed), 0, 0);
        let is_there = access::read(address) & 0xff == 0xf1;
        INT1();
        // The listener may put another instruction there while it is told.
        let was_there = is_there && access::read(address) & 0xff == 0xf1;
        due += u64::from(was_there);
        let came = MET.load(Ordering::Relaxed);
        if came != due {
            failure!("call {number}: {came} debug exceptions came where {due} are due");
        }
    }
    checkpoint(CALLS + 1, MET.load(Ordering::Relaxed), 0, 0);
    verdict::success();
}

fn met(exception: Exception) -> Option<u64> {
    let behind = INT1 as *const () as u64 + 1;
    (exception.vector == DEBUG && exception.rip == behind).then(|| {
        MET.fetch_add(1, Ordering::Relaxed);
        behind
    })
}
