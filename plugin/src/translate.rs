//! What happens when QEMU translates a block: each instruction that touches memory gets its recipe.

use crate::decode::{self, Decoded, InstructionReader};
use crate::gate::QuickRecipe;
use crate::hypervisor::Hypervisor;
use crate::qemu::{Block, PLACES, ViewCheck};
use crate::quick::Quick;
use crate::recipes;
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
    for instruction in block.instructions() {
        let bytes = instruction.bytes(&mut buffer);
        if hypervisor.has_checkpoints() && decode::is_checkpoint(bytes) {
            instruction.call_checkpoint();
        } else if gate {
            let decoded = READER.with_borrow_mut(|reader| reader.read(bytes, instruction.address(), code));
            match decoded {
                Decoded::Nothing => {}
                Decoded::Touches(recipe) => match Quick::of(&recipe, &PLACES) {
                    Some((quick, shape, half)) => {
                        let recipe = recipes::QUICK.keep(QuickRecipe { quick, recipe: Box::new(recipe) });
                        instruction.call_before_quick(recipe, shape, half);
                    }
                    None => instruction.call_before(recipes::OTHERS.keep(recipe)),
                },
                Decoded::Unforeseen(name) => note_unforeseen(name),
            }
        }
    }
}

/// QEMU dropped all its blocks; no recipe is in use.
pub fn flushed() {
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
