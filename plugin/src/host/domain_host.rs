//! The domain's host: guest memory, the rights in force, the vCPUs, the rings' event channels, the subscribers.

use crate::arguments::{Arguments, Gate};
use crate::host::alarm::Alarm;
use crate::host::checked::Checked;
use crate::host::gate_in_force::GateInForce;
use crate::host::vcpu::Vcpu;
use crate::host::waiter;
use crate::insn::cache::MOST_VCPUS;
use crate::memory::beyond::BeyondRam;
use crate::memory::mapping::Memory;
use crate::memory::userfault;
use crate::qemu::{api, current, file};
use mem_event::message::Notice;
use mem_event::spin::Spin;
use mem_event::{Gfn, Gpa, PublishedRights, Rights, Ring, VcpuId};
use mem_event_server::{Chaos, EventChannel, Subscribers};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// What the engine's effects act on. It has no way to the engine.
#[derive(Debug)]
pub struct Host {
    /// The vCPUs, by number.
    pub vcpus: Box<[Vcpu]>,
    /// Guest memory.
    pub memory: Memory,
    /// Frames beyond RAM.
    pub beyond: BeyondRam,
    /// Per frame the rights that pass without the engine.
    pub rights: Arc<PublishedRights>,
    /// What stops accesses.
    pub gate: GateInForce,
    /// The clients that hear notices.
    pub subscribers: Subscribers,
    /// How long a thread that waits for a consumer may spin.
    pub spin: Spin,
    /// Whether checkpoints are recognised.
    pub has_checkpoints: bool,
    /// Whether the run was recorded from its start.
    pub is_recorded: bool,
    /// The faults that are made to consumers.
    pub chaos: Chaos,
    /// Where else vCPUs stop.
    breakpoints: Box<[Gpa]>,
    /// The frames whose blocks are checked.
    pub(super) checked: Checked,
    /// Those whose instructions all are.
    pub(super) each: Checked,
    /// What is reported carries registers.
    carries_registers: AtomicBool,
    /// Some frame may be written and not read.
    has_write_only: AtomicBool,
    /// The engine's end of each ring's event channel.
    channels: [RwLock<Option<Arc<EventChannel>>>; 3],
    /// How many threads may run at once.
    cores: usize,
    /// Some access stands in the kernel.
    is_stopping: AtomicBool,
    /// Wakes the thread that keeps time.
    pub alarm: Alarm,
    /// How often clients have paused the domain.
    pauses: AtomicU32,
}

impl Host {
    /// The host of a domain with these rights.
    ///
    /// # Errors
    /// A sentence: more vCPUs than page caches.
    pub fn new(
        arguments: &Arguments,
        vcpus: u32,
        memory: Memory,
        rights: Arc<PublishedRights>,
    ) -> Result<Host, String> {
        Ok(Host {
            vcpus: (0..vcpus)
                .map(|id| Vcpu::new(VcpuId(id), arguments.spin))
                .collect::<Option<_>>()
                .ok_or_else(|| format!("{vcpus} vCPUs where at most {MOST_VCPUS} are possible"))?,
            memory,
            beyond: BeyondRam::default(),
            each: Checked::new(rights.frames()),
            checked: Checked::new(rights.frames()),
            rights,
            gate: GateInForce::new(arguments),
            subscribers: Subscribers::default(),
            spin: arguments.spin,
            has_checkpoints: arguments.checkpoints,
            is_recorded: arguments.trace.is_some(),
            chaos: Chaos::new(arguments.chaos.clone(), |fault| eprintln!("mem-event: fault: {fault}")),
            breakpoints: arguments.breakpoints.clone().into(),
            carries_registers: AtomicBool::new(false),
            has_write_only: AtomicBool::new(false),
            channels: Default::default(),
            // As few as the affinity and the control group of this process allow.
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            is_stopping: AtomicBool::new(false),
            alarm: Alarm::default(),
            pauses: AtomicU32::new(0),
        })
    }

    /// A vCPU.
    #[inline]
    pub fn vcpu(&self, index: u32) -> Option<&Vcpu> {
        self.vcpus.get(index as usize)
    }

    /// The vCPU that this thread runs; of several that one runs in turns the one whose turn it is.
    pub fn vcpu_of_thread(&self, thread: i32) -> Option<&Vcpu> {
        let its = || self.vcpus.iter().filter(|vcpu| vcpu.thread.load(Ordering::Acquire) == thread);
        its().find(|vcpu| current::is_of_all(vcpu.id.0)).or_else(|| its().next())
    }

    /// QEMU flushed its blocks: no vCPU runs one, and no recipe is current.
    pub fn forget_recipes(&self) {
        for vcpu in &self.vcpus {
            vcpu.cache.is_checking_nothing();
            api::forget_noted(vcpu.id.0);
        }
    }

    /// Whether memory instructions are checked.
    pub fn has_callback_gate(&self) -> bool {
        self.gate.now() == Gate::Callback
    }

    /// Whether accesses can be trapped at all.
    pub fn has_gate(&self) -> bool {
        self.gate.now() != Gate::None
    }

    /// Whether vCPUs stop at checkpoints or breakpoints.
    pub fn has_stop_points(&self) -> bool {
        self.has_checkpoints || self.has_breakpoints()
    }

    /// Whether a vCPU's registers are read in its blocks: by a gate, or to tell one arrival at a checkpoint or breakpoint from another.
    pub fn reads_registers(&self) -> bool {
        self.has_gate() || self.has_stop_points()
    }

    /// QEMU has read the code of a page that may be executed and not read.
    pub fn hide(&self, gfn: Gfn) {
        report("unmap", gfn, self.memory.unmap(gfn, 1));
    }

