//! What is done by functions that QEMU exports besides the plugin API, for its own modules. Which they are, and what is so without each, is the
//! table of [`super::capabilities`].

use super::capabilities::symbol;
use std::ffi::{c_int, c_void};
use std::ops::RangeInclusive;
use std::sync::OnceLock;

/// QEMU's `CPUState` of one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(pub *mut c_void);

type GetCpu = unsafe extern "C" fn(c_int) -> *mut c_void;
type Leave = unsafe extern "C" fn(*mut c_void, usize) -> !;
type Work = unsafe extern "C" fn(*mut c_void, usize);
type RunSafely = unsafe extern "C" fn(*mut c_void, Work, usize);
type ComputeFlags = unsafe extern "C" fn(u64, u64, u64, c_int) -> u64;
type Flush = unsafe extern "C" fn(*mut c_void);
type RamAddress = unsafe extern "C" fn(*mut c_void) -> u64;
type DropTo10 = unsafe extern "C" fn(u64, u64);
type DropFrom10 = unsafe extern "C" fn(*mut c_void, u64, u64);

type Cpuid = unsafe extern "C" fn(*mut c_void, u32, u32, *mut u32, *mut u32, *mut u32, *mut u32);
type RegisterReset = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void);
type ReadMsr = unsafe extern "C" fn(*mut c_void);
type ReadKeys = unsafe extern "C" fn(*mut c_void, u32) -> u64;

struct Leaving {
    get_cpu: GetCpu,
    leave: Leave,
}

struct Flushing {
    run_safely: RunSafely,
    flush: Flush,
}

struct Dropping {
    ram_address: RamAddress,
    drop: DropSome,
}

/// `tb_invalidate_phys_range`.
#[derive(Clone, Copy)]
enum DropSome {
    /// QEMU up to 10.1: first and last.
    Old(DropTo10),
    /// From 10.2 on a vCPU comes first; none where no block is under way.
    New(DropFrom10),
}

/// CF, PF, AF, ZF, SF and OF.
const ARITHMETIC: u64 = 0x8d5;

/// What the last instruction that changed the arithmetic flags left behind.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlagOperands {
    /// Result, and two operands.
    pub values: [u64; 3],
    /// What the instruction was, as QEMU counts.
    pub kind: u32,
}

fn leaving() -> Option<&'static Leaving> {
    static LEAVING: OnceLock<Option<Leaving>> = OnceLock::new();
    LEAVING
        .get_or_init(|| {
            let get_cpu = symbol(c"qemu_get_cpu")?;
            let leave = symbol(c"cpu_loop_exit_restore")?;
            // SAFETY: these names have had these signatures in every QEMU from 2.x to 11 (include/hw/core/cpu.h and
            // include/exec/exec-all.h or its successors).
            Some(unsafe {
                Leaving {
                    get_cpu: std::mem::transmute::<*mut c_void, GetCpu>(get_cpu),
                    leave: std::mem::transmute::<*mut c_void, Leave>(leave),
                }
            })
        })
        .as_ref()
}

fn flushing() -> Option<&'static Flushing> {
    static FLUSHING: OnceLock<Option<Flushing>> = OnceLock::new();
    FLUSHING
        .get_or_init(|| {
            leaving()?;
            let run_safely = symbol(c"async_safe_run_on_cpu")?;
            // From 10.2 on it has another name, and takes nothing.
            let flush = symbol(c"tb_flush").or_else(|| symbol(c"tb_flush__exclusive_or_serial"))?;
            // SAFETY: as above; an argument that a function does not take is not looked at; `run_on_cpu_data` is a union of numbers and pointers of one machine word.
            Some(unsafe {
                Flushing {
                    run_safely: std::mem::transmute::<*mut c_void, RunSafely>(run_safely),
                    flush: std::mem::transmute::<*mut c_void, Flush>(flush),
                }
            })
        })
        .as_ref()
}

