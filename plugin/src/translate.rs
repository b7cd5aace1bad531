//! What happens when QEMU translates a block: each instruction that touches memory gets its recipe.

use crate::decode::{self, Decoded, InstructionReader};
use crate::gate::QuickRecipe;
use crate::hypervisor::Hypervisor;
use crate::qemu::{Block, Instruction, PLACES, ViewCheck};
use crate::quick::Quick;
use crate::recipe::Recipe;
use crate::recipes;
use crate::registers::CodeSize;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Mutex;

thread_local! {
    static READER: RefCell<InstructionReader> = RefCell::new(InstructionReader::default());
    /// The vCPU of this thread: the translation callback of API 4 does not say.
    static VCPU: Cell<u32> = const { Cell::new(0) };
}

/// This thread runs that vCPU.
pub fn thread_runs(vcpu: u32) {
    VCPU.set(vcpu);
}

/// A block is being translated.
pub fn translated(block: &Block) {
    let Some(hypervisor) = Hypervisor::get() else { return };
    let gate = hypervisor.has_callback_gate();
    if gate && ViewCheck::now() == ViewCheck::Unproven {
        block.check_view_at_start();
    }
    let code = crate::gate::code_size(VCPU.get());
    let mut buffer = [0; 16];
    for (number, instruction) in block.instructions().enumerate() {
        let bytes = instruction.bytes(&mut buffer);
        if gate {
            for fetch in fetches(instruction.address(), bytes.len(), number == 0, code) {
                call_before(&instruction, fetch);
            }
        }
        if hypervisor.has_checkpoints() && decode::is_checkpoint(bytes) {
            instruction.call_checkpoint();
        } else if gate {
            let decoded = READER.with_borrow_mut(|reader| reader.read(bytes, instruction.address(), code));
            match decoded {
                Decoded::Nothing => {}
                Decoded::Touches(recipe) => call_before(&instruction, recipe),
                Decoded::Unforeseen(name) => note_unforeseen(name),
            }
        }
    }
}

/// The fetches that are checked before an instruction: a block's page where it begins, since all its instructions begin there,
/// and the next page before the one instruction that reaches into it.
fn fetches(address: u64, length: usize, begins: bool, code: CodeSize) -> impl Iterator<Item = Recipe> {
    let offset = (address & 0xfff) as u16;
    let beyond = usize::from(offset) + length > 0x1000;
    let first = begins.then(|| Recipe::fetch(offset, offset, 1, code));
    let next = beyond.then(|| Recipe::fetch(offset, 0x1000, 1, code));
    first.into_iter().chain(next)
}

fn call_before(instruction: &Instruction<'_>, recipe: Recipe) {
    match Quick::of(&recipe, &PLACES) {
        Some((quick, shape, part)) => {
            let recipe = recipes::QUICK.keep(QuickRecipe { quick, recipe: Box::new(recipe) });
            instruction.call_before_quick(recipe, shape, part);
        }
        None => instruction.call_before(recipes::OTHERS.keep(recipe)),
    }
}

/// QEMU dropped all its blocks; no recipe is in use.
pub fn flushed() {
    if let Some(hypervisor) = Hypervisor::get() {
        hypervisor.forget_recipes();
    }
    recipes::QUICK.free();
    recipes::OTHERS.free();
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
