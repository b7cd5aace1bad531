//! The hypervisor's part: owns the engine, hands it what happens, carries out its effects.

use crate::arguments::{Arguments, Gate};
use crate::arming;
use crate::explain;
use crate::memory::Memory;
use crate::park::Vcpu;
use crate::qemu::ViewCheck;
use crate::stopped::{Fault, Look, Stopped, Toucher};
use mem_event::message::{Info, Notice, Standing};
use mem_event::page::RingPage;
use mem_event::trace::{Header, Writer};
use mem_event::{
    Access, AccessType, Control, CpuEvent, CpuEventKind, Domain, DomainConfig, Effect, Effects, Errno, Gfn, Gpa, Input,
    MonitorMode, Outcome, PublishedRights, Rights, Ring, VcpuId, WaitReason,
};
use rustix::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// The one domain of this process.
#[derive(Debug)]
pub struct Hypervisor {
    vcpus: Box<[Vcpu]>,
    memory: Memory,
    rights: Arc<PublishedRights>,
    gate: Gate,
    checkpoints: bool,
    engine: Mutex<Engine>,
    subscribers: Mutex<Vec<Arc<OwnedFd>>>,
}

/// The engine with what its effects need; one step at a time.
struct Engine {
    domain: Domain,
    effects: Effects,
    trace: Option<Writer>,
    /// The engine's end of each ring's event channel.
    channels: [Option<Arc<OwnedFd>>; 3],
    stopped: Stopped,
    /// The content that comes with a page-in.
    content: Option<Box<[u8]>>,
    /// Effects that failed in this step, as inputs that tell the engine.
    failures: Vec<Input>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("stopped", &self.stopped).finish_non_exhaustive()
    }
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
                let writer = Writer::create(path, &header(arguments, &config))
                    .map_err(|error| format!("trace {}: {error}", path.display()))?;
                Some(writer)
            }
        };
        let domain = Domain::new(config).map_err(|error| format!("no domain: {error}"))?;
        let hypervisor = Hypervisor {
            vcpus: (0..vcpus)
                .map(|id| Vcpu::new(VcpuId(id)))
                .collect::<Option<_>>()
                .ok_or_else(|| format!("{vcpus} vCPUs where at most {} are possible", crate::cache::MOST_VCPUS))?,
            memory,
            rights: domain.rights(),
            gate: arguments.gate,
            checkpoints: arguments.checkpoints,
            engine: Mutex::new(Engine {
                domain,
                effects: Effects::default(),
                trace,
                channels: [None, None, None],
                stopped: Stopped::default(),
                content: None,
                failures: Vec::new(),
            }),
            subscribers: Mutex::default(),
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
            crate::qemu::forget_noted(vcpu.id.0);
        }
    }

    /// Whether memory instructions are checked.
    pub fn has_callback_gate(&self) -> bool {
        self.gate == Gate::Callback
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
    fn maps_writable(&self, gfn: Gfn) -> bool {
        self.rights.allowed(gfn).contains(Rights::W)
    }

    /// Whether checkpoints are recognised.
    pub fn has_checkpoints(&self) -> bool {
        self.checkpoints
    }

    /// Whether an access passes without the engine: its rights are published, or it meets no RAM that can be watched.
    pub fn allows(&self, gpa: Gpa, rights: Rights) -> bool {
        let gfn = gpa.gfn();
        self.memory.offset(gfn).is_none() || self.rights.allowed(gfn).contains(rights)
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A vCPU asks, in its callback, whether it may.
    pub fn access(&self, vcpu: &Vcpu, access: Access) -> Outcome {
        let mut engine = self.engine();
        // Before the step: a wake that the step itself brings about must not be overwritten.
        vcpu.stop();
        let outcome = engine.step(self, Input::Access { vcpu: vcpu.id, access });
        if !matches!(outcome, Outcome::Wait(_) | Outcome::Crashed) {
            vcpu.go_on();
        }
        engine.settle(self);
        outcome
    }

    /// A vCPU reports a CPU event, or looks again.
    pub fn cpu_event(&self, vcpu: &Vcpu, event: CpuEvent) -> Outcome {
        let mut engine = self.engine();
        vcpu.stop();
        let outcome = engine.step(self, Input::CpuEvent { vcpu: vcpu.id, event });
        if !matches!(outcome, Outcome::Wait(_) | Outcome::Crashed) {
            vcpu.go_on();
        }
        engine.settle(self);
        outcome
    }

    /// Whether events of a kind are reported.
    pub fn is_monitored(&self, kind: CpuEventKind) -> bool {
        self.engine().domain.monitored(kind) != MonitorMode::Disabled
    }

    /// A thread stopped in the kernel on a page of guest memory.
    pub fn fault(&self, address: u64, write: bool, thread: i32) {
        let Some(gfn) = self.memory.frame_at(address) else { return };
        let toucher = self.vcpu_of_thread(thread).map_or(Toucher::Foreign, |vcpu| Toucher::Vcpu(vcpu.id));
        let fault = Fault { gfn, offset: (address & 0xfff) as u16, write };
        let access = explain::access(self, toucher, fault);
        let mut engine = self.engine();
        engine.stopped.add(toucher, fault, access);
        engine.settle(self);
    }

    /// The consumer signalled.
    pub fn kick(&self, ring: Ring) {
        let mut engine = self.engine();
        let _ = engine.step(self, Input::Kick { ring });
        engine.settle(self);
        // A response may switch single steps.
        if engine.domain.monitored(CpuEventKind::SingleStep) != MonitorMode::Disabled {
            engine.mark_stepped(self);
        }
    }

    /// A control operation, with the content of a page-in.
    pub fn control(&self, control: Control, content: Option<Box<[u8]>>) -> Outcome {
        if let Err((errno, sentence)) = self.admit(&control) {
            return Outcome::Refused(errno, sentence);
        }
        if let Control::SetAccess { first, count, access } = control {
            return self.set_access(first, count, access);
        }
        let mut engine = self.engine();
        engine.content = content;
        let outcome = engine.step(self, Input::Control(control));
        engine.content = None;
        let failed = !engine.failures.is_empty();
        engine.settle(self);
        engine.arm(self);
        if failed {
            return Outcome::Refused(
                Errno::EFAULT,
                "the content could not be written into the guest's memory".to_owned(),
            );
        }
        outcome
    }

    /// In spans, between which vCPUs get their turn (XSA-89).
    fn set_access(&self, mut first: Gfn, mut count: u64, access: AccessType) -> Outcome {
        loop {
            let mut engine = self.engine();
            let outcome = engine.step(self, Input::Control(Control::SetAccess { first, count, access }));
            engine.settle(self);
            if access.rights() != Rights::RWX {
                engine.arm(self);
            }
            match outcome {
                Outcome::Value(done) if done > 0 && done < count => {
                    first.0 += done;
                    count -= done;
                }
                other => return other,
            }
        }
    }

    /// What this host and these arguments cannot do.
    fn admit(&self, control: &Control) -> Result<(), (Errno, String)> {
        let unsupported = |sentence: &str| Err((Errno::EOPNOTSUPP, sentence.to_owned()));
        match control {
            Control::SetAccess { .. } | Control::SetDefaultAccess { .. } if self.gate == Gate::None => {
                unsupported("QEMU was started with gate=none; start it with gate=callback to trap accesses")
            }
            Control::SetAccess { .. } if self.gate == Gate::Mmu && !crate::userfault::can_map_protected() => {
                unsupported("gate=mmu needs Linux 6.4, which maps pages write-protected; use gate=callback")
            }
            Control::SetAccess { .. } if ViewCheck::now() == ViewCheck::Refuted => {
                unsupported("the direct view of QEMU's registers is wrong for this QEMU; accesses cannot be trapped")
            }
            Control::SetAccess { first, count, access }
                if access.rights() != Rights::RWX && crate::machine::MemoryMap::meets_window(*first, *count) =>
            {
                Err((
                    Errno::EINVAL,
                    "frames 0xa0 to 0xff are the VGA and ROM window; accesses there cannot be trapped, leave them out"
                        .to_owned(),
                ))
            }
            Control::SetAccess { .. } => self.prepare(false),
            Control::Monitor { .. } | Control::SingleStep { .. } if self.gate == Gate::None => {
                unsupported("QEMU was started with gate=none; start it with gate=callback for CPU events")
            }
            Control::NominateShare { .. } | Control::Share { .. } => {
                unsupported("frames are not shared by this plugin yet")
            }
            Control::Enable { ring: Ring::Paging, .. } | Control::SetBudget { .. } => self.prepare(true),
            _ => Ok(()),
        }
    }

    /// Opens userfaultfd. With paging, the engine learns which frames have no memory yet.
    fn prepare(&self, paging: bool) -> Result<(), (Errno, String)> {
        let mut engine = self.engine();
        if engine.stopped.is_prepared(paging) {
            return Ok(());
        }
        self.memory.userfault(paging).map_err(|sentence| (Errno::EOPNOTSUPP, sentence))?;
        engine.stopped.prepared(paging);
        crate::service::watch_userfault();
        if paging {
            let holes =
                self.memory.holes().map_err(|error| (Errno::EFAULT, format!("the guest's memory file: {error}")))?;
            for (first, count) in holes {
                let _ = engine.step(self, Input::Unpopulated { first, count });
            }
        }
        Ok(())
    }

    /// Makes a ring: the reply's descriptors are the page, the engine's signal and the consumer's.
    pub fn enable(&self, control: Control, ring: Ring) -> Result<[OwnedFd; 3], (Errno, String)> {
        self.admit(&control)?;
        let io = |error: std::io::Error| (Errno::ENOMEM, format!("no ring page or event channel: {error}"));
        let (memory, page) = RingPage::create().map_err(io)?;
        let make =
            || rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK);
        let to_consumer = make().map_err(|error| io(error.into()))?;
        let to_engine = make().map_err(|error| io(error.into()))?;
        let own = to_consumer.try_clone().map_err(io)?;
        let mut engine = self.engine();
        engine.domain.supply(ring, page);
        match engine.step(self, Input::Control(control)) {
            Outcome::Refused(errno, sentence) => Err((errno, sentence)),
            _ => {
                let own = Arc::new(own);
                engine.channels[ring.index()] = Some(Arc::clone(&own));
                // Requests that outlived the last consumer are on the new page; the signal of this step had no channel yet.
                signal(&own);
                engine.settle(self);
                Ok([memory, to_consumer, to_engine])
            }
        }
    }

    /// The consumer of a ring is gone.
    pub fn consumer_lost(&self, ring: Ring) {
        let mut engine = self.engine();
        engine.channels[ring.index()] = None;
        let _ = engine.step(self, Input::ConsumerLost { ring });
        engine.settle(self);
    }

    /// The domain's figures.
    pub fn info(&self) -> Info {
        self.engine().domain.info()
    }

    /// Where each vCPU stands.
    pub fn standings(&self) -> Vec<Standing> {
        let engine = self.engine();
        self.vcpus
            .iter()
            .map(|vcpu| match engine.domain.waiting(vcpu.id) {
                _ if vcpu.at_checkpoint() => Standing::Checkpoint,
                None => Standing::Running,
                Some(WaitReason::Answer(_)) => Standing::Answer,
                Some(WaitReason::Slot(_)) => Standing::Slot,
                Some(WaitReason::Consumer(_)) => Standing::Consumer,
                Some(WaitReason::Frame) => Standing::Frame,
            })
            .collect()
    }

    /// Whether a frame's bytes can be copied now.
    pub fn has_content(&self, gfn: Gfn) -> Result<(), (Errno, String)> {
        if self.memory.offset(gfn).is_none() {
            return Err((Errno::EINVAL, format!("frame {gfn} is no RAM")));
        }
        if self.engine().domain.is_held(gfn) {
            Ok(())
        } else {
            Err((Errno::ENOENT, format!("frame {gfn} has no content here: it is paged out")))
        }
    }

    /// Whether somebody waits for an answer, so that a core is idle anyhow.
    pub fn anybody_waits(&self) -> bool {
        let engine = self.engine();
        !engine.stopped.is_empty() || self.vcpus.iter().any(Vcpu::is_stopped)
    }

    /// A client hears notices from now on.
    pub fn subscribe(&self, client: Arc<OwnedFd>) {
        self.subscribers().push(client);
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
    /// watch it again in a moment costs no translations.
    pub fn disarm(&self) {
        if self.has_gate() {
            arming::remind();
            arming::want(self.engine().needed(self.gate));
        }
    }

    /// Writes what the trace still holds.
    pub fn flush_trace(&self) {
        if let Some(trace) = &mut self.engine().trace {
            trace.flush();
        }
    }

    /// QEMU ends: so does the trace, in order.
    pub fn end(&self) {
        let trace = self.engine().trace.take();
        if let Some(Err(why)) = trace.map(Writer::finish) {
            eprintln!("mem-event: the trace is not complete: {why}");
        }
    }
}

impl Engine {
    /// One step of the engine, recorded, with its effects carried out.
    fn step(&mut self, host: &Hypervisor, input: Input) -> Outcome {
        self.effects.clear();
        let outcome = self.domain.apply(&input, &mut self.effects);
        if let Some(trace) = &mut self.trace {
            trace.record(&input, &outcome, &self.effects);
        }
        let effects = std::mem::take(&mut self.effects);
        for effect in &effects.list {
            if let Err(undone) = self.carry_out(host, effect) {
                self.failures.push(undone);
                break;
            }
        }
        self.effects = effects;
        outcome
    }

    /// Instruments what is wanted now. What is not wanted any more stays until [`Hypervisor::disarm`].
    fn arm(&mut self, host: &Hypervisor) {
        if host.has_gate() {
            self.mark_stepped(host);
            arming::want(arming::wanted() | self.needed(host.gate));
        }
    }

    /// What must be instrumented for what is watched and monitored.
    fn needed(&self, gate: Gate) -> u8 {
        let monitored = |kind: &CpuEventKind| self.domain.monitored(*kind) != MonitorMode::Disabled;
        let events = CpuEventKind::ALL.iter().any(monitored);
        let when = |is: bool, what: u8| if is { what } else { 0 };
        let data = if gate == Gate::Callback { arming::ACCESS } else { arming::NOTE };
        when(self.domain.is_watching(), data)
            | when(self.domain.is_watching_write_only(), arming::ACCESS)
            | when(self.domain.is_watching_execution() || events, arming::EXECUTE)
            | when(events, arming::SPECIAL)
            | when(monitored(&CpuEventKind::SingleStep), arming::STEP)
    }

    fn mark_stepped(&self, host: &Hypervisor) {
        for vcpu in &host.vcpus {
            vcpu.step(self.domain.single_steps(vcpu.id));
        }
    }

    /// What earlier steps left to do: failed effects are told to the engine, and those stopped in the kernel look again.
    fn settle(&mut self, host: &Hypervisor) {
        loop {
            if let Some(failure) = self.failures.pop() {
                let _ = self.step(host, failure);
            } else if let Some(look) = self.stopped.next_to_look() {
                self.look_again(host, look);
            } else {
                // A frame may have come into being with the domain's default rights.
                if self.domain.is_watching() && arming::wanted() & (arming::ACCESS | arming::NOTE) == 0 {
                    self.arm(host);
                }
                return;
            }
        }
    }

    fn look_again(&mut self, host: &Hypervisor, Look { toucher, fault, access }: Look) {
        let outcome = match toucher {
            Toucher::Vcpu(vcpu) => self.step(host, Input::Access { vcpu, access }),
            Toucher::Foreign => self.step(host, Input::Foreign { access }),
        };
        match outcome {
            Outcome::Wait(_) | Outcome::Retry(_) | Outcome::Crashed => {}
            _ => {
                if access.rights == Rights::X
                    && !host.rights.allowed(fault.gfn).contains(Rights::R)
                    && let Toucher::Vcpu(vcpu) = toucher
                    && let Some(vcpu) = host.vcpu(vcpu.0)
                {
                    vcpu.reads_for_code(fault.gfn);
                }
                if self.stopped.remove(toucher, fault) {
                    report("map", fault.gfn, host.memory.restore(fault.gfn, host.maps_writable(fault.gfn)));
                }
            }
        }
    }

    /// Carries one effect out; `Err` is what the engine must hear where it cannot be, and the step's other effects stay undone.
    fn carry_out(&mut self, host: &Hypervisor, effect: &Effect) -> Result<(), Input> {
        match effect {
            Effect::Requested { .. } | Effect::Answered { .. } => {}
            Effect::Notify(ring) => {
                if let Some(channel) = &self.channels[ring.index()] {
                    signal(channel);
                }
            }
            Effect::Wake(vcpu) => {
                if !self.stopped.wake(*vcpu)
                    && let Some(vcpu) = host.vcpu(vcpu.0)
                {
                    vcpu.wake();
                }
            }
            Effect::RetryForeign => self.stopped.wake_foreign(),
            Effect::Unmap(gfn) => self.unmap(host, *gfn, 1),
            Effect::Tighten { first, count } => {
                // What instructions do not show (an interrupt's frame) is stopped by the host under either gate.
                if !self.stopped.is_prepared(true) {
                    report("populate", *first, host.memory.populate(*first, *count));
                }
                self.unmap(host, *first, *count);
            }
            Effect::Map(gfn) => {
                // The kernel wakes by page, not by thread: as long as somebody on the page has no answer, nobody goes.
                if !self.stopped.is_touched(*gfn) {
                    report("map", *gfn, host.memory.restore(*gfn, host.maps_writable(*gfn)));
                }
            }
            Effect::Punch(gfn) => report("punch", *gfn, host.memory.punch(*gfn)),
            Effect::Zero(gfn) => {
                if !self.stopped.is_touched(*gfn) {
                    report("zero", *gfn, host.memory.zero(*gfn));
                }
            }
            Effect::Fill(gfn) => self.fill(host, *gfn)?,
            // Refused in `admit`, so the engine never shares a frame.
            Effect::Share { .. } | Effect::Unshare { .. } => {}
            Effect::Closed(ring) => self.channels[ring.index()] = None,
            Effect::Broken(ring, why) => eprintln!("mem-event: the {ring} ring is broken: {why}"),
            Effect::Crash(why) => {
                eprintln!("mem-event: the domain crashed: {why}");
                host.notify_subscribers(&Notice::Crashed(why.clone()));
            }
        }
        Ok(())
    }

    /// No access passes unseen from here on: caches forget, and a vCPU that was past its check meets an unmapped page.
    fn unmap(&mut self, host: &Hypervisor, first: Gfn, count: u64) {
        if host.has_gate() {
            host.vcpus.iter().for_each(|vcpu| vcpu.cache.empty());
        }
        report("unmap", first, host.memory.unmap(first, count));
    }

    fn fill(&mut self, host: &Hypervisor, gfn: Gfn) -> Result<(), Input> {
        let content = self.content.as_deref().unwrap_or(&[0; mem_event::PAGE_SIZE]);
        host.memory.write(gfn, 0, content).map_err(|error| {
            eprintln!("mem-event: frame {gfn} cannot be filled: {error}");
            Input::FillFailed { gfn }
        })
    }
}

fn header(arguments: &Arguments, config: &DomainConfig) -> Header {
    Header {
        guest: arguments.guest.clone(),
        guest_hash: arguments.guest_hash.clone(),
        qemu: arguments.qemu.clone(),
        plugin: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: arguments.scenario.clone(),
        config: config.clone(),
        facts: vec![("plugin API".to_owned(), crate::qemu::API_VERSION.to_string())],
    }
}

fn signal(channel: &OwnedFd) {
    // The counter is at its end only if the consumer has not looked for 2^64 signals.
    let _ = rustix::io::write(channel, &1u64.to_ne_bytes());
}

fn report(what: &str, gfn: Gfn, result: std::io::Result<()>) {
    if let Err(error) = result {
        eprintln!("mem-event: cannot {what} frame {gfn}: {error}");
    }
}
