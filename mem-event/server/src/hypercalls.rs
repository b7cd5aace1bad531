//! What a domain does for its clients, whatever runs its guest.

use crate::chaos::Chaos;
use crate::event_channel::EventChannel;
use mem_event::message::{Call, DeviceReport, Info, MonitorReport, Over, Reply, RingReport, Space, VcpuReport};
use mem_event::registers::Context;
use mem_event::trace::Remark;
use mem_event::{Control, Errno, Gfn, Gla, Gpa, Outcome, Ring, VcpuId};
use rustix::fd::OwnedFd;
use std::sync::Arc;

/// Xen's error with a sentence.
pub type Refusal = (Errno, String);

/// A domain as the control socket sees it. A reply is made of what a method returns; the engine decides what that is.
pub trait Hypercalls {
    /// A control operation of a connection, by its number in the trace, with the content of a page-in.
    fn control(&mut self, connection: u32, control: Control, content: Option<Box<[u8]>>) -> Outcome;

    /// Makes a ring for a connection and its process: the engine's end, and the descriptors of the page, of the engine's signal and of the consumer's.
    ///
    /// # Errors
    /// The engine's refusal, or the kernel's as ENOMEM.
    fn enable(
        &mut self,
        control: Control,
        ring: Ring,
        caller: (u32, u32),
    ) -> Result<(Arc<EventChannel>, [OwnedFd; 3]), Refusal>;

    /// Whether the ring that this is an end of has not ended. One that drains has not.
    fn is_current(&self, channel: &EventChannel) -> bool;

    /// The consumer that held this end of a ring is gone.
    fn consumer_lost(&mut self, channel: &Arc<EventChannel>);

    /// Takes the responses that are on a ring.
    fn take_responses(&mut self, channel: &EventChannel);

    /// Takes the calls that a consumer has handed over until now.
    fn take_calls(&mut self, channel: &EventChannel);

    /// A client hears notices from now on.
    fn subscribe(&mut self, client: &Arc<OwnedFd>);

    /// A client is gone.
    fn unsubscribe(&mut self, client: &Arc<OwnedFd>);

    /// Whether a vCPU stands at a checkpoint.
    ///
    /// # Errors
    /// EINVAL where it does not, ESRCH where there is no such vCPU.
    fn at_checkpoint(&mut self, vcpu: VcpuId) -> Result<(), Refusal>;

    /// Lets a vCPU go on from its checkpoint.
    fn release(&mut self, vcpu: VcpuId);

    /// The trace ends here, in order.
    fn end_trace(&mut self);

    /// Copies bytes of a frame that holds some.
    ///
    /// # Errors
    /// EINVAL for what is no RAM, ENOENT for a frame that is paged out, EFAULT where it cannot be read.
    fn read(&mut self, gfn: Gfn, offset: u16, bytes: &mut [u8]) -> Result<(), Refusal>;

    /// Overwrites bytes of a frame that holds some.
    ///
    /// # Errors
    /// As [`Hypercalls::read`]; ENOMEM and EBUSY where a shared frame cannot be parted now.
    fn write(&mut self, gfn: Gfn, offset: u16, bytes: &[u8]) -> Result<(), Refusal>;

    /// The domain's memory file, or that of its frames beyond RAM, for clients that map frames of it.
    ///
    /// # Errors
    /// EPERM where it was not started for that; ENOENT where there are no frames beyond RAM.
    fn memory(&mut self, _beyond: bool) -> Result<OwnedFd, Refusal> {
        Err((Errno::EPERM, "there is no memory to map here".to_owned()))
    }

    /// Where a frame that a client has pinned lies in the memory file, and whether that is the one of frames beyond RAM. One that shares its page
    /// does so no more.
    ///
    /// # Errors
    /// As [`Hypercalls::memory`] and [`Hypercalls::write`].
    fn place(&mut self, _gfn: Gfn) -> Result<(u64, bool), Refusal> {
        self.memory(false).map(|_| (0, false))
    }

    /// The registers of a vCPU that stands.
    ///
    /// # Errors
    /// ESRCH where there is no such vCPU, EAGAIN while it runs, EBUSY where it stands and cannot leave its block; EOPNOTSUPP where they cannot be had here.
    fn registers(&mut self, _vcpu: VcpuId) -> Result<Context, Refusal> {
        Err((Errno::EOPNOTSUPP, "a vCPU's registers cannot be had here".to_owned()))
    }

    /// Sets the registers of a vCPU that stands.
    ///
    /// # Errors
    /// As [`Hypercalls::registers`]; EOPNOTSUPP for a register that would change and cannot be set.
    fn set_registers(&mut self, _vcpu: VcpuId, _context: &Context) -> Result<(), Refusal> {
        Err((Errno::EOPNOTSUPP, "a vCPU's registers cannot be set here".to_owned()))
    }

    /// No vCPU runs from here on, until this was taken back as often as it was called.
    ///
    /// # Errors
    /// EOPNOTSUPP where vCPUs cannot be stopped. Where nothing runs by itself nothing needs to be.
    fn pause(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    /// Takes one [`Hypercalls::pause`] back.
    fn unpause(&mut self) {}

    /// Where a linear address leads.
    ///
    /// # Errors
    /// ESRCH where there is no such vCPU, EFAULT where the tables lead nowhere, ENOENT where a table is paged out; EOPNOTSUPP where it is
    /// not known how the vCPU pages.
    fn translate(&mut self, _space: Space, _address: Gla) -> Result<Gpa, Refusal> {
        Err((Errno::EOPNOTSUPP, "it is not known here how a vCPU pages".to_owned()))
    }

    /// How a vCPU gets over a breakpoint.
    fn over_breakpoints(&self) -> Over {
        Over::default()
    }

    /// A client had a mapping of this frame, and may have written to it.
    fn may_be_written(&mut self, _gfn: Gfn) {}

    /// Puts a remark into the trace, if there is one.
    fn remark(&mut self, remark: impl FnOnce() -> Remark);

    /// Puts a call of a connection into the trace that no step tells of.
    fn called(&mut self, connection: u32, call: &Call, reply: &Reply);

    /// Puts a text of a connection into the trace; how many steps that has, which are then on their way to its file.
    fn note(&mut self, connection: u32, text: &str) -> u64;

    /// The faults that are made.
    fn chaos(&self) -> &Chaos;

    /// Records the run for a connection from here on, into this file or pipe.
    ///
    /// # Errors
    /// It cannot be written.
    fn record_for(&mut self, connection: u32, file: OwnedFd) -> std::io::Result<()>;

    /// A connection is gone, and its record ends.
    fn ends_record_of(&mut self, connection: u32);

    /// The domain's figures.
    fn info(&mut self) -> Info;

    /// Where each vCPU stands, from this one on, as far as one reply has room.
    fn vcpus(&mut self, first: VcpuId) -> Vec<VcpuReport>;

    /// The accesses of devices that wait, as far as one reply has room.
    fn devices(&mut self) -> Vec<DeviceReport>;

    /// How the rings stand.
    fn rings(&mut self) -> Vec<RingReport>;

    /// Which CPU events are reported, and how.
    fn monitors(&mut self) -> Vec<MonitorReport>;

    /// What frames are, from this one on, as bytes.
    fn types(&mut self, first: Gfn) -> Vec<u8>;
}