fn dropping() -> Option<&'static Dropping> {
    static DROPPING: OnceLock<Option<Dropping>> = OnceLock::new();
    DROPPING
        .get_or_init(|| {
            leaving()?;
            symbol(c"async_run_on_cpu")?;
            let ram_address = symbol(c"qemu_ram_addr_from_host")?;
            let drop = symbol(c"tb_invalidate_phys_range")?;
            // SAFETY: the first two have had these signatures since QEMU 8 (include/hw/core/cpu.h, include/exec/cpu-common.h). The
            // third got its first argument in 10.2, which also took the name `tb_flush` away and brought the other one.
            Some(unsafe {
                let drop = match (symbol(c"tb_flush"), symbol(c"tb_flush__exclusive_or_serial")) {
                    (Some(_), None) => DropSome::Old(std::mem::transmute::<*mut c_void, DropTo10>(drop)),
                    (None, Some(_)) => DropSome::New(std::mem::transmute::<*mut c_void, DropFrom10>(drop)),
                    _ => return None,
                };
                Dropping { ram_address: std::mem::transmute::<*mut c_void, RamAddress>(ram_address), drop }
            })
        })
        .as_ref()
}

fn computing_flags() -> Option<ComputeFlags> {
    static COMPUTING: OnceLock<Option<ComputeFlags>> = OnceLock::new();
    *COMPUTING.get_or_init(|| {
        let address = symbol(c"helper_cc_compute_all")?;
        // SAFETY: the name has had this signature since QEMU 1.7 (target/i386/helper.h): result, two operands, kind.
        Some(unsafe { std::mem::transmute::<*mut c_void, ComputeFlags>(address) })
    })
}

/// Whether QEMU's way to compute RFLAGS is there.
pub fn can_compute_flags() -> bool {
    computing_flags().is_some()
}

/// The arithmetic flags by these operands; none where QEMU does not export the function, or where what it gives are not those flags.
/// `helper_read_eflags` is not used: from QEMU 11.1 on it writes what it computed into the CPU state, and this is asked from other threads
/// than the vCPU's too.
pub(super) fn arithmetic_flags(FlagOperands { values: [result, first, second], kind }: FlagOperands) -> Option<u64> {
    let compute = computing_flags()?;
    // SAFETY: the function is pure, and of a kind that it does not know it gives 0.
    let flags = unsafe { compute(result, first, second, kind.cast_signed()) };
    (flags & !ARITHMETIC == 0).then_some(flags)
}

/// Whether flags are computed by this kind, in the words of `cpu_unwind_state_data`: else they are as the state says, since QEMU's number for that
/// varies. Of a result of 0 all kinds give a flag, but for the two that take the flags from an operand, or compare that with 0.
pub(super) fn is_kind_of_flags(kind: u32) -> bool {
    let gives = |values| arithmetic_flags(FlagOperands { values, kind }).is_some_and(|flags| flags != 0);
    gives([0, ARITHMETIC, 0]) || gives([0; 3])
}

/// Whether vCPUs can leave their blocks here.
pub fn can_leave() -> bool {
    leaving().is_some()
}

/// Whether blocks can be dropped here, so that others are translated.
pub fn can_flush() -> bool {
    flushing().is_some()
}

/// Whether QEMU counts instructions (`-icount`): a repeated instruction then does one step a block, and its check is called for each.
pub fn counts_instructions() -> bool {
    static COUNTS: OnceLock<bool> = OnceLock::new();
    *COUNTS.get_or_init(|| {
        // SAFETY: the variable, or enumeration without negative values, is of an int's size in every QEMU from 1.x to 11, and
        // is set for good before the first plugin is loaded.
        symbol(c"use_icount").is_some_and(|address| unsafe { address.cast::<c_int>().read() } != 0)
    })
}

/// Has all blocks dropped as soon as every vCPU is out of its own; `flushed` of `translate` is told. From any thread.
pub fn flush_blocks() {
    let (Some(flushing), Some(Cpu(cpu))) = (flushing(), cpu_of(0)) else { return };
    // SAFETY: QEMU queues the work under its own lock, and runs it in the vCPU's thread while no other vCPU runs.
    unsafe { (flushing.run_safely)(cpu, flush_work, 0) }
}

/// Not `tb_flush` straight from any thread: with one vCPU it would flush at once, under the vCPU's feet.
unsafe extern "C" fn flush_work(cpu: *mut c_void, _: usize) {
    if let Some(flushing) = flushing() {
        // SAFETY: called by QEMU with a vCPU of its own, while no vCPU runs.
        unsafe { (flushing.flush)(cpu) }
    }
}

/// Whether the blocks of some bytes of RAM can be dropped here.
pub fn can_drop() -> bool {
    dropping().is_some()
}