    /// Maps a frame for the guest again, with its rights. The callback gate sees the writes of instructions by itself, and leaves
    /// what is no instruction's own to the host's MMU.
    pub fn map(&self, gfn: Gfn) {
        report("map", gfn, self.memory.restore(gfn, self.rights.allowed(gfn).contains(Rights::W)));
    }

    /// Whether vCPUs stop at instructions that were named by their addresses.
    pub fn has_breakpoints(&self) -> bool {
        !self.breakpoints.is_empty()
    }

    /// The breakpoint at an instruction, by where QEMU reads it, if there is one.
    pub fn breakpoint(&self, host_address: u64) -> Option<Gpa> {
        let gpa = self.memory.frame_at(host_address)?.0 << 12 | host_address & 0xfff;
        self.breakpoints.iter().copied().find(|breakpoint| breakpoint.0 == gpa)
    }

    /// Whether an access of this vCPU passes without the engine: its rights are published, or it meets no RAM that can be watched.
    pub fn allows(&self, vcpu: VcpuId, gpa: Gpa, rights: Rights) -> bool {
        let gfn = gpa.gfn();
        self.memory.offset(gfn).is_none() || self.rights.allowed_to(vcpu, gfn).contains(rights)
    }

    /// Whether a vCPU may execute a frame that is not open to be read, or may be closed while it is: not by all views, or because it shows another one's
    /// memory.
    pub fn may_only_execute(&self, vcpu: VcpuId, gfn: Gfn) -> bool {
        let shown = || self.rights.shown_to(vcpu, gfn).map(|(_, rights)| rights);
        self.rights.may_be_unreadable(gfn)
            && shown().unwrap_or_else(|| self.rights.allowed_to(vcpu, gfn)).contains(Rights::X)
    }

    /// A vCPU goes by other rights than those that its page cache remembers.
    pub fn forgets_rights(&self, vcpu: VcpuId) {
        if let Some(vcpu) = self.vcpu(vcpu.0) {
            vcpu.cache.empty();
        }
    }

    /// Whether what is reported carries registers, after steps.
    pub fn set_carrying_registers(&self, is: bool) {
        self.carries_registers.store(is, Ordering::Relaxed);
    }

    /// Whether some frame may be written and not read, after steps.
    pub fn set_write_only(&self, is: bool) {
        self.has_write_only.store(is, Ordering::Relaxed);
    }

    /// Whether the host's MMU stops every access that is forbidden and was not checked. It does not without userfaultfd, nor where the
    /// kernel maps no page write-protected at once, nor does it stop reads of a page that was written to and may be written alone.
    pub fn stops_late_accesses(&self) -> bool {
        let is_behind = self.memory.opened_userfault().is_some() && userfault::can_map_protected();
        is_behind && !self.has_write_only.load(Ordering::Relaxed)
    }

    /// Whether what a vCPU reports here carries its registers, with all flags: then it asks from the beginning of a block.
    pub fn wants_whole_flags(&self) -> bool {
        self.carries_registers.load(Ordering::Relaxed) && file::has_whole_flags()
    }

    /// The engine's end of a ring's event channel, while there is a consumer.
    pub fn channel(&self, ring: Ring) -> Option<Arc<EventChannel>> {
        self.channels[ring.index()].read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the ring is still the one that this end belongs to. To be asked under the engine's lock, under which rings begin and end.
    pub fn is_current(&self, channel: &EventChannel) -> bool {
        self.channel(channel.ring).is_some_and(|current| std::ptr::eq(&*current, channel))
    }

    /// The ring has a consumer from now on, or none any more.
    pub fn set_channel(&self, ring: Ring, channel: Option<Arc<EventChannel>>) {
        let mut place = self.channels[ring.index()].write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *place, channel) {
            waiter::end(&old);
        }
    }

    /// Whether every thread that wants to run has a core: the vCPUs that are not asleep, a consumer, and so many others. Where not,
    /// a thread that spins keeps the one from running that it waits for.
    pub fn has_cores(&self, others: usize) -> bool {
        self.wanted_cores() + 1 + others <= self.cores
    }

    /// Whether anything waits for an answer.
    pub fn anything_waits(&self) -> bool {
        self.anything_is_stopped() || self.vcpus.iter().any(|vcpu| vcpu.waiting.is_stopped())
    }

    /// Whether any vCPU waits in its callback or has to ask again: until it has, no check may be out of its way.
    pub fn anything_asks(&self) -> bool {
        self.vcpus.iter().any(Vcpu::asks)
    }

    /// Whether an access stands in the kernel.
    pub fn anything_is_stopped(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Whether an access stands in the kernel, after a step.
    pub fn set_stopping(&self, is_stopping: bool) {
        if self.is_stopping.swap(is_stopping, Ordering::SeqCst) != is_stopping && is_stopping {
            self.alarm.ring();
        }
    }

    /// Whether clients have paused the domain.
    pub fn is_paused(&self) -> bool {
        self.pauses.load(Ordering::Acquire) != 0
    }

    /// One pause more or less; says whether the domain is paused.
    pub fn pauses(&self, more: bool) -> bool {
        let change = |count: u32| if more { count.checked_add(1) } else { count.checked_sub(1) };
        let _ = self.pauses.fetch_update(Ordering::AcqRel, Ordering::Acquire, change);
        self.is_paused()
    }

    /// Something outside of the engine makes the domain useless.
    pub fn crash(&self, why: &str) {
        self.subscribers.notify(&Notice::Crashed(why.to_owned()));
    }
}

/// A failed effect is said; the engine cannot be told of these.
pub fn report(what: &str, gfn: Gfn, result: std::io::Result<()>) {
    if let Err(error) = result {
        eprintln!("mem-event: cannot {what} frame {gfn}: {error}");
    }
}
