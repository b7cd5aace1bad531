//! What both sides of a trace know of the steps of a block that came before: a step tells what is otherwise than these.

use crate::control::Ring;
use crate::cpu_events::CpuEventKind;
use crate::effect::Effect;
use crate::event::Request;
use crate::input::{Access, AccessSource, CpuEvent};
use crate::number::{Gfn, Gla, VcpuId};
use crate::packed::Packed;
use crate::registers;
use crate::rights::Rights;
use crate::wire::{mem_event, vm_event};

/// Only of so many vCPUs something is kept: as many as a domain may have.
const VCPUS: u32 = 4096;
/// So many places of code are kept.
const CODES: usize = 64;
/// Bytes of code at most that are kept.
const CODE: usize = 16;

/// What is known of a block's steps so far.
pub(in crate::trace) struct Past {
    vcpus: Vec<OfVcpu>,
    codes: [Code; CODES],
    /// The last slot that was taken from each ring, of either size.
    pub small: [mem_event::Slot; 3],
    pub large: Box<[vm_event::Slot; 3]>,
}

/// What is known of a vCPU.
#[derive(Clone)]
pub(super) struct OfVcpu {
    pub access: Access,
    pub event: CpuEvent,
    /// The last request that was made for it, and on which ring.
    asked: Option<(Ring, Packed)>,
    pub registers: Option<Box<[u64; registers::WORDS]>>,
}

#[derive(Clone, Copy)]
struct Code {
    rip: u64,
    bytes: [u8; CODE],
    length: u8,
}

const NO_CODE: Code = Code { rip: 0, bytes: [0; CODE], length: 0 };

const OF_NEW_VCPU: OfVcpu = OfVcpu {
    access: Access {
        gfn: Gfn(0),
        offset: 0,
        gla: None,
        rights: Rights::NONE,
        source: AccessSource::Instruction,
        rip: 0,
    },
    event: CpuEvent { kind: CpuEventKind::Cr0, value: 0, old: 0, number: 0, rip: Gla(0), gfn: Gfn(0) },
    asked: None,
    registers: None,
};

impl Default for Past {
    fn default() -> Past {
        Past { vcpus: Vec::new(), codes: [NO_CODE; CODES], small: [[0; 5]; 3], large: Box::new([[0; 50]; 3]) }
    }
}

impl Past {
    /// Nothing is known: a block begins.
    pub fn forget(&mut self) {
        self.vcpus.clear();
        self.codes = [NO_CODE; CODES];
        self.small = [[0; 5]; 3];
        *self.large = [[0; 50]; 3];
    }

    /// Whether something is kept of a vCPU.
    #[inline]
    pub(super) fn knows(vcpu: VcpuId) -> bool {
        vcpu.0 < VCPUS
    }

    /// What is known of a vCPU of which something is kept.
    #[inline]
    pub(super) fn of(&mut self, vcpu: VcpuId) -> &mut OfVcpu {
        let at = (vcpu.0 % VCPUS) as usize;
        if at >= self.vcpus.len() {
            self.vcpus.resize(at + 1, OF_NEW_VCPU);
        }
        &mut self.vcpus[at]
    }

    /// The code that was last seen at an instruction.
    #[inline]
    pub(super) fn code(&self, rip: u64) -> &[u8] {
        let known = &self.codes[place(rip)];
        if known.rip == rip { &known.bytes[..usize::from(known.length)] } else { &[] }
    }

    /// The code at an instruction is this.
    pub(super) fn sees_code(&mut self, rip: u64, code: &[u8]) {
        let mut bytes = [0; CODE];
        if let (Some(kept), Ok(length)) = (bytes.get_mut(..code.len()), u8::try_from(code.len())) {
            kept.copy_from_slice(code);
            self.codes[place(rip)] = Code { rip, bytes, length };
        }
    }

    /// The last request of a vCPU on a ring.
    #[inline]
    pub(super) fn asked(&self, vcpu: u32, ring: Ring) -> Packed {
        match self.vcpus.get(vcpu as usize) {
            Some(OfVcpu { asked: Some((on, request)), .. }) if *on == ring => *request,
            _ => Packed::NOTHING,
        }
    }

    /// The same whole, where there is one.
    #[inline]
    pub(super) fn request(&self, vcpu: u32, ring: Ring) -> Option<Request> {
        let packed = self.asked(vcpu, ring);
        (packed != Packed::NOTHING && packed.is_whole()).then(|| packed.request())
    }

    /// A step has had these effects.
    #[inline]
    pub fn hears(&mut self, effects: &[Effect]) {
        for effect in effects {
            if let Effect::Requested { ring, request, .. } = effect
                && Past::knows(request.vcpu)
            {
                self.of(request.vcpu).asked = Some((*ring, Packed::new(request)));
            }
        }
    }
}

#[inline]
fn place(rip: u64) -> usize {
    (rip.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize
}