/// QEMU's own address of the RAM at a host address, `None` where this QEMU cannot drop the blocks of some bytes alone, or where there is
/// no RAM of its.
pub fn ram_address(host: u64) -> Option<u64> {
    let dropping = dropping()?;
    // SAFETY: QEMU walks its list of RAM blocks, under RCU; nothing is read at the address.
    let address = unsafe { (dropping.ram_address)(host as *mut c_void) };
    (address != u64::MAX).then_some(address)
}

/// Drops the blocks that were made from bytes of RAM: in a vCPU's thread, out of any block.
pub fn drop_blocks(bytes: RangeInclusive<u64>) {
    let Some(dropping) = dropping() else { return };
    let (first, last) = bytes.into_inner();
    // SAFETY: the addresses are of one run of RAM; QEMU takes the locks that it needs. No block is under way in this thread, so
    // none needs to be left for it.
    unsafe {
        match dropping.drop {
            DropSome::Old(drop) => drop(first, last),
            DropSome::New(drop) => drop(std::ptr::null_mut(), first, last),
        }
    }
}

/// Has QEMU make a call whenever the machine is reset, which it is for the first time as it starts: in QEMU's main thread, while no vCPU runs. Not
/// at all where QEMU cannot be asked. At installation.
pub fn call_at_reset(call: fn()) {
    static CALL: OnceLock<fn()> = OnceLock::new();
    unsafe extern "C" fn is_reset(_: *mut c_void) {
        if let Some(call) = CALL.get() {
            call();
        }
    }
    let Some(register) = symbol(c"qemu_register_reset") else { return };
    let _ = CALL.set(call);
    // SAFETY: the name has had this signature in every QEMU from 0.11 to 11 (include/system/reset.h); the function lives as long as the process.
    unsafe { std::mem::transmute::<*mut c_void, RegisterReset>(register)(is_reset, std::ptr::null_mut()) }
}

/// Has QEMU make a call whenever the machine begins or goes on, before its vCPUs do: in QEMU's main thread, with its lock. Not at all where QEMU cannot
/// be asked. At installation.
pub fn call_at_start(call: fn()) {
    static CALL: OnceLock<fn()> = OnceLock::new();
    unsafe extern "C" fn changes(_: *mut c_void, is_running: bool, _: c_int) {
        if let Some(call) = CALL.get().filter(|_| is_running) {
            call();
        }
    }
    type Changes = unsafe extern "C" fn(*mut c_void, bool, c_int);
    type Add = unsafe extern "C" fn(Changes, *mut c_void) -> *mut c_void;
    let Some(add) = symbol(c"qemu_add_vm_change_state_handler") else { return };
    let _ = CALL.set(call);
    // SAFETY: the name and its handler have had these signatures since QEMU 6.0 (include/system/runstate.h); the function lives as long as the process.
    unsafe { std::mem::transmute::<*mut c_void, Add>(add)(changes, std::ptr::null_mut()) };
}

/// PKRU of a vCPU whose CR4.PKE is set, by its CPU state, in its own thread; 0 where QEMU does not export it.
pub(super) fn protection_keys(state: *mut u8) -> u32 {
    static READ: OnceLock<Option<ReadKeys>> = OnceLock::new();
    let read = READ.get_or_init(|| {
        // SAFETY: the name has had this signature since QEMU 2.6 (target/i386/helper.h).
        symbol(c"helper_rdpkru").map(|read| unsafe { std::mem::transmute::<*mut c_void, ReadKeys>(read) })
    });
    // SAFETY: with CR4.PKE set and 0 for ECX it reads a field of the state and raises nothing.
    let keys = read.map_or(0, |read| unsafe { read(state.cast(), 0) });
    u32::try_from(keys).unwrap_or(0)
}

/// The address of QEMU's table of what it migrates of a vCPU.
pub(super) fn migrated_fields() -> Option<u64> {
    symbol(c"vmstate_x86_cpu").map(|table| table as u64)
}

/// The address of its table of what it migrates of any processor's vCPU.
pub(super) fn migrated_of_any_processor() -> Option<u64> {
    symbol(c"vmstate_cpu_common").map(|table| table as u64)
}

/// How many bits a physical address has, by a CPU state; the same for all vCPUs of a machine.
pub(super) fn physical_address_bits(state: *mut u8) -> Option<u8> {
    const ADDRESS_SIZES: u32 = 0x8000_0008;
    static BITS: OnceLock<Option<u8>> = OnceLock::new();
    *BITS.get_or_init(|| {
        let [eax, ..] = cpuid(state, ADDRESS_SIZES, 0)?;
        Some(eax.to_le_bytes()[0]).filter(|bits| (32..=52).contains(bits))
    })
}

