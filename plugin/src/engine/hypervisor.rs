//! The hypervisor's part: owns the engine and hands it what the guest does. What the outside asks for is in `toolstack`, what the
//! engine wants done in `effects`.

use crate::arguments::{Arguments, Gate};
use crate::engine::effects::{Engine, Told, report};
use crate::engine::facts;
use crate::engine::held::Held;
use crate::engine::spool::Spool;
use crate::engine::stopped::{Fault, Look, Stopped, Toucher};
use crate::host::event_channel::Link;
use crate::host::explain;
use crate::host::instrumentation;
use crate::host::vcpu::{Owed, Vcpu};
use crate::memory::mapping::Memory;
use crate::memory::userfault;
use crate::qemu::view::View;
use mem_event::message::{self, DeviceReport, Info, Notice, Standing, VcpuReport};
use mem_event::spin::Spin;
use mem_event::trace::Writer;
use mem_event::{
    Access, CpuEvent, CpuEventKind, Domain, DomainConfig, Effects, Gfn, Gpa, Input, MonitorMode, Outcome, PAGE_SIZE,
    PublishedRights, Rights, Ring, VcpuId, WaitReason, With,
};
use rustix::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Instant;

/// The one domain of this process.
#[derive(Debug)]
pub struct Hypervisor {
    pub(crate) vcpus: Box<[Vcpu]>,
    pub(crate) memory: Memory,
    pub(crate) rights: Arc<PublishedRights>,
    gate: Gate,
    /// `gate=mmu` may give way to the other gate.
    gives_way: bool,
    /// It has.
    gave_way: AtomicBool,
    checkpoints: bool,
    /// Where else vCPUs stop.
    places: Box<[Gpa]>,
    /// There is a trace, or was one.
    recorded: bool,
    engine: Mutex<Engine>,
    /// What is reported carries registers.
    carries_registers: AtomicBool,
    /// The engine's end of each ring's event channel.
    links: [RwLock<Option<Arc<Link>>>; 3],
    /// How many threads may run at once.
    cores: usize,
    spin: Spin,
    is_stopping: AtomicBool,
    subscribers: Mutex<Vec<Arc<OwnedFd>>>,
    /// The pager's page file, for its successor.
    page_file: Mutex<Option<Arc<OwnedFd>>>,
}

static HYPERVISOR: OnceLock<Hypervisor> = OnceLock::new();

