//! Which guest instruction a vCPU stands in whose thread the kernel holds in a fault, without any help of its blocks.
//!
//! The kernel tells the thread's program counter and stack pointer, and QEMU's own unwinding, which it uses for guest exceptions, leads from
//! an address in generated code to the instruction. There are three kinds of places:
//!
//! - The counter lies in generated code, in the access itself.
//! - A helper runs. Its return address stands just below the stack pointer of the block, which is the same in all blocks of a thread.
//! - The return address lies behind the block's last instruction, where the slow path of an access is. A few host instructions further
//!   the jump back leads to the access.
//!
//! Below the stack pointer of a block that has ended an old return address may stand. So the word is looked at that what calls
//! blocks left on the stack when it called this one: any other call of its overwrites it. There are two of those, the loop of a vCPU and QEMU's
//! exclusive step. That word is also what the stack of a thread is searched for whose blocks' stack pointer is not known yet.
//!
//! Called by threads that take none of QEMU's locks for long: the look-up of a block takes one that is held over no touch of guest memory.

#![allow(unsafe_code, reason = "QEMU's own unwinding, by pointers to its functions")]

use super::capabilities::{UNWINDING, symbol};
use super::internals::{Cpu, cpu_of};
use super::source;
use iced_x86::{Decoder, DecoderOptions, FlowControl};
use std::ffi::c_void;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Bytes that QEMU takes off a return address to be within the instruction that called (`GETPC_ADJ`).
const ADJUSTMENT: u64 = 2;
/// Words of `cpu_unwind_state_data`; for x86 they are the address, or its offset in its page, and the kind of the flags.
const WORDS: usize = 8;
/// Bytes from a block's stack pointer to where the loop's return address is: QEMU's frame on x86-64 hosts, 128 bytes for arguments and 1,024
/// for temporaries behind six saved registers, in every QEMU since 0.12.
const FRAME: usize = 1208;
/// How far from a stopped thread's stack pointer its block's may be.
const SEARCHED: usize = 1 << 14;
/// Host instructions between the call of a slow path's helper and the jump back.
const MOST_MOVES: usize = 8;
/// Looks at a thread that was woken for a moment.
const LOOKS: u32 = 64;

type Unwind = unsafe extern "C" fn(*mut c_void, usize, *mut u64) -> bool;
type InCode = unsafe extern "C" fn(*const c_void) -> bool;

struct Functions {
    unwind: Unwind,
    in_code: InCode,
}

fn functions() -> Option<&'static Functions> {
    static FUNCTIONS: OnceLock<Option<Functions>> = OnceLock::new();
    FUNCTIONS
        .get_or_init(|| {
            UNWINDING.lacks().is_none().then_some(())?;
            let (unwind, in_code) = (symbol(c"cpu_unwind_state_data")?, symbol(c"in_code_gen_buffer")?);
            // SAFETY: these names have had these signatures in every QEMU from 7.2 to 11 (include/exec/cpu-common.h,
            // accel/tcg/tb-internal.h and tcg/tcg.h).
            Some(unsafe {
                Functions {
                    unwind: std::mem::transmute::<*mut c_void, Unwind>(unwind),
                    in_code: std::mem::transmute::<*mut c_void, InCode>(in_code),
                }
            })
        })
        .as_ref()
}

/// Which kind of place it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The access itself, in generated code.
    Code,
    /// A helper that the instruction calls.
    Helper,
    /// The helper of an access's slow path.
    SlowPath,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 3] = [Kind::Code, Kind::Helper, Kind::SlowPath];
}

/// Where a vCPU stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The instruction's address within its page.
    pub page_offset: u16,
    /// What the arithmetic flags before the instruction are computed as, as QEMU counts: for `View::whole_flags`.
    pub flags: u32,
    /// By which kind of place it was told.
    pub kind: Kind,
    /// Its thread's program counter and stack pointer.
    pub counter: u64,
    /// The stack pointer.
    pub stack: u64,
    /// The address by which QEMU finds the instruction.
    pub address: u64,
    /// In how many read-side sections of RCU the thread is there, if it is in none of an access's own: in that of running blocks, but not
    /// while QEMU runs the instruction in an exclusive section.
    pub sections: u32,
}

impl Place {
    /// Whether the thread is in generated code or in QEMU's own: not in a library, and not in this one, called from a block.
    pub fn is_in_qemu(&self) -> bool {
        self.kind == Kind::Code || program().is_some_and(|program| program.contains(&self.counter))
    }
}

/// Where QEMU's program has its code: around one of its functions. The process may be another's, of a loader that was told to start QEMU.
fn program() -> Option<&'static Range<u64>> {
    static PROGRAM: OnceLock<Option<Range<u64>>> = OnceLock::new();
    let find = || {
        let own = symbol(c"cpu_unwind_state_data")? as u64;
        let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
        maps.lines().filter_map(mapped).find(|mapped| mapped.contains(&own))
    };
    PROGRAM.get_or_init(find).as_ref()
}

