//! Fidelity: each predicted access compared with what QEMU's own memory callbacks report after it.
//!
//! QEMU reports what its generated code and its helpers load and store; in 10.0 also those helpers that can go through host pointers
//! (`fxsave`, `xsave` and their restores). It does not report what is no instruction's own access (page walks, interrupt delivery),
//! and does nothing for `clflush`. So *predicted but not done* is no fault by itself: masked elements, an instruction that faulted.
//! What the processor reads and writes in its own tables, as an instruction loads a segment or a task, is told apart by where it
//! lies: that is for the host's MMU.
//! *Done but not predicted* is what is left: an access that no event would have been raised for.

use crate::engine::hypervisor::Hypervisor;
use crate::host::processor::Processor;
use crate::insn::recipe::{Recipe, Touch};
use crate::insn::recipes;
use crate::insn::registers::Registers;
use crate::insn::special::Special;
use crate::insn::subject::Subject;
use crate::qemu::view::{View, view_of};
use mem_event::Rights;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How often what, for one kind of instruction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Predicted and done.
    pub matched: u64,
    /// Predicted, and not reported as done.
    pub not_done: u64,
    /// Done and not predicted.
    pub not_predicted: u64,
    /// Done in the processor's own tables: descriptors, the task state, a control block.
    pub in_tables: u64,
    /// One that did not match: disassembly and what was, or was not, done. What was not predicted goes first.
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

/// An instruction is about to run: what the one before it left undone is counted.
pub fn predict(subject: &'static Subject, view: &View) {
    let Some(hypervisor) = Hypervisor::get() else { return };
    let processor = Processor { view, memory: &hypervisor.host.memory };
    EXPECTED.with_borrow_mut(|expected| {
        expected.close();
        expected.subject = Some(subject);
        if let Some(recipe) = &subject.recipe {
            if recipe.needs_vectors() {
                view.prove_vectors();
            }
            for number in 0..recipe.operands.len() {
                expected
                    .touches
                    .extend(reaches(recipe, &processor, number).map(|(touch, bytes)| (touch, bytes, false)));
            }
        }
    });
}

/// What all steps of an operand cover together: the lowest touch and how many bytes, for each part that lies in one piece.
fn reaches(recipe: &Recipe, registers: &impl Registers, number: usize) -> impl Iterator<Item = (Touch, u64)> {
    let count = recipe.count(registers);
    let first = recipe.touch(registers, number, 0);
    let nothing = (count == 0 || first.size == 0).then_some((first, 0));
    let steps = if nothing.is_some() { 0 } else { count };
    let begins = std::iter::successors(Some(0), move |step| Some(recipe.next_wrap(registers, number, *step)));
    let pieces = begins.take_while(move |step| *step < steps).map(move |step| {
        let end = recipe.next_wrap(registers, number, step).min(steps);
        let [from, to] = [step, end - 1].map(|step| recipe.touch(registers, number, step));
        let lowest = if registers.direction() < 0 { to.gla } else { from.gla };
        (Touch { gla: lowest, ..first }, from.gla.abs_diff(to.gla) + u64::from(first.size))
    });
    nothing.into_iter().chain(pieces)
}

/// QEMU reports an access of this instruction.
pub fn done(subject: &'static Subject, vcpu: u32, gla: u64, size: u16, rights: Rights) {
    EXPECTED.with_borrow_mut(|expected| {
        let fits = |(touch, bytes, _): &(Touch, u64, bool)| {
            let into = gla.wrapping_sub(touch.gla);
            into < *bytes && into + u64::from(size) <= *bytes && touch.rights.contains(rights)
        };
        // Two operands may be one place.
        let new = expected.touches.iter().position(|expected| fits(expected) && !expected.2);
        if let Some(hit) = new.or_else(|| expected.touches.iter().position(fits)) {
            expected.touches[hit].2 = true;
        } else if is_in_tables(subject, vcpu, gla) {
            subject.in_tables.fetch_add(1, Ordering::Relaxed);
            subject.undone.get_or_init(|| subject.example("", rights, size.into(), gla));
        } else {
            subject.not_predicted.fetch_add(1, Ordering::Relaxed);
            subject.unforeseen.get_or_init(|| subject.example("", rights, size.into(), gla));
        }
    });
}

/// Whether this touch is the processor's own, in a table that such an instruction makes it use.
fn is_in_tables(subject: &Subject, vcpu: u32, gla: u64) -> bool {
    let in_table = |view: View| view.system_tables().iter().flatten().any(|table| table.contains(&gla));
    subject.uses_tables() && view_of(vcpu).is_some_and(in_table) || is_in_control_block(subject, vcpu, gla)
}

/// The same of a control block of SVM, and of the page where `vmrun` keeps its own state meanwhile. Both have physical addresses, and QEMU
/// reports those.
fn is_in_control_block(subject: &Subject, vcpu: u32, gla: u64) -> bool {
    let Some(Special::ControlBlock(block)) = subject.recipe.as_ref().map(|recipe| recipe.special) else { return false };
    let Some(view) = view_of(vcpu) else { return false };
    let kept = view.host_state().filter(|_| block.enters);
    [Some(block.address(&view).0), kept].into_iter().flatten().any(|page| page >> 12 == gla >> 12)
}

impl Expected {
    fn close(&mut self) {
        let Some(subject) = self.subject.take() else { return };
        for (touch, bytes, is_done) in self.touches.drain(..) {
            if is_done {
                subject.matched.fetch_add(1, Ordering::Relaxed);
            } else if bytes > 0 {
                subject.not_done.fetch_add(1, Ordering::Relaxed);
                subject.undone.get_or_init(|| subject.example("no ", touch.rights, bytes, touch.gla));
            }
        }
    }
}

/// Adds up what is known of all instructions that have a block now.
pub fn collect() {
    let mut counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    recipes::SUBJECTS.for_each(|subject| {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let (matched, not_done) = (take(&subject.matched), take(&subject.not_done));
        let (not_predicted, in_tables) = (take(&subject.not_predicted), take(&subject.in_tables));
        if matched + not_done + not_predicted + in_tables == 0 {
            return;
        }
        let mnemonic = format!("{:?}", subject.instruction().mnemonic()).to_lowercase();
        let count = counts.entry(mnemonic).or_default();
        count.matched += matched;
        count.not_done += not_done;
        count.not_predicted += not_predicted;
        count.in_tables += in_tables;
        if count.example.is_empty() || not_predicted > 0 && count.not_predicted == not_predicted {
            count.example = subject.unforeseen.get().or(subject.undone.get()).cloned().unwrap_or_default();
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
            "accesses: {} matched, {} predicted but not done, {} in the processor's own tables, {} done but not predicted",
            sum(|count| count.matched),
            sum(|count| count.not_done),
            sum(|count| count.in_tables),
            sum(|count| count.not_predicted)
        )?;
        let strange = |count: &Count| count.not_done + count.not_predicted + count.in_tables > 0;
        let mut worst: Vec<_> = self.0.iter().filter(|(_, count)| strange(count)).collect();
        worst.sort_by_key(|(_, count)| std::cmp::Reverse((count.not_predicted, count.not_done, count.in_tables)));
        for (mnemonic, count) in worst {
            writeln!(
                f,
                "  {mnemonic:12} {:>12} matched {:>9} not done {:>9} in tables {:>9} not predicted  {}",
                count.matched, count.not_done, count.in_tables, count.not_predicted, count.example
            )?;
        }
        Ok(())
    }
}