impl Hypervisor {
    /// The domain, once the first vCPU started.
    #[inline]
    pub fn get() -> Option<&'static Hypervisor> {
        HYPERVISOR.get()
    }

    /// Makes the domain.
    ///
    /// # Errors
    /// A sentence.
    pub fn start(arguments: &Arguments, vcpus: u32, memory: Memory) -> Result<&'static Hypervisor, String> {
        let config =
            DomainConfig { vcpus, ram: memory.map().ram(), hap: true, passthrough: false, populate_on_demand: false };
        let trace = match &arguments.trace {
            None => None,
            Some(path) => {
                let header = facts::header(arguments, &config)?;
                let writer = Spool::create(path)
                    .and_then(|spool| Writer::new(spool, &header))
                    .map_err(|error| format!("trace {}: {error}", path.display()))?;
                Some(writer)
            }
        };
        let mut domain = Domain::new(config).map_err(|error| format!("no domain: {error}"))?;
        // Only a trace wants to know what was written into ring pages and taken from them.
        domain.keep_record(trace.is_some());
        let hypervisor = Hypervisor {
            vcpus: (0..vcpus).map(|id| Vcpu::new(VcpuId(id), arguments.spin)).collect::<Option<_>>().ok_or_else(
                || format!("{vcpus} vCPUs where at most {} are possible", crate::insn::cache::MOST_VCPUS),
            )?,
            memory,
            rights: domain.rights(),
            gate: arguments.gate,
            gives_way: arguments.gives_way,
            gave_way: AtomicBool::new(false),
            checkpoints: arguments.checkpoints,
            places: arguments.places.clone().into(),
            recorded: trace.is_some(),
            engine: Mutex::new(Engine {
                domain,
                effects: Effects::default(),
                trace,
                begun: Instant::now(),
                stopped: Stopped::default(),
                failures: Vec::new(),
                met: Vec::new(),
                calls: Vec::new(),
            }),
            carries_registers: AtomicBool::new(false),
            links: Default::default(),
            // As few as the affinity and the control group of this process allow.
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            spin: arguments.spin,
            is_stopping: AtomicBool::new(false),
            subscribers: Mutex::default(),
            page_file: Mutex::default(),
        };
        HYPERVISOR.set(hypervisor).map_err(|_| "the domain exists already")?;
        HYPERVISOR.get().ok_or_else(|| "no domain".to_owned())
    }

    /// A vCPU.
    #[inline]
    pub fn vcpu(&self, index: u32) -> Option<&Vcpu> {
        self.vcpus.get(index as usize)
    }

    /// The vCPU that this thread runs.
    pub fn vcpu_of_thread(&self, thread: i32) -> Option<&Vcpu> {
        self.vcpus.iter().find(|vcpu| vcpu.thread.load(std::sync::atomic::Ordering::Acquire) == thread)
    }

    /// Guest memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// QEMU flushed its blocks: no vCPU runs one, and no recipe is current.
    pub fn forget_recipes(&self) {
        for vcpu in &self.vcpus {
            vcpu.cache.is_checking_nothing();
            crate::qemu::api::forget_noted(vcpu.id.0);
        }
    }

    /// What stops accesses.
    pub(crate) fn gate(&self) -> Gate {
        if self.gave_way.load(Ordering::Acquire) { Gate::Callback } else { self.gate }
    }

    /// From here on memory instructions are checked, where `gate=auto` took the host's MMU; says whether it did. A watched page is
    /// unmapped under either gate, so nothing passes meanwhile. Blocks must be translated anew.
    pub(crate) fn gives_way(&self) -> bool {
        self.gives_way && {
            self.gave_way.store(true, Ordering::Release);
            true
        }
    }

    /// Whether memory instructions are checked.
    pub fn has_callback_gate(&self) -> bool {
        self.gate() == Gate::Callback
    }

    /// Whether accesses can be trapped at all.
    pub fn has_gate(&self) -> bool {
        self.gate != Gate::None
    }

    /// QEMU has read the code of a page that may be executed and not read.
    pub fn hide(&self, gfn: Gfn) {
        report("unmap", gfn, self.memory.unmap(gfn, 1));
    }

    /// Whether a page that goes back to the guest may be written without more ado. The callback gate sees the writes of
    /// instructions by itself, and leaves what is no instruction's own to the host's MMU.
    pub(crate) fn maps_writable(&self, gfn: Gfn) -> bool {
        self.rights.allowed(gfn).contains(Rights::W)
    }

    /// Whether checkpoints are recognised.
    pub fn has_checkpoints(&self) -> bool {
        self.checkpoints
    }

    /// Whether vCPUs stop at instructions that were named by their addresses.
    pub fn has_places(&self) -> bool {
        !self.places.is_empty()
    }

    /// The place of an instruction, by where QEMU reads it, if it is one that was named.
    pub fn place(&self, host_address: u64) -> Option<Gpa> {
        let gpa = self.memory.frame_at(host_address)?.0 << 12 | host_address & 0xfff;
        self.places.iter().copied().find(|place| place.0 == gpa)
    }

    /// Whether an access passes without the engine: its rights are published, or it meets no RAM that can be watched.
    pub fn allows(&self, gpa: Gpa, rights: Rights) -> bool {
        let gfn = gpa.gfn();
        self.memory.offset(gfn).is_none() || self.rights.allowed(gfn).contains(rights)
    }

    pub(crate) fn engine(&self) -> Held<'_> {
        Held::new(self, self.engine.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether what is reported carries registers, after steps.
    pub(crate) fn set_carrying_registers(&self, is: bool) {
        self.carries_registers.store(is, Ordering::Relaxed);
    }

    /// Whether what a vCPU reports here carries its registers, with all flags: then it asks from the beginning of a block.
    pub fn wants_whole_flags(&self) -> bool {
        self.carries_registers.load(Ordering::Relaxed) && crate::qemu::file::has_whole_flags()
    }

    /// A vCPU asks, in its callback, whether it may; the code at its instruction pointer is for the trace.
    pub fn access(&self, vcpu: &Vcpu, access: Access, code: &[u8], view: &View) -> Outcome {
        self.ask(vcpu, Input::Access { vcpu: vcpu.id, access }, code, (view, access.rip))
    }

    /// A vCPU reports a CPU event, or looks again, at the instruction with this address.
    pub fn cpu_event(&self, vcpu: &Vcpu, event: CpuEvent, view: &View, rip: u64) -> Outcome {
        self.ask(vcpu, Input::CpuEvent { vcpu: vcpu.id, event }, &[], (view, rip))
    }

    fn ask(&self, vcpu: &Vcpu, input: Input, code: &[u8], (view, rip): (&View, u64)) -> Outcome {
        let access = if let Input::Access { access, .. } = &input { Some((access.gfn, access.rights)) } else { None };
        let mut engine = self.engine();
        let registers = engine.domain.carries_registers().then(|| view.register_file(rip, true));
        let with = With { registers: registers.as_ref(), ..With::NOTHING };
        // Before the step: a wake that the step itself brings about must not be overwritten.
        vcpu.stop();
        let outcome = engine.step_with(self, input, Told { with, code, content: None });
        vcpu.looked(matches!(outcome, Outcome::Wait(_)).then_some(Owed { rip, access }));
        match outcome {
            Outcome::Wait(WaitReason::Answer(ring) | WaitReason::Slot(ring) | WaitReason::Consumer(ring)) => {
                vcpu.awaits(Some(ring));
            }
            Outcome::Wait(WaitReason::Frame) | Outcome::Crashed => vcpu.awaits(None),
            _ => vcpu.go_on(),
        }
        engine.settle(self);
        outcome
    }

    /// Whether events of a kind are reported.
    pub fn is_monitored(&self, kind: CpuEventKind) -> bool {
        self.engine().domain.monitored(kind) != MonitorMode::Disabled
    }

    /// A thread stopped in the kernel on a page of guest memory.
    pub fn fault(&self, fault: userfault::Fault) {
        let Some(look) = self.look(fault) else { return };
        let mut engine = self.engine();
        engine.stopped.add(look);
        engine.settle(self);
    }

    /// What who stopped is to ask the engine; `None` where it is no guest memory.
    pub(crate) fn look(&self, fault: userfault::Fault) -> Option<Look> {
        let userfault::Fault { address, write, thread } = fault;
        let gfn = self.memory.frame_at(address)?;
        let toucher = self.vcpu_of_thread(thread).map_or(Toucher::Foreign, |vcpu| Toucher::Vcpu(vcpu.id));
        let fault = Fault { gfn, offset: (address & 0xfff) as u16, write };
        let look = explain::look(self, toucher, fault);
        if let Toucher::Vcpu(vcpu) = look.toucher
            && let Some(vcpu) = self.vcpu(vcpu.0)
        {
            vcpu.set_busy(false);
            vcpu.rests_anew();
        }
        Some(look)
    }

    /// The engine's end of a ring's event channel, while there is a consumer.
    pub fn link(&self, ring: Ring) -> Option<Arc<Link>> {
        self.links[ring.index()].read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the ring is still the one that this end belongs to. For who holds the engine: under it rings begin and end.
    pub(crate) fn is_current(&self, link: &Link) -> bool {
        self.link(link.ring).is_some_and(|current| std::ptr::eq(&*current, link))
    }

    /// The ring has a consumer from now on, or none any more.
    pub(crate) fn set_link(&self, ring: Ring, link: Option<Arc<Link>>) {
        let mut place = self.links[ring.index()].write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = std::mem::replace(&mut *place, link) {
            old.end();
        }
    }

    /// Whether everybody who wants to run has a core: the vCPUs that are not asleep, a consumer, and so many others. Where not,
    /// who spins keeps the one from running that it waits for.
    pub fn has_cores(&self, others: usize) -> bool {
        self.vcpus.iter().filter(|vcpu| vcpu.is_busy()).count() + 1 + others <= self.cores
    }

    /// How long who waits for consumers may spin.
    pub fn spin(&self) -> Spin {
        self.spin
    }

    /// Takes the responses that are on a ring, if nobody else has meanwhile; first the contents that were handed over before them.
    pub fn take_responses(&self, link: &Link) {
        /// More rounds than a ring has slots: a consumer that moves its index without end gets its turn with the others.
        const ROUNDS: u32 = 65;
        let mut engine = self.engine();
        if !self.is_current(link) {
            // What stands on the page of a ring that has ended is no answer on the page of the next.
            return;
        }
        for round in 0..=ROUNDS {
            if !link.lookout.is_pending() {
                break;
            }
            let responses = link.lookout.responses();
            if round == ROUNDS {
                link.call_service();
                break;
            }
            // After the index: what was handed over before these responses is seen.
            engine.take_loads(self, link);
            let with = With { until: Some(responses), ..With::NOTHING };
            let _ = engine.step_with(self, Input::Kick { ring: link.ring }, Told { with, ..Told::NOTHING });
            link.lookout.saw(responses);
        }
        engine.settle(self);
        // A response may switch single steps.
        if engine.domain.monitored(CpuEventKind::SingleStep) != MonitorMode::Disabled {
            engine.mark_stepped(self);
        }
    }

    /// The domain's figures.
    pub fn info(&self) -> Info {
        self.engine().domain.info()
    }

    /// Whether the run is recorded.
    pub fn is_recorded(&self) -> bool {
        self.recorded
    }

    /// Where each vCPU stands, from this one on, as far as one reply has room.
    pub fn reports(&self, first: VcpuId) -> Vec<VcpuReport> {
        let engine = self.engine();
        let report = |vcpu: &Vcpu| {
            let view = engine.domain.vcpu_view(vcpu.id);
            let (standing, ring) = match view.and_then(|view| view.wait) {
                _ if vcpu.at_checkpoint() => (Standing::Checkpoint, None),
                None => (Standing::Running, None),
                Some(WaitReason::Answer(ring)) => (Standing::Answer, Some(ring)),
                Some(WaitReason::Slot(ring)) => (Standing::Slot, Some(ring)),
                Some(WaitReason::Consumer(ring)) => (Standing::Consumer, Some(ring)),
                Some(WaitReason::Frame) => (Standing::Frame, None),
            };
            let waited = if standing == Standing::Running { 0 } else { vcpu.rested() };
            VcpuReport { standing, ring, frame: view.and_then(|view| view.stopped_on), waited }
        };
        self.vcpus.iter().skip(first.0 as usize).take(VcpuReport::MOST).map(report).collect()
    }

    /// The accesses of devices that wait, as far as one reply has room.
    pub fn devices(&self) -> Vec<DeviceReport> {
        let millis = |since: Instant| u32::try_from(since.elapsed().as_millis()).unwrap_or(u32::MAX);
        let report = |(gfn, since)| DeviceReport { gfn, waited: millis(since) };
        self.engine().stopped.foreign().take(DeviceReport::MOST).map(report).collect()
    }

    /// What frames are, from this one on, as bytes.
    pub fn types(&self, first: Gfn) -> Vec<u8> {
        let types = |domain: &Domain| {
            domain.types(first, PAGE_SIZE as u64).map(|(kind, held)| message::frame_byte(kind, held)).collect()
        };
        types(&self.engine().domain)
    }

    /// Keeps the pager's page file for its successor, in place of an older one.
    ///
    /// # Errors
    /// A sentence: it is no file.
    pub fn keep_page_file(&self, file: OwnedFd) -> Result<(), String> {
        let status = rustix::fs::fstat(&file).map_err(|error| format!("the page file: {error}"))?;
        if !rustix::fs::FileType::from_raw_mode(status.st_mode).is_file() {
            return Err("the descriptor is no file's".to_owned());
        }
        *self.page_file.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(file));
        Ok(())
    }

    /// The page file that a pager handed over.
    pub fn page_file(&self) -> Option<Arc<OwnedFd>> {
        self.page_file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody waits for an answer.
    pub fn anybody_waits(&self) -> bool {
        self.anybody_is_stopped() || self.vcpus.iter().any(Vcpu::is_stopped)
    }

    /// Whether somebody is stopped in the kernel.
    pub fn anybody_is_stopped(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    /// Whether somebody is stopped in the kernel, after a step.
    pub(crate) fn set_stopping(&self, is_stopping: bool) {
        self.is_stopping.store(is_stopping, Ordering::Relaxed);
    }

    /// A client hears notices from now on.
    pub fn subscribe(&self, client: Arc<OwnedFd>) {
        let mut subscribers = self.subscribers();
        // Who asks twice hears once, and the list grows with clients alone.
        if !subscribers.iter().any(|other| Arc::ptr_eq(other, &client)) {
            subscribers.push(client);
        }
    }

    /// A client is gone. Nobody would let the vCPUs at checkpoints go on but the last one.
    pub fn unsubscribe(&self, client: &Arc<OwnedFd>) {
        let mut subscribers = self.subscribers();
        let before = subscribers.len();
        subscribers.retain(|other| !Arc::ptr_eq(other, client));
        if before > 0 && subscribers.is_empty() {
            self.vcpus.iter().for_each(|vcpu| vcpu.checkpoint.release());
        }
    }

    fn subscribers(&self) -> MutexGuard<'_, Vec<Arc<OwnedFd>>> {
        self.subscribers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all subscribers; says how many heard it.
    pub fn notify_subscribers(&self, notice: &Notice) -> usize {
        let packet = notice.encode();
        let flags = rustix::net::SendFlags::DONTWAIT | rustix::net::SendFlags::NOSIGNAL;
        self.subscribers().iter().filter(|client| rustix::net::send(client, &packet, flags).is_ok()).count()
    }

    /// Something outside of the engine makes the domain useless.
    pub fn crash(&self, why: &str) {
        self.notify_subscribers(&Notice::Crashed(why.to_owned()));
    }

    /// Takes out what nothing needs any more. Called when nothing has happened for a while: a listener that relaxes a page only to
    /// watch it again in a moment costs no translations. Not while one waits in the kernel: dropping blocks needs all vCPUs out of
    /// theirs, so the others would wait for the answer that it waits for.
    pub fn disarm(&self) {
        if self.has_gate() {
            instrumentation::remind();
            let engine = self.engine();
            if engine.stopped.is_empty() {
                instrumentation::want(engine.needed(self.gate()));
            }
        }
    }

    /// Writes what the trace still holds.
    pub fn flush_trace(&self) {
        if let Some(trace) = &mut self.engine().trace {
            trace.flush();
        }
    }

    /// QEMU ends, or is about to: so does the trace, in order.
    pub fn end(&self) {
        self.engine().end_trace();
    }
}
