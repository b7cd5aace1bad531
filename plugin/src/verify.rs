//! Fidelity: each predicted access compared with what QEMU's own memory callbacks report after it.
//!
//! QEMU reports what its generated code loads and stores. It does not report what its helpers do through host pointers
//! (`fxsave`, `xsave` and their restores), nor what is no instruction's own access (page walks, interrupt delivery). So
//! *predicted but not done* is no fault by itself: helpers, masked elements, an instruction that faulted. *Done but not
//! predicted* is an access that no event would have been raised for.

use crate::qemu::View;
use crate::recipe::{Recipe, Touch};
use crate::recipes;
use crate::registers::{CodeSize, Registers};
use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use mem_event::Rights;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// An instruction under test, with what was found.
#[derive(Debug)]
pub struct Subject {
    recipe: Option<Recipe>,
    bytes: Box<[u8]>,
    code: CodeSize,
    matched: AtomicU64,
    not_done: AtomicU64,
    not_predicted: AtomicU64,
    example: OnceLock<String>,
}

/// How often what, for one kind of instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Predicted and done.
    pub matched: u64,
    /// Predicted, and not reported as done.
    pub not_done: u64,
    /// Done and not predicted.
    pub not_predicted: u64,
    /// One that was done and not predicted: disassembly and what was done.
    pub example: String,
}

/// What the instruction that runs now is to touch: an operand's first touch, the bytes it covers in all, whether it was done.
#[derive(Default)]
struct Expected {
    subject: Option<&'static Subject>,
    touches: Vec<(Touch, u64, bool)>,
}

thread_local! {
    static EXPECTED: RefCell<Expected> = RefCell::default();
}

/// The counts of instructions whose blocks are gone, by mnemonic.
static COUNTS: Mutex<BTreeMap<String, Count>> = Mutex::new(BTreeMap::new());

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
            example: OnceLock::new(),
        }
    }

    fn disassembly(&self) -> String {
        let bits = match self.code {
            CodeSize::Bits16 => 16,
            CodeSize::Bits32 => 32,
            CodeSize::Bits64 => 64,
        };
        let mut text = String::new();
        IntelFormatter::new().format(&Decoder::new(bits, &self.bytes, DecoderOptions::NONE).decode(), &mut text);
        text
    }
}

/// An instruction is about to run: what the one before it left undone is counted.
pub fn predict(subject: &'static Subject, view: &View) {
    EXPECTED.with_borrow_mut(|expected| {
        expected.close();
        expected.subject = Some(subject);
        if let Some(recipe) = &subject.recipe {
            expected.touches.extend((0..recipe.operands.len()).map(|number| {
                let (touch, bytes) = reach(recipe, view, number);
                (touch, bytes, false)
            }));
        }
    });
}

/// The lowest touch of an operand, and how many bytes all its steps cover together.
fn reach(recipe: &Recipe, view: &View, number: usize) -> (Touch, u64) {
    let first = recipe.touch(view, number, 0);
    let last = match recipe.count(view) {
        0 => return (first, 0),
        steps => recipe.touch(view, number, steps - 1),
    };
    let lowest = if view.direction() < 0 { last.gla } else { first.gla };
    (Touch { gla: lowest, ..first }, first.gla.abs_diff(last.gla) + u64::from(first.size))
}

/// QEMU reports an access of this instruction.
pub fn done(subject: &'static Subject, gla: u64, size: u16, rights: Rights) {
    EXPECTED.with_borrow_mut(|expected| {
        let hit = expected.touches.iter_mut().find(|(touch, bytes, _)| {
            let into = gla.wrapping_sub(touch.gla);
            into < *bytes && into + u64::from(size) <= *bytes && touch.rights.contains(rights)
        });
        if let Some((_, _, is_done)) = hit {
            *is_done = true;
        } else {
            subject.not_predicted.fetch_add(1, Ordering::Relaxed);
            subject.example.get_or_init(|| format!("{}: {rights} of {size} bytes at {gla:#x}", subject.disassembly()));
        }
    });
}

impl Expected {
    fn close(&mut self) {
        let Some(subject) = self.subject.take() else { return };
        for (_, bytes, is_done) in self.touches.drain(..) {
            if is_done {
                subject.matched.fetch_add(1, Ordering::Relaxed);
            } else if bytes > 0 {
                subject.not_done.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Adds up what is known of all instructions that have a block now.
pub fn collect() {
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    recipes::SUBJECTS.for_each(|subject| {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let (matched, not_done, not_predicted) =
            (take(&subject.matched), take(&subject.not_done), take(&subject.not_predicted));
        if matched + not_done + not_predicted == 0 {
            return;
        }
        let text = subject.disassembly();
        let mnemonic =
            text.split_whitespace().find(|word| !matches!(*word, "lock" | "rep" | "repe" | "repne" | "notrack"));
        let count = counts.entry(mnemonic.unwrap_or("?").to_owned()).or_default();
        count.matched += matched;
        count.not_done += not_done;
        count.not_predicted += not_predicted;
        if count.example.is_empty() {
            count.example = subject.example.get().cloned().unwrap_or_default();
        }
    });
}

/// All counts so far.
pub fn report() -> Report {
    collect();
    Report(COUNTS.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// The counts by mnemonic, to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report(BTreeMap<String, Count>);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |part: fn(&Count) -> u64| self.0.values().map(part).sum::<u64>();
        writeln!(
            f,
            "accesses: {} matched, {} predicted but not done, {} done but not predicted",
            sum(|count| count.matched),
            sum(|count| count.not_done),
            sum(|count| count.not_predicted)
        )?;
        let mut worst: Vec<_> = self.0.iter().filter(|(_, count)| count.not_done + count.not_predicted > 0).collect();
        worst.sort_by_key(|(_, count)| std::cmp::Reverse((count.not_predicted, count.not_done)));
        for (mnemonic, count) in worst.into_iter().take(20) {
            writeln!(
                f,
                "  {mnemonic:12} {:>12} matched {:>9} not done {:>9} not predicted  {}",
                count.matched, count.not_done, count.not_predicted, count.example
            )?;
        }
        Ok(())
    }
}
