//! Exceptions: they go to the guest's handlers if it has some; what no handler takes is a verdict of error.

use core::arch::{asm, global_asm};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::error;
use crate::segments::Pointer;

/// Exceptions have vectors 0 to 31; interrupts never come, they are disabled.
const VECTORS: usize = 32;
const PAGE_FAULT: u64 = 14;
/// A present 64-bit interrupt gate.
const INTERRUPT_GATE: u64 = 0x8e;
/// The 64-bit code segment of the boot code.
const CODE_SEGMENT: u64 = 0x08;

/// The two words of an interrupt gate to a handler, on this stack of the task's, or on the current one for 0.
#[must_use]
pub const fn gate(handler: u64, stack: u64) -> [u64; 2] {
    let low = handler & 0xffff | CODE_SEGMENT << 16 | stack << 32 | INTERRUPT_GATE << 40;
    [low | (handler >> 16 & 0xffff) << 48, handler >> 32]
}

/// A guest page fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageFault {
    /// The address that was touched: CR2.
    pub address: u64,
    /// The error code: bit 0 present, bit 1 write.
    pub code: u64,
}

/// Returns whether it repaired the cause; the instruction is then tried again.
pub type Handler = fn(PageFault) -> bool;

/// Any other exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception {
    /// Its vector.
    pub vector: u64,
    /// Its error code; 0 where there is none.
    pub code: u64,
    /// The address that the guest goes on at.
    pub rip: u64,
}

/// Returns where the guest goes on, or nothing for an exception that it does not expect.
pub type ExceptionHandler = fn(Exception) -> Option<u64>;

/// A [`Handler`], or null.
static HANDLER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
/// An [`ExceptionHandler`], or null.
static EXCEPTION_HANDLER: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// What the stubs leave on the stack, lowest address first.
#[repr(C)]
struct Frame {
    registers: [u64; 15],
    vector: u64,
    code: u64,
    rip: u64,
}

global_asm!(
    r#"
    .altmacro
    .macro exception_stub vector
    .balign 16
    # Vectors that push an error code: 8, 10 to 14, 17, 21, 29, 30.
    .if !(0x60227d00 & (1 << \vector))
    push $0
    .endif
    push $\vector
    jmp exception_common
    .endm

    .text
    .balign 16
    .global exception_stubs
exception_stubs:
    .set vector, 0
    .rept 32
    exception_stub %vector
    .set vector, vector + 1
    .endr
    .noaltmacro

exception_common:
    .irp register, rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15
    push %\register
    .endr
    mov %rsp, %rdi
    sub $512, %rsp                  # still aligned to 16: the CPU aligned it, then 22 words were pushed
    fxsave (%rsp)
    cld
    call exception
    fxrstor (%rsp)
    add $512, %rsp
    .irp register, r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax
    pop %\register
    .endr
    add $16, %rsp
    iretq
    "#,
    options(att_syntax)
);

unsafe extern "C" {
    static exception_stubs: u8;
}

/// Gives page faults to `handler`. It runs on the stack of the vCPU that faulted, before the instruction is tried again.
pub fn on_page_fault(handler: Handler) {
    HANDLER.store(handler as *mut (), Ordering::Release);
}

/// Gives all other exceptions to `handler`. It runs on the stack of the vCPU that met the exception.
pub fn on_exception(handler: ExceptionHandler) {
    EXCEPTION_HANDLER.store(handler as *mut (), Ordering::Release);
}

/// Loads the table on this vCPU. All share one, and each writes the same gates into it.
pub fn load() {
    static TABLE: [[core::sync::atomic::AtomicU64; 2]; VECTORS] =
        [const { [const { core::sync::atomic::AtomicU64::new(0) }; 2] }; VECTORS];
    let stubs = (&raw const exception_stubs).addr() as u64;
    for (gate, stub) in TABLE.iter().zip((stubs..).step_by(16)) {
        for (word, value) in gate.iter().zip(self::gate(stub, 0)) {
            word.store(value, Ordering::Relaxed);
        }
    }
    let limit = u16::try_from(size_of_val(&TABLE) - 1).expect("32 gates are 512 bytes");
    let pointer = Pointer(limit, (&raw const TABLE).addr() as u64);
    // SAFETY: the table is static and its gates lead to the stubs above.
    unsafe { asm!("lidt [{}]", in(reg) &raw const pointer, options(readonly, nostack, preserves_flags)) };
}

/// Sleeps forever: interrupts are disabled, so nothing ends a `hlt`.
pub(crate) fn halt() -> ! {
    loop {
        // SAFETY: stops this vCPU and touches nothing.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}

#[unsafe(no_mangle)]
extern "C" fn exception(frame: &mut Frame) {
    if frame.vector == PAGE_FAULT && repaired(frame.code) {
        return;
    }
    let handler = EXCEPTION_HANDLER.load(Ordering::Acquire);
    if !handler.is_null() {
        // SAFETY: only `on_exception` stores here, and it stores an `ExceptionHandler`.
        let handler = unsafe { core::mem::transmute::<*mut (), ExceptionHandler>(handler) };
        if let Some(rip) = handler(Exception { vector: frame.vector, code: frame.code, rip: frame.rip }) {
            frame.rip = rip;
            return;
        }
    }
    if frame.vector == PAGE_FAULT {
        error!("page fault at {:#x}, code {:#x}, rip {:#x}", touched(), frame.code, frame.rip);
    }
    error!("exception {}, code {:#x}, rip {:#x}, rax {:#x}", frame.vector, frame.code, frame.rip, frame.registers[14]);
}

/// Whether the guest's handler for page faults repaired the cause.
fn repaired(code: u64) -> bool {
    let handler = HANDLER.load(Ordering::Acquire);
    if handler.is_null() {
        return false;
    }
    // SAFETY: only `on_page_fault` stores here, and it stores a `Handler`.
    let handler = unsafe { core::mem::transmute::<*mut (), Handler>(handler) };
    handler(PageFault { address: touched(), code })
}

/// The address of the last page fault.
fn touched() -> u64 {
    let address;
    // SAFETY: reading CR2 changes nothing.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    address
}
