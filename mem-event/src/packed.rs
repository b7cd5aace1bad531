//! A request in four whole words, as it is kept until its answer.
//!
//! On the hot path it is written from registers and compared by two loads. A copy of a [`Request`] would have to wait until its
//! many small stores have reached the cache.

use crate::event::{Flags, Reason, Request};
use crate::number::{Gfn, Gla, VcpuId};
use crate::p2m::P2mType;
use crate::rights::Rights;
use bincode::{Decode, Encode};

/// See the module. `rest` holds, from the lowest byte: offset (2), rights, reason, p2m type, whether `gla` is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Packed {
    /// Flags in the lower half, the vCPU in the upper.
    head: u64,
    gfn: u64,
    gla: u64,
    rest: u64,
}

impl Packed {
    #[inline(always)]
    pub fn new(request: &Request) -> Packed {
        let known = u64::from(request.gla.is_some());
        let small = u64::from(request.offset)
            | u64::from(request.rights.bits()) << 16
            | (request.reason as u64) << 24
            | (request.p2mt as u64) << 32;
        Packed {
            head: u64::from(request.flags.0) | u64::from(request.vcpu.0) << 32,
            gfn: request.gfn.0,
            gla: request.gla.map_or(0, |gla| gla.0),
            rest: small | known << 40,
        }
    }

    #[inline(always)]
    pub fn flags(&self) -> Flags {
        Flags((self.head & 0xffff_ffff) as u32)
    }

    #[inline(always)]
    pub fn vcpu(&self) -> u32 {
        (self.head >> 32) as u32
    }

    #[inline(always)]
    pub fn gfn(&self) -> Gfn {
        Gfn(self.gfn)
    }

    /// Whether a response with these fields is the answer.
    #[inline(always)]
    pub fn is_answered_by(&self, flags: Flags, vcpu: u32, gfn: Gfn) -> bool {
        let pauses = Flags::VCPU_PAUSED;
        self.gfn == gfn.0 && self.vcpu() == vcpu && self.flags().contains(pauses) == flags.contains(pauses)
    }

    /// Whether the words are a request, as those that came from a file may not be.
    pub fn is_whole(&self) -> bool {
        let (reason, p2mt) = ((self.rest >> 24 & 0xff) as usize, (self.rest >> 32 & 0xff) as usize);
        reason < Reason::ALL.len() && p2mt < P2mType::ALL.len()
    }

    pub fn request(&self) -> Request {
        Request {
            reason: Reason::ALL[(self.rest >> 24 & 0xff) as usize],
            flags: self.flags(),
            vcpu: VcpuId(self.vcpu()),
            gfn: self.gfn(),
            offset: (self.rest & 0xffff) as u16,
            gla: (self.rest >> 40 & 1 == 1).then_some(Gla(self.gla)),
            p2mt: P2mType::ALL[(self.rest >> 32 & 0xff) as usize],
            rights: Rights::from_bits((self.rest >> 16 & 7) as u8),
        }
    }
}