/// What `cpuid` returns in EAX, EBX, ECX and EDX, by a CPU state; `None` where QEMU does not export the function.
pub(super) fn cpuid(state: *mut u8, leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
    let cpuid = symbol(c"cpu_x86_cpuid")?;
    // SAFETY: the name has had this signature in every QEMU from 0.12 to 11 (target/i386/cpu.h).
    let cpuid = unsafe { std::mem::transmute::<*mut c_void, Cpuid>(cpuid) };
    let [mut eax, mut ebx, mut ecx, mut edx] = [0; 4];
    // SAFETY: it reads the CPU state and writes these four numbers.
    unsafe { cpuid(state.cast(), leaf, subleaf, &raw mut eax, &raw mut ebx, &raw mut ecx, &raw mut edx) };
    Some([eax, ebx, ecx, edx])
}

/// The time stamp counter of a vCPU that is out of its block, by its CPU state; `None` where QEMU does not export the function.
pub(super) fn time_stamp_counter(state: *mut u8) -> Option<u64> {
    type Read = unsafe extern "C" fn(*mut c_void) -> u64;
    let read = symbol(c"cpu_get_tsc")?;
    // SAFETY: the name has had this signature in every QEMU from 0.9 to 11 (target/i386/cpu.h), and looks at clocks alone.
    Some(unsafe { std::mem::transmute::<*mut c_void, Read>(read)(state.cast()) })
}

/// The time stamp counter, which QEMU ends over where it counts instructions and this one is not the last of its block.
const MSR_TSC: u32 = 0x10;
/// The local APIC's registers, which raise an exception where they are not there.
const APIC_MSRS: std::ops::RangeInclusive<u32> = 0x800..=0x8ff;

/// A model-specific register by a vCPU's CPU state, in its own thread, within a callback, and not while it runs a guest of its own; `None`
/// where QEMU does not export the function, or not without harm. What the register does not exist for is 0.
pub(super) fn read_msr(state: *mut u8, number: u32) -> Option<u64> {
    static READ: OnceLock<Option<ReadMsr>> = OnceLock::new();
    if number == MSR_TSC || APIC_MSRS.contains(&number) {
        return None;
    }
    let read = (*READ.get_or_init(|| {
        let read = symbol(c"helper_rdmsr")?;
        // SAFETY: the name has had this signature since QEMU 1.3 (target/i386/helper.h).
        Some(unsafe { std::mem::transmute::<*mut c_void, ReadMsr>(read) })
    }))?;
    let registers = state.cast::<u64>();
    let [rax, rcx, rdx] = [0, 1, 2];
    // SAFETY: the state begins with the general registers, which no other thread uses while its vCPU is in a callback, and they are as
    // they were when it ends. The function takes the register's number from ECX and leaves its value in EDX:EAX. It raises exceptions
    // for the registers alone that are refused above, and an exit for a nested guest, which the caller excludes.
    unsafe {
        let kept = [rax, rcx, rdx].map(|at| registers.add(at).read());
        registers.add(rcx).write(u64::from(number));
        read(state.cast());
        let value = registers.add(rdx).read() << 32 | registers.add(rax).read() & 0xffff_ffff;
        for (at, value) in [rax, rcx, rdx].into_iter().zip(kept) {
            registers.add(at).write(value);
        }
        Some(value)
    }
}

/// The state of a vCPU, where QEMU exports the look-up.
pub fn cpu_of(vcpu: u32) -> Option<Cpu> {
    let leaving = leaving()?;
    // SAFETY: QEMU walks its list of vCPUs and returns null for a number that is not there.
    let cpu = unsafe { (leaving.get_cpu)(c_int::try_from(vcpu).ok()?) };
    (!cpu.is_null()).then_some(Cpu(cpu))
}

/// Leaves the block that this thread's vCPU runs. Does not return, where leaving is possible.
///
/// # Safety
/// `cpu` is the vCPU of this thread, and the return address lies in the block that it runs.
pub unsafe fn leave(cpu: *mut c_void, return_address: usize) {
    if let Some(leaving) = leaving() {
        // SAFETY: by this function's contract.
        unsafe { (leaving.leave)(cpu, return_address) }
    }
}