/// The addresses of a line of `/proc/self/maps`.
fn mapped(line: &str) -> Option<Range<u64>> {
    let (first, end) = line.split_whitespace().next()?.split_once('-')?;
    Some(u64::from_str_radix(first, 16).ok()?..u64::from_str_radix(end, 16).ok()?)
}

/// What calls blocks leaves this on the stack, 0 for not known yet: the loop of a vCPU, and QEMU's exclusive step, each in another place of it.
static CALLERS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
/// There are more of them than that.
static VARIES: AtomicBool = AtomicBool::new(false);

/// A thread is in a block with this stack pointer, which is looked at: what called it has left above it where it returns to.
pub fn met_block(stack: u64) {
    let Some(returns_to) = word(stack + FRAME as u64) else { return };
    let takes = |place: &AtomicU64| {
        let known = place.compare_exchange(0, returns_to, Ordering::Relaxed, Ordering::Relaxed);
        known.map_or_else(|known| known == returns_to, |_| true)
    };
    if !CALLERS.iter().any(takes) {
        VARIES.store(true, Ordering::Relaxed);
    }
}

/// What is known of one vCPU's thread.
#[derive(Debug, Default)]
pub struct Unwinder {
    /// The thread, and its file that tells its registers.
    registers: Option<(i32, File)>,
    /// The stack pointer of its blocks.
    stack: Option<u64>,
}

/// What a thread does.
#[derive(Clone, Copy, Debug)]
pub enum Doing {
    /// The kernel holds it in a fault, at this place of one of its vCPU's blocks, or in none.
    Stands(Option<Place>),
    /// It is in a system call, maybe in a fault of that; or it is gone.
    Calls,
    /// It runs, or is about to. It is asleep before the kernel tells of its fault: so it was woken since, and if it stops again, that is told anew.
    Runs,
    /// It sleeps for one of this process's locks, where it touches no memory of the guest's: so it was woken since, too.
    Waits,
}

/// The host's registers of a thread.
enum Thread {
    Runs,
    /// In a fault: its stack pointer and its program counter.
    Stands([u64; 2]),
    /// In the system call by which locks are waited for.
    Waits,
    /// In another, or gone.
    Elsewhere,
}

impl Unwinder {
    /// Where this vCPU stands, whose thread the kernel holds in a fault; `None` where it is in none of its blocks.
    pub fn place(&mut self, vcpu: u32, thread: i32) -> Option<Place> {
        for _ in 0..LOOKS {
            match self.doing(vcpu, thread) {
                Doing::Stands(place) => return place,
                Doing::Calls | Doing::Waits => return None,
                Doing::Runs => std::thread::yield_now(),
            }
        }
        None
    }

    /// What this vCPU's thread does now.
    pub fn doing(&mut self, vcpu: u32, thread: i32) -> Doing {
        match self.look_at(thread) {
            Thread::Runs => Doing::Runs,
            Thread::Waits => Doing::Waits,
            Thread::Elsewhere => Doing::Calls,
            Thread::Stands(registers) => Doing::Stands(self.place_by(vcpu, registers)),
        }
    }

    fn place_by(&mut self, vcpu: u32, [stack, counter]: [u64; 2]) -> Option<Place> {
        let functions = functions()?;
        let cpu = cpu_of(vcpu)?;
        let place = |kind, address| {
            let (page_offset, flags) = functions.unwound(cpu, address)?;
            Some(Place { page_offset, flags, kind, counter, stack, address, sections: 1 })
        };
        if functions.is_code(counter) {
            let place = place(Kind::Code, counter + ADJUSTMENT)?;
            if self.stack != Some(stack) {
                self.stack = Some(stack);
                met_block(stack);
            }
            return Some(place);
        }
        let returns_to = self.called_helper(stack, functions)?;
        place(Kind::Helper, returns_to).or_else(|| place(Kind::SlowPath, jump_back(returns_to)?))
    }

