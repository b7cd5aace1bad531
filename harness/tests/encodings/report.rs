//! What became of the table's instructions, as the document says it.

use super::table::Encoding;
use iced_x86::{Code, EncodingKind};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

const STEP: u8 = 1;
const INVALID_OPCODE: u8 = 6;
/// What the guest tells of an instruction that no exception ended.
const NONE: u8 = 31;
const PROTECTION: u8 = 13;
const PAGE: u8 = 14;

/// What stands before the generated part.
const HEAD: &str = "\
# Instructions

What the check before an instruction foresees is compared here with what QEMU does, for every instruction that iced-x86 decodes and QEMU has a
decoder for, with each form of addressing, each operand size and each prefix that changes one of these. `harness/tests/encodings/` makes them, the guest
`encodings` runs each once in ring 3 on `-cpu max`, in long mode, under `verify=on`; then in ring 0 those that ring 3 refuses; then calls,
returns and interrupts from ring to ring, in code of each size. The test holds this document against what came out
(`MEM_EVENT_INSTRUCTIONS=write` writes it anew). The numbers are QEMU 10.0's.

Forms: a base register, with a displacement of 8 and of 32 bits, by RSP, by R8; base and index; index alone; relative to the instruction
pointer; absolute; addresses of 32 bits in 64-bit code; the segments ES, CS, SS, FS and GS. Prefixes: operand size, REX.W, REP, REPNE, LOCK; VEX
with each length, W and prefix. In 16-bit code: each pair of registers, one, displacements, and an address of 32 bits.

Not run here: what would take the guest its tables, its interrupts or its vector registers in ring 0 (`hlt`, `lgdt`, `lidt`, `lmsw`, `mov` to
control and debug registers, which the guests `operands`, `cpu_events` and `machine_status` run); code outside of long mode, which the guest `modes` runs, since one guest is in one mode:
there, a gate of 32 or 16 bits with parameters, a return to virtual-8086 mode. They are foreseen, by the tests of `plugin/tests/recipe.rs`.

Foreseen nowhere, and left to the host's MMU: what a switch of tasks keeps and takes (a call or a jump to a task, an interrupt through a task's
gate, `iret` with NT); the frame that `int` has the processor push, as any interrupt's.
";

/// Where QEMU does other than the manuals say.
const DIALECT: &str = "\
## What QEMU does other than the manuals say

What is foreseen is what QEMU does (`plugin/src/insn/dialect.rs`, `plugin/src/insn/bounds.rs`):

| instruction | the manuals | QEMU |
|---|---|---|
| `cvtdq2pd`, `vcvtdq2pd`, `punpckl…` of MMX, scalar `vf[n]madd…`, `vf[n]msub…`, `vinsertf128`, `vinserti128`, shifts of YMM by memory | read what they need | reads as many bytes as the register has |
| masked loads | read the elements of the mask | reads all |
| `push` of memory with an operand-size prefix in 64-bit code | reads two bytes | reads eight, and pushes two |
| a REX prefix before another prefix | does not count | counts |
| VEX in 16-bit code | as in other code | an invalid opcode |
| `movbe`, `crc32` in 16-bit code | 16 bits without an operand-size prefix, 32 with one | 32 and 16 |
| `bndldx`, `bndstx` in 64-bit code | the directory's base from bit 12 on | from bit 20 on |
| `clflush`, `clflushopt`, `clwb` | count as reads | does nothing: foreseen, and not done |

";

/// The vectors that the guest tells, as numbers.
pub fn vectors(console: &str) -> Vec<u8> {
    let lines = console.lines().filter_map(|line| line.strip_prefix("vectors "));
    lines.flat_map(|line| line.trim_end().bytes().map(|letter| letter.wrapping_sub(b'A'))).collect()
}

