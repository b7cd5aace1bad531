//! The events of a trace, as what a debugger can stop at.

use crate::toolstack::sequence::rip;
use mem_event::registers::Registers;
use mem_event::trace::{End, Remark, Tape};
use mem_event::{Effect, Flags, VcpuId};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read, Seek};

/// An event that a vCPU made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its step, from 1.
    pub step: u64,
    /// Whose.
    pub vcpu: VcpuId,
    /// The address of the instruction; 0 where it is not known.
    pub rip: u64,
}

/// All events of a trace, and what it holds of code.
pub struct Events<R: Read + Seek> {
    tape: Tape<R>,
    /// In their order.
    pub list: Vec<Event>,
    /// Code by the address of its first byte, as it was first seen.
    code: BTreeMap<u64, Vec<u8>>,
}

impl<R: Read + Seek> Events<R> {
    /// Reads a trace, up to its end or its damage.
    pub fn of(mut tape: Tape<R>) -> (Events<R>, End) {
        let (mut list, mut code) = (Vec::new(), BTreeMap::new());
        let mut end = tape.end().clone();
        for number in 1..=tape.len() {
            let step = match tape.step(number) {
                Ok(step) => step,
                Err(damage) => {
                    end = damage;
                    break;
                }
            };
            let Some(vcpu) = step.effects.list.iter().find_map(made_by) else { continue };
            let rip = rip(&step.input);
            if let [_, bytes @ ..] = step.code.as_slice()
                && !bytes.is_empty()
            {
                code.entry(rip).or_insert_with(|| bytes.to_vec());
            }
            list.push(Event { step: number, vcpu, rip });
        }
        (Events { tape, list, code }, end)
    }

    /// The registers at an event, where its request carried them.
    pub fn registers(&mut self, event: Event) -> Option<Registers> {
        let before = self.tape.remarks(event.step - 1).ok()?;
        before.into_iter().rev().find_map(|remarked| match remarked.remark {
            Remark::Registers { vcpu, registers } if vcpu == event.vcpu => Some(*registers),
            _ => None,
        })
    }

    /// What an event was, in words.
    pub fn about(&mut self, event: Event) -> String {
        let kind = self.tape.step(event.step).map_or("unknown", |step| step.input.kind());
        format!("vCPU {}, step {}: {kind}", event.vcpu, event.step)
    }

    /// Bytes of the guest's memory from a linear address on, as many of so many as the trace holds.
    pub fn memory(&self, address: u64, length: usize) -> &[u8] {
        let near = self.code.range(..=address).next_back();
        let Some((start, bytes)) = near else { return &[] };
        let Ok(into) = usize::try_from(address - start) else { return &[] };
        let held = bytes.get(into..).unwrap_or_default();
        &held[..held.len().min(length)]
    }
}

impl<R: Read + Seek> fmt::Debug for Events<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("list", &self.list).finish_non_exhaustive()
    }
}

fn made_by(effect: &Effect) -> Option<VcpuId> {
    match effect {
        Effect::Requested { request, .. } if !request.flags.contains(Flags::FOREIGN) => Some(request.vcpu),
        _ => None,
    }
}
