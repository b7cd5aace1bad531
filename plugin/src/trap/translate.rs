//! What happens when QEMU translates a block: each instruction that touches memory gets its recipe.

use crate::engine::hypervisor::Hypervisor;
use crate::host::domain_host::Host;
use crate::host::instruction::{self as stood_in, LONGEST};
use crate::host::instrumentation;
use crate::insn::block_start::BlockStart;
use crate::insn::decode::{self, Decoded, InstructionReader};
use crate::insn::quick::Quick;
use crate::insn::quick::QuickRecipe;
use crate::insn::recipe::Recipe;
use crate::insn::recipes;
use crate::insn::registers::CodeSize;
use crate::insn::special::Special;
use crate::insn::stop_point::StopPoint;
use crate::insn::subject::Subject;
use crate::insn::walk::{Addressed, Judged};
use crate::memory::file_tables::FileTables;
use crate::qemu::block::{Block, Instruction};
use crate::qemu::current;
use crate::qemu::layout;
use crate::qemu::proof;
use crate::qemu::source::ViewCheck;
use crate::qemu::view;
use crate::trap::verify;
use mem_event::{Gfn, Gpa, VcpuId};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// One block in this many is a sample of the memory map's proof.
const SAMPLE: u32 = 64;

thread_local! {
    static READER: RefCell<InstructionReader> = RefCell::new(InstructionReader::default());
}

/// Whether a block whose code QEMU reads there has to come here: not where fetches alone are checked, and none of this block's is; nor where
/// nothing is wanted but the steps of other vCPUs.
pub fn wants(code: Option<u64>) -> bool {
    let Some(hypervisor) = Hypervisor::get() else { return true };
    let host = &hypervisor.host;
    let is_unknown = ViewCheck::now() == ViewCheck::Unproven || !view::is_known(current::vcpu());
    let wanted = instrumentation::wanted_here();
    if wanted & !instrumentation::EXECUTE != 0 || host.has_stop_points() || is_unknown {
        return true;
    }
    if wanted == 0 {
        return false;
    }
    let Some((code, frame)) = code.and_then(|code| Some((code, host.memory.frame_at(code)?))) else { return true };
    // QEMU ends a block before an instruction that reaches into the next page, unless it is its first.
    let may_reach_next = code & 0xfff > 0x1000 - LONGEST as u64;
    may_reach_next || asks_for_each(host) || host.checks_fetches_of(frame) || host.checks_each(frame) || may_nest()
}

/// Copies the code from this address in this process on, where the vCPU may execute it and somebody may not read it: QEMU then reads nothing where it
/// is, and the page is closed to all meanwhile. What may not be executed is not copied, nor what is not there: QEMU's read of that is the fetch, which asks.
pub fn copies(code: u64, bytes: &mut [u8]) -> bool {
    let Some(hypervisor) = Hypervisor::get() else { return false };
    let vcpu = VcpuId(current::vcpu());
    hypervisor.host.memory.frame_at(code).is_some_and(|gfn| {
        hypervisor.host.may_only_execute(vcpu, gfn) && hypervisor.copy_of_code(vcpu, gfn, (code & 0xfff) as u16, bytes)
    })
}

/// What runs a guest's guest is looked for in any case.
fn may_nest() -> bool {
    view::running(current::vcpu()).is_some_and(|view| view.may_run_guests())
}

/// Whether the fetch of every block is checked, whatever its frame.
fn asks_for_each(host: &Host) -> bool {
    instrumentation::wanted() & instrumentation::ENTRY != 0 || host.anything_asks() || !host.can_drop_blocks()
}