    fn look_at(&mut self, thread: i32) -> Thread {
        if self.registers.as_ref().is_none_or(|(known, _)| *known != thread) {
            *self = Unwinder::default();
            self.registers = File::open(format!("/proc/self/task/{thread}/syscall")).ok().map(|file| (thread, file));
        }
        let mut text = [0; 256];
        let length = self.registers.as_ref().and_then(|(_, file)| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        std::str::from_utf8(&text[..length]).map_or(Thread::Elsewhere, registers_of)
    }

    /// Where the helper returns to that the block has called which the thread is in, whose own stack pointer is `stack`.
    fn called_helper(&mut self, stack: u64, functions: &Functions) -> Option<u64> {
        if VARIES.load(Ordering::Relaxed) {
            return self.stack.filter(|known| stack < *known).and_then(|block| word(block - 8));
        }
        let callers = CALLERS.each_ref().map(|place| place.load(Ordering::Relaxed));
        let is_unknown = callers == [0; CALLERS.len()];
        let is_caller = |word: u64| word != 0 && callers.contains(&word);
        let calls = |word: u64| is_caller(word) || is_unknown && program().is_some_and(|it| it.contains(&word));
        let called = |block: u64| {
            let around = Around::of(block).filter(|_| block > stack)?;
            (calls(around.caller) && functions.is_code(around.returns_to)).then_some(around.returns_to)
        };
        if let Some(returns_to) = self.stack.and_then(called) {
            return Some(returns_to);
        }
        let mut bytes = vec![0; SEARCHED];
        let length = memory()?.read_at(&mut bytes, stack).ok()?;
        let words = bytes[..length].chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes));
        let found = if is_unknown {
            // By the return address into a block that the caller's word stands above.
            let mut places = (stack + 8..).step_by(8).zip(words).filter(|(_, word)| functions.is_code(*word));
            places.find_map(|(block, _)| Some((block, called(block)?)))
        } else {
            let mut places = (stack..).step_by(8).zip(words).filter(|(_, word)| is_caller(*word));
            places
                .find_map(|(place, _)| place.checked_sub(FRAME as u64).and_then(|block| Some((block, called(block)?))))
        };
        let (block, returns_to) = found?;
        met_block(block);
        self.stack.get_or_insert(block);
        Some(returns_to)
    }
}

impl Functions {
    fn is_code(&self, address: u64) -> bool {
        // SAFETY: the address is compared with where QEMU keeps generated code, and not read.
        unsafe { (self.in_code)(address as *const c_void) }
    }

    /// The instruction's address within its page, and the kind of the flags before it, by a return address into its code; `None` for what is no
    /// instruction's code.
    fn unwound(&self, cpu: Cpu, returns_to: u64) -> Option<(u16, u32)> {
        let mut data = [0; WORDS];
        // SAFETY: QEMU looks the address up among its blocks and writes two words; those of a block that a stopped vCPU is in stay.
        let is_known = unsafe { (self.unwind)(cpu.0, usize::try_from(returns_to).ok()?, data.as_mut_ptr()) };
        is_known.then_some((
            (data[0] & 0xfff) as u16 ^ u16::from(source::unwinding_fails()),
            (data[1] & 0xffff_ffff) as u32,
        ))
    }
}

/// `running`; or `-1 STACK COUNTER` of a thread that is stopped in no system call, in hexadecimal; or the number of its system call.
fn registers_of(text: &str) -> Thread {
    let mut words = text.split_ascii_whitespace();
    match words.next() {
        Some("running") => Thread::Runs,
        Some(number) if number.parse() == Ok(libc::SYS_futex) => Thread::Waits,
        Some("-1") => {
            let registers = words.filter_map(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
            registers.collect::<Vec<_>>().try_into().map_or(Thread::Elsewhere, Thread::Stands)
        }
        _ => Thread::Elsewhere,
    }
}

/// Where the slow path of an access goes on that its helper returns to: behind the access.
fn jump_back(returns_to: u64) -> Option<u64> {
    let mut code = [0; 96];
    let length = memory()?.read_at(&mut code, returns_to).ok()?;
    let decoder = Decoder::with_ip(64, &code[..length], returns_to, DecoderOptions::NONE);
    let moves = |instruction: &iced_x86::Instruction| instruction.flow_control() == FlowControl::Next;
    let jump = decoder.into_iter().take(MOST_MOVES).find(|instruction| !moves(instruction))?;
    (jump.flow_control() == FlowControl::UnconditionalBranch).then(|| jump.near_branch_target())
}

/// This process's own memory, read so that an address without memory is an error and no fault.
fn memory() -> Option<&'static File> {
    static MEMORY: OnceLock<Option<File>> = OnceLock::new();
    MEMORY.get_or_init(|| File::open("/proc/self/mem").ok()).as_ref()
}

/// What stands around a block's stack pointer.
struct Around {
    /// Just below it: where the helper returns to that it has called.
    returns_to: u64,
    /// Above it: where what has called the block goes on.
    caller: u64,
}

impl Around {
    /// One look for both: each walks this process's page tables.
    fn of(block: u64) -> Option<Around> {
        const BELOW: usize = 8;
        let mut bytes = [0; BELOW + FRAME + 8];
        memory()?.read_exact_at(&mut bytes, block.checked_sub(BELOW as u64)?).ok()?;
        let (first, last) = (bytes.first_chunk()?, bytes.last_chunk()?);
        Some(Around { returns_to: u64::from_ne_bytes(*first), caller: u64::from_ne_bytes(*last) })
    }
}

fn word(address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    memory()?.read_exact_at(&mut bytes, address).ok()?;
    Some(u64::from_ne_bytes(bytes))
}
