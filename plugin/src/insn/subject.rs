//! An instruction whose predicted accesses are compared with those that are done.

use crate::insn::decode::OPTIONS;
use crate::insn::recipe::Recipe;
use crate::insn::registers::CodeSize;
use iced_x86::{Decoder, Formatter, Instruction, IntelFormatter, Mnemonic, OpKind, Register};
use mem_event::Rights;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

/// An instruction under test, with what was found.
#[derive(Debug)]
pub struct Subject {
    /// What is predicted; none where no access can be foreseen.
    pub recipe: Option<Recipe>,
    /// Its bytes.
    pub bytes: Box<[u8]>,
    /// How they decode.
    pub code: CodeSize,
    /// Accesses predicted and done.
    pub matched: AtomicU64,
    /// Accesses predicted, and not reported as done.
    pub not_done: AtomicU64,
    /// Accesses done and not predicted.
    pub not_predicted: AtomicU64,
    /// Accesses in the processor's own tables.
    pub in_tables: AtomicU64,
    /// What was done and not predicted, once.
    pub unforeseen: OnceLock<String>,
    /// What was predicted and not done, or done in the processor's tables, once.
    pub undone: OnceLock<String>,
}

impl Subject {
    /// An instruction with what was predicted of it.
    pub fn new(recipe: Option<Recipe>, bytes: &[u8], code: CodeSize) -> Subject {
        Subject {
            recipe,
            bytes: bytes.into(),
            code,
            matched: AtomicU64::new(0),
            not_done: AtomicU64::new(0),
            not_predicted: AtomicU64::new(0),
            in_tables: AtomicU64::new(0),
            unforeseen: OnceLock::new(),
            undone: OnceLock::new(),
        }
    }

    /// It, decoded.
    pub fn instruction(&self) -> Instruction {
        Decoder::new(self.code.bits().into(), &self.bytes, OPTIONS).decode()
    }

    /// Whether it makes the processor look into its descriptor tables or its task state.
    pub fn uses_tables(&self) -> bool {
        uses_tables(&self.instruction())
    }

    /// Whether its access to memory is atomic.
    pub fn is_locked(&self) -> bool {
        let instruction = self.instruction();
        instruction.has_lock_prefix() || instruction.mnemonic() == Mnemonic::Xchg
    }

    /// Whether no interrupt comes between it and the next one: `sti`, and what loads SS.
    pub fn holds_interrupts_off(&self) -> bool {
        let instruction = self.instruction();
        matches!(instruction.mnemonic(), Mnemonic::Sti | Mnemonic::Lss)
            || matches!(instruction.mnemonic(), Mnemonic::Mov | Mnemonic::Pop)
                && instruction.op0_register() == Register::SS
    }

    /// One access of it, in words.
    pub fn example(&self, no: &str, rights: Rights, bytes: u64, gla: u64) -> String {
        let mut text = String::new();
        IntelFormatter::new().format(&self.instruction(), &mut text);
        text + &format!(": {no}{rights} of {bytes} bytes at {gla:#x}")
    }
}

/// Whether the instruction makes the processor look into its descriptor tables or its task state.
fn uses_tables(instruction: &Instruction) -> bool {
    use Mnemonic::{
        In, Insb, Insd, Insw, Int, Int1, Int3, Into, Iret, Iretd, Iretq, Lar, Lds, Les, Lfs, Lgs, Lldt, Lsl, Lss, Ltr,
        Out, Outsb, Outsd, Outsw, Retf, Verr, Verw,
    };
    let loads_segment = instruction.op0_kind() == OpKind::Register && instruction.op0_register().is_segment_register();
    let goes_far = instruction.is_jmp_far()
        || instruction.is_jmp_far_indirect()
        || instruction.is_call_far()
        || instruction.is_call_far_indirect();
    let by_itself = matches!(
        instruction.mnemonic(),
        In | Insb
            | Insd
            | Insw
            | Int
            | Int1
            | Int3
            | Into
            | Iret
            | Iretd
            | Iretq
            | Lar
            | Lds
            | Les
            | Lfs
            | Lgs
            | Lldt
            | Lsl
            | Lss
            | Ltr
            | Out
            | Outsb
            | Outsd
            | Outsw
            | Retf
            | Verr
            | Verw
    );
    loads_segment || goes_far || by_itself
}