/// The document.
pub fn document(columns: &[(&[Encoding], &[u8])], not_foreseen: u64) -> String {
    let mut text = String::from(HEAD);
    text += "\n| | 64-bit code | 32-bit code | 16-bit code | ring 0 | from ring to ring |\n|---|---|---|---|---|---|\n";
    let counts: Vec<Counts> = columns.iter().map(|(encodings, vectors)| Counts::of(encodings, vectors)).collect();
    let mut row = |what: &str, part: fn(&Counts) -> usize| {
        let cells: String = counts.iter().map(|counts| format!(" {} |", part(counts))).collect();
        writeln!(text, "| {what} |{cells}").unwrap();
    };
    row("encodings run", |counts| counts.run);
    row("of so many instructions", |counts| counts.codes);
    row("with a memory operand that they name", |counts| counts.with_memory);
    row("ended by the step after them", |counts| counts.stepped);
    row("by nothing: an interrupt of their own", |counts| counts.untrapped);
    row("by an invalid opcode", |counts| counts.invalid);
    row("by a general protection fault", |counts| counts.protected);
    row("by a page fault", |counts| counts.paged);
    row("by another exception", |counts| {
        counts.run - counts.stepped - counts.untrapped - counts.invalid - counts.protected - counts.paged
    });
    writeln!(text, "\nAccesses done and not foreseen: {not_foreseen}.\n").unwrap();
    text += DIALECT;
    let in_ring_3 = &columns[..3];
    let all = || in_ring_3.iter().flat_map(|(encodings, vectors)| encodings.iter().zip(*vectors));
    text += "## Not run: QEMU does not know them\n\nEach encoding is an invalid opcode on `-cpu max`:\n\n";
    paragraph(&mut text, &always(all(), INVALID_OPCODE));
    text += "\n## Not run to their end: refused in ring 3\n\nEach encoding is a general protection fault, for the privilege level, a port or a selector:\n\n";
    paragraph(&mut text, &always(all(), PROTECTION));
    text += "\n## Not tried: encodings that QEMU has no decoder for\n\n| encoding | instructions |\n|---|---|\n";
    for (kind, count) in not_tried() {
        writeln!(text, "| {kind} | {count} |").unwrap();
    }
    text
}

struct Counts {
    run: usize,
    codes: usize,
    with_memory: usize,
    stepped: usize,
    untrapped: usize,
    invalid: usize,
    protected: usize,
    paged: usize,
}

impl Counts {
    fn of(encodings: &[Encoding], vectors: &[u8]) -> Counts {
        let ended_by = |due: u8| vectors.iter().filter(|vector| **vector == due).count();
        Counts {
            run: encodings.len(),
            codes: encodings.iter().map(|encoding| encoding.instruction.code()).collect::<BTreeSet<_>>().len(),
            with_memory: encodings.iter().filter(|encoding| encoding.names_memory()).count(),
            stepped: ended_by(STEP),
            untrapped: ended_by(NONE),
            invalid: ended_by(INVALID_OPCODE),
            protected: ended_by(PROTECTION),
            paged: ended_by(PAGE),
        }
    }
}

/// The names of instructions all of whose encodings were ended so.
fn always<'a>(all: impl Iterator<Item = (&'a Encoding, &'a u8)>, due: u8) -> BTreeSet<String> {
    let mut names: BTreeMap<String, bool> = BTreeMap::new();
    for (encoding, vector) in all {
        *names.entry(encoding.name()).or_insert(true) &= *vector == due;
    }
    names.into_iter().filter(|(_, always)| *always).map(|(name, _)| name).collect()
}

fn paragraph(text: &mut String, names: &BTreeSet<String>) {
    let mut column = 0;
    for (number, name) in names.iter().enumerate() {
        let word = format!("`{name}`{}", if number + 1 == names.len() { "." } else { "," });
        if column + word.len() > 130 {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
        }
        text.push_str(&word);
        column += word.len() + 1;
    }
    text.push('\n');
}

fn not_tried() -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for code in Code::values().filter(|code| code.op_code().is_instruction()) {
        let kind = code.op_code().encoding();
        if !matches!(kind, EncodingKind::Legacy | EncodingKind::VEX | EncodingKind::D3NOW) {
            *kinds.entry(format!("{kind:?}")).or_insert(0) += 1;
        }
    }
    kinds
}
