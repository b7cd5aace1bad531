//! What the engine answers: what the caller must do now, and what must happen elsewhere.

use crate::control::Ring;
use crate::errno::Errno;
use crate::event::{Request, Response};
use crate::number::{Gfn, VcpuId};
use crate::registers::NewRegisters;
use crate::trap::Trap;
use bincode::{Decode, Encode};

/// What a stopped vCPU waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum WaitReason {
    /// The consumer's response on this ring.
    Answer(Ring),
    /// A free slot on this ring.
    Slot(Ring),
    /// A consumer for this ring.
    Consumer(Ring),
    /// A frame within the budget.
    Frame,
}

/// What the caller does now.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[must_use = "a vCPU that is told to wait and runs on breaks the protocol"]
pub enum Outcome {
    /// The access may happen, or the operation is done.
    Proceed,
    /// The operation is done and this is what it found.
    Value(u64),
    /// The vCPU stays stopped until [`Effect::Wake`] names it, then retries with the same input.
    Wait(WaitReason),
    /// A foreign caller must try again, at the latest after [`Effect::RetryForeign`]. A vCPU with a breakpoint fetches its
    /// instruction again.
    Retry(Errno),
    /// The operation is refused; the state is unchanged (but for a request that tells the helper of ENOMEM).
    Refused(Errno, String),
    /// The domain has crashed or is gone; nothing of it runs again.
    Crashed,
    /// The register's write was denied: the vCPU goes on behind the instruction, which is not done.
    Skip,
    /// The vCPU may do the whole instruction once, alone: while no other vCPU runs, and whatever the rights say (`Domain::emulation` has the
    /// rest). What comes of it is told by `Input::Emulated`.
    Alone,
}

/// One thing that must happen outside of the engine, in the order given.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Effect {
    /// A request was written into the ring page (for the record; nothing to do).
    Requested {
        /// The ring.
        ring: Ring,
        /// The slot's number in the page.
        slot: u32,
        /// The request.
        request: Request,
    },
    /// A response was taken from the ring page (for the record; nothing to do).
    Answered {
        /// The ring.
        ring: Ring,
        /// The slot's number in the page.
        slot: u32,
        /// The response.
        response: Response,
    },
    /// Signal the consumer's end of the event channel.
    Notify(Ring),
    /// The vCPU must retry.
    Wake(VcpuId),
    /// Foreign callers that were told to retry may find room now.
    RetryForeign,
    /// Take the frame out of the guest's mapping; its content stays. Any touch from then on is reported.
    Unmap(Gfn),
    /// The frame is ordinary memory again: map it and let those stopped on it go on.
    Map(Gfn),
    /// Give the frame's memory back to the host. Where others show it they keep it, and this frame shows it no longer.
    Punch(Gfn),
    /// Write the content that came with `Prep` into the frame, unmapped. If that fails, report `FillFailed` at once and leave
    /// the rest of this step's effects undone.
    Fill(Gfn),
    /// Give the frame zeroed memory and map it.
    Zero(Gfn),
    /// Two frames show the same memory from now on, write-protected: the client's own goes back to the host.
    Share {
        /// Whose memory stays.
        source: Gfn,
        /// Who shows it too.
        client: Gfn,
    },
    /// A shared frame is ordinary memory again and may be written.
    Unshare {
        /// The frame.
        gfn: Gfn,
        /// Others still show the memory: this frame gets a copy of its own.
        copy: bool,
    },
    /// Rights were reduced: no late access may pass once the operation is answered.
    Tighten {
        /// First frame.
        first: Gfn,
        /// How many.
        count: u64,
    },
    /// A ring ended (disable, or the end of a drain): its page and event channel can go.
    Closed(Ring),
    /// The consumer broke the ring; it takes no more requests, and says why.
    Broken(Ring, String),
    /// The domain crashes, and why.
    Crash(String),
    /// A request came to nothing, by a flow control of Xen's history (for the record; nothing to do).
    Lost {
        /// The ring.
        ring: Ring,
        /// The request.
        request: Request,
        /// The source prints a line on the console; else nobody hears of it.
        printed: bool,
    },
    /// The vCPU goes on with these registers when it is woken: they are set before its next instruction.
    SetRegisters {
        /// Who.
        vcpu: VcpuId,
        /// With what.
        registers: Box<NewRegisters>,
    },
    /// The vCPU gets this before its next instruction: one that waits when it is woken.
    Inject {
        /// Who.
        vcpu: VcpuId,
        /// What.
        trap: Trap,
    },
    /// The vCPU goes by another view, in which it may do less than it did: what it remembers of its rights is past.
    Switched(VcpuId),
    /// The next interrupt or exception that the vCPU gets is to be told before it is delivered.
    NextInterrupt(VcpuId),
}

/// The effects of one step. A caller keeps one and hands it in each time, so that no step allocates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[must_use = "an effect that is not carried out leaves a vCPU waiting"]
pub struct Effects {
    /// What must happen, in order.
    pub list: Vec<Effect>,
    /// The raw bytes that this step took from ring pages, as records of [`crate::taken`]: with them the step replays.
    pub taken: Vec<u8>,
}

impl Effects {
    /// Appends an effect that is built where it is to stand. Built before and handed on, it would be copied from memory that was written in
    /// smaller parts a moment ago: a round trip through the store buffer on every event.
    #[inline(always)]
    pub(crate) fn push(&mut self, effect: impl FnOnce() -> Effect) {
        if self.list.len() == self.list.capacity() {
            self.list.reserve(64);
        }
        assert!(self.list.len() < self.list.capacity());
        self.list.extend(std::iter::once_with(effect));
    }

    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.taken.clear();
    }
}