/// A block is being translated.
pub fn translated(block: &Block) {
    let Some(hypervisor) = Hypervisor::get() else { return };
    TRANSLATIONS.fetch_add(1, Ordering::Relaxed);
    block.find_unfinished();
    if let Some(gfn) = hypervisor.host.vcpu(current::vcpu()).and_then(|vcpu| vcpu.trap.take_lent()) {
        hypervisor.host.hide(gfn);
    }
    let wanted = instrumentation::wanted_here();
    if hypervisor.host.reads_registers() {
        match ViewCheck::now() {
            ViewCheck::Unproven => {
                block.check_view_at_start();
                instrumentation::compares();
            }
            // Where QEMU does not tell where a vCPU's state is, the first block that it runs does.
            ViewCheck::Proven if !view::is_known(current::vcpu()) => block.check_view_at_start(),
            _ => {}
        }
    }
    if wanted == 0 && !hypervisor.host.has_stop_points() {
        return;
    }
    let code = view::code_size(current::vcpu());
    if wanted != 0 && code.is_none() {
        UNCHECKED.fetch_add(1, Ordering::Relaxed);
    }
    if wanted != 0 {
        prove_memory_map(hypervisor, block);
    }
    // Fetches are checked where a block begins, and nothing may be wanted but that.
    let fetches_alone = wanted & !(instrumentation::EXECUTE | instrumentation::ENTRY) == 0;
    let is_instrumented = wanted != 0 && (!fetches_alone || may_nest());
    let checks_each = wanted & instrumentation::EXECUTE != 0 && is_checked_throughout(hypervisor, block);
    let needs_all = is_instrumented || checks_each || hypervisor.host.has_stop_points();
    let count = if needs_all { usize::MAX } else { 1 };
    for (number, instruction) in block.instructions().take(count).enumerate() {
        if let Some(code) = code {
            // The step that is over comes before anything of this instruction, its fetch included.
            if wanted & instrumentation::STEP != 0 {
                instruction.call_step(recipes::OTHERS.keep(own_fetch(&instruction, code)));
            }
            if number == 0 || checks_each {
                check_fetch(hypervisor, &instruction, (wanted, checks_each), code);
            }
            if is_instrumented {
                instrument(&instruction, wanted, code);
            }
        }
        // Most instructions are shorter: their bytes are not even copied.
        if hypervisor.host.has_checkpoints && instruction.length() == decode::CHECKPOINT_LENGTH {
            let mut buffer = [0; 16];
            if decode::is_checkpoint(instruction.bytes(&mut buffer)) {
                stop_before(&instruction, None, code);
            }
        }
        // After its own accesses are checked: one that is stopped by them comes here once.
        if hypervisor.host.has_breakpoints()
            && let Some(breakpoint) = hypervisor.host.breakpoint(instruction.host_address())
        {
            stop_before(&instruction, Some(breakpoint), code);
        }
    }
}

/// Now and then: where QEMU reads the code in this process, and where the guest's tables and the machine's memory map say that
/// it is, must be the same byte of the memory file. A map that is wrong differs from the first sample on; once it has agreed, below or
/// above 4 GiB, what differs there is the guest's: it has changed its tables, and QEMU goes by what it kept of the old ones, as a
/// processor may.
fn prove_memory_map(hypervisor: &Hypervisor, block: &Block) {
    static BLOCKS: AtomicU32 = AtomicU32::new(0);
    static AGREED: [AtomicBool; 2] = [const { AtomicBool::new(false) }; 2];
    let agreed = |gfn: Gfn| &AGREED[usize::from(gfn.0 >> 20 != 0)];
    let is_due = BLOCKS.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE) || !AGREED[0].load(Ordering::Relaxed);
    if !is_due || ViewCheck::now() == ViewCheck::Unproven {
        return;
    }
    let (Some(first), Some(view)) = (block.instructions().next(), view::running(current::vcpu())) else { return };
    super::proof::act_on(hypervisor, proof::sample(&view));
    if view.code_size().is_none() || view.runs_nested() {
        return;
    }
    let Some(by_qemu) = hypervisor.host.memory.frame_at(first.host_address()) else { return };
    let gla = view.linear_instruction_pointer() & !0xfff | first.address() & 0xfff;
    let memory = FileTables(&hypervisor.host.memory);
    let tables = Addressed(&memory, view.physical_addresses());
    let Ok(gpa) = view.paging_mode().translate(&tables, gla, Judged::NOT) else { return };
    let by_map = gpa.gfn();
    if by_map == by_qemu {
        agreed(by_map).store(true, Ordering::Relaxed);
    } else if ![by_map, by_qemu].map(agreed).iter().all(|agreed| agreed.load(Ordering::Relaxed)) {
        let sentence =
            format!("code at {gla:#x} is in frame {by_qemu} for QEMU, and in {by_map} by tables and memory map");
        eprintln!("mem-event: {sentence}");
        hypervisor.host.crash(&sentence);
    }
}

/// Whether each instruction of a block is checked: its frame shows another one's memory in some view, where single instructions are others.
fn is_checked_throughout(hypervisor: &Hypervisor, block: &Block) -> bool {
    let first = block.instructions().next();
    let frame = first.and_then(|first| hypervisor.host.memory.frame_at(first.host_address()));
    frame.is_some_and(|gfn| hypervisor.host.checks_each(gfn))
}

/// Has the fetch of a block checked, where its frame may not be executed, where it reaches into another page, and where each block's is.
fn check_fetch(hypervisor: &Hypervisor, first: &Instruction<'_>, (wanted, is_each): (u16, bool), code: CodeSize) {
    let host = &hypervisor.host;
    if wanted & (instrumentation::EXECUTE | instrumentation::ENTRY) == 0 {
        return;
    }
    let offset = (first.address() & 0xfff) as u16;
    let frame = host.memory.frame_at(first.host_address());
    let is_checked = frame.is_some_and(|gfn| host.checks_fetches_of(gfn));
    let reaches_next = usize::from(offset) + first.length() > 0x1000;
    if is_each || is_checked || reaches_next || asks_for_each(host) {
        let next = reaches_next.then(|| Recipe::fetch(offset, 0x1000, 0, code));
        first.call_start(recipes::STARTS.keep(BlockStart { fetch: own_fetch(first, code), frame, next }));
    }
}

fn instrument(instruction: &Instruction<'_>, wanted: u16, code: CodeSize) {
    let mut buffer = [0; 16];
    let bytes = instruction.bytes(&mut buffer);
    let address = instruction.address();
    // Whatever is wanted: after a `vmrun` the same linear addresses are others.
    let uses_control_block = decode::uses_control_block(bytes);
    if wanted & !(instrumentation::STEP | instrumentation::EXECUTE | instrumentation::ENTRY) == 0 && !uses_control_block
    {
        return;
    }
    let recipe = match READER.with_borrow_mut(|reader| reader.read(bytes, address, code)) {
        Decoded::Nothing => None,
        Decoded::Touches(recipe) => Some(recipe),
        Decoded::Unforeseen(name) => {
            note_unforeseen(name);
            None
        }
    };
    if wanted & instrumentation::VERIFY != 0 {
        instruction.verify(recipes::SUBJECTS.keep(Subject::new(recipe.clone(), bytes, code)));
    }
    let Some(recipe) = recipe else { return };
    if recipe.needs_vectors()
        && let Some(view) = view::view_of(current::vcpu())
    {
        // The `mmu` gate has no other moment for it.
        view.prove_vectors();
    }
    if wanted & instrumentation::NOTE != 0 && stood_in::explains(&recipe) {
        instruction.note(recipes::OTHERS.keep(recipe.clone()));
    }
    let is_told = wanted & instrumentation::checks(recipe.special) != 0;
    let special = if is_told || !recipe.special.is_only_told() { recipe.special } else { Special::Nothing };
    let recipe = Recipe { special, ..recipe };
    let does_nothing = recipe.operands.is_empty() && special == Special::Nothing;
    if wanted & instrumentation::ACCESS != 0 && !does_nothing {
        call_before(instruction, recipe);
    } else if uses_control_block || is_told {
        // What says what a register is written with must be there, and is looked at. What exits has its accesses first: it would be told again
        // after each wait for one.
        let operands = if recipe.special.writes_from_memory() || recipe.special.exits() {
            recipe.operands
        } else {
            Box::default()
        };
        call_before(instruction, Recipe { operands, ..recipe });
    }
}

fn stop_before(instruction: &Instruction<'_>, breakpoint: Option<Gpa>, code: Option<CodeSize>) {
    let fetch = own_fetch(instruction, code.unwrap_or(CodeSize::Bits64));
    instruction.call_stop(recipes::STOPS.keep(StopPoint { fetch, breakpoint }));
}

/// The recipe of an instruction's own fetch, which knows its address.
fn own_fetch(instruction: &Instruction<'_>, code: CodeSize) -> Recipe {
    let offset = (instruction.address() & 0xfff) as u16;
    Recipe::fetch(offset, offset, 0, code)
}

fn call_before(instruction: &Instruction<'_>, recipe: Recipe) {
    match Quick::of(&recipe, &layout::register_offsets()) {
        // The quick checks read in place.
        Some((quick, shape, part)) if ViewCheck::now() != ViewCheck::Api && layout::is_known() => {
            let recipe = recipes::QUICK.keep(QuickRecipe { quick, recipe: Box::new(recipe) });
            instruction.call_before_quick(recipe, shape, part);
        }
        _ => instruction.call_before(recipes::OTHERS.keep(recipe)),
    }
}

/// QEMU dropped all its blocks; no recipe is in use.
pub fn flushed() {
    if let Some(hypervisor) = Hypervisor::get() {
        hypervisor.host.forget_recipes();
        hypervisor.host.has_no_blocks();
    }
    verify::collect();
    recipes::SUBJECTS.free();
    recipes::QUICK.free();
    recipes::OTHERS.free();
    recipes::STARTS.free();
    recipes::STOPS.free();
    instrumentation::flushed();
}

static TRANSLATIONS: AtomicU64 = AtomicU64::new(0);

/// Blocks that were translated while there was something to instrument: the others do not come here.
pub fn translations() -> u64 {
    TRANSLATIONS.load(Ordering::Relaxed)
}

static UNCHECKED: AtomicU64 = AtomicU64::new(0);

/// Blocks that were translated without checks while accesses were watched.
pub fn unchecked() -> u64 {
    UNCHECKED.load(Ordering::Relaxed)
}

static UNFORESEEN: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

fn note_unforeseen(name: String) {
    if let Ok(mut names) = UNFORESEEN.lock() {
        *names.entry(name).or_insert(0) += 1;
    }
}

/// The instructions that were translated and whose accesses cannot be foreseen, with how many of each.
pub fn unforeseen() -> Vec<(String, u64)> {
    UNFORESEEN
        .lock()
        .map(|names| names.iter().map(|(name, count)| (name.clone(), *count)).collect())
        .unwrap_or_default()
}
