//! The hypervisor's part: one domain's host, and its engine under a lock. What the guest does is handed to the engine here; what the
//! outside asks for comes by `control`.

use crate::arguments::Arguments;
use crate::engine::facts;
use crate::engine::held::Held;
use crate::engine::spool::Spool;
use crate::engine::step::{Beside, Engine};
use crate::fatal;
use crate::host::domain_host::Host;
use crate::host::vcpu::Vcpu;
use crate::host::waiting::Retry;
use crate::host::{explain, instrumentation};
use crate::memory::mapping::Memory;
use crate::memory::userfault::UffdFault;
use crate::qemu::source::ViewCheck;
use crate::qemu::view::View;
use mem_event::message::{Call, Reply};
use mem_event::registers::Registers;
use mem_event::trace::{Header, Remark, Writer};
use mem_event::{
    Access, CpuEvent, CpuEventKind, Domain, DomainConfig, Input, MonitorMode, Outcome, Ring, VcpuId, WaitReason, With,
};
use mem_event_server::EventChannel;
use rustix::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

/// The one domain of this process.
#[derive(Debug)]
pub struct Hypervisor {
    /// What effects act on.
    pub host: Host,
    engine: Mutex<Engine>,
    /// What a record of this run says before its first step.
    header: Header,
    /// Whether clients may map the guest's memory.
    pub(crate) maps_foreign: bool,
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
        let config = DomainConfig::new(vcpus, memory.map().ram());
        let header = facts::header(arguments, &config)?;
        let trace = match &arguments.trace {
            None => None,
            Some(path) => {
                let mut writer = Spool::create(path)
                    .and_then(|spool| Writer::new(spool, &header))
                    .map_err(|error| format!("trace {}: {error}", path.display()))?;
                writer.limit(arguments.trace_limit);
                Some(writer)
            }
        };
        let mut domain = Domain::new(config).map_err(|error| format!("no domain: {error}"))?;
        // Only a trace wants to know what was written into ring pages and taken from them.
        domain.keep_record(trace.is_some());
        let host = Host::new(arguments, vcpus, memory, domain.rights())?;
        let mut engine = Engine::new(domain, trace);
        engine.keeps_reads = arguments.record_reads;
        engine.keeps_contents = arguments.contents;
        let hypervisor = Hypervisor { host, engine: Mutex::new(engine), header, maps_foreign: arguments.maps_foreign };
        HYPERVISOR.set(hypervisor).map_err(|_| "the domain exists already")?;
        HYPERVISOR.get().ok_or_else(|| "no domain".to_owned())
    }

    pub(crate) fn engine(&self) -> Held<'_> {
        Held::new(&self.host, self.engine.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The engine for a call of this connection.
    pub(crate) fn engine_for(&self, connection: u32) -> Held<'_> {
        let mut engine = self.engine();
        engine.serving(connection);
        engine
    }

    /// Puts a remark into the trace, if there is one.
    pub fn remark(&self, remark: impl FnOnce() -> Remark) {
        self.engine().remark(remark);
    }

    /// Puts a call into the trace that no step tells of.
    pub fn called(&self, connection: u32, call: &Call, reply: &Reply) {
        self.engine().called(connection, call, reply);
    }

    /// Puts a text into the trace; how many steps that has, which are then on their way to its file.
    pub fn note(&self, connection: u32, text: &str) -> u64 {
        let mut engine = self.engine();
        if !text.is_empty() {
            engine.remark(|| Remark::Note { connection, text: text.to_owned() });
        }
        engine.flush_trace(connection)
    }

    /// Records the run for a connection from here on, into this file or pipe.
    ///
    /// # Errors
    /// The kernel starts no thread, or the file cannot be written.
    pub fn record_for(&self, connection: u32, file: OwnedFd) -> std::io::Result<()> {
        let name = format!("of connection {connection}");
        let writer = Spool::of(file.into(), Path::new(&name)).and_then(|spool| Writer::new(spool, &self.header))?;
        self.engine().record_for(connection, writer);
        Ok(())
    }

    /// A connection is gone, and its record ends.
    pub fn ends_record_of(&self, connection: u32) {
        self.engine().ends_record_of(connection);
    }

    /// A vCPU asks, in its callback, whether it may; the code at its instruction pointer is for the trace.
    pub fn access(&self, vcpu: &Vcpu, access: Access, code: &[u8], view: &View) -> Outcome {
        self.ask(vcpu, Input::Access { vcpu: vcpu.id, access }, code, (view, access.rip))
    }

    /// A vCPU reports a CPU event, or retries, at the instruction with this address.
    pub fn cpu_event(&self, vcpu: &Vcpu, event: CpuEvent, view: &View, rip: u64) -> Outcome {
        self.ask(vcpu, Input::CpuEvent { vcpu: vcpu.id, event }, &[], (view, rip))
    }

    /// A vCPU is about to do the instruction that it was to do alone, as it can.
    pub fn emulated(&self, vcpu: &Vcpu) {
        vcpu.trap.has_met_what_was_given();
        let mut engine = self.engine();
        engine.says_what_is_plain(&self.host, vcpu.id);
        let _ = engine.step(&self.host, Input::Emulated { vcpu: vcpu.id });
    }

    /// What a vCPU was to do alone, by its view, it can do as it is.
    pub fn needs_no_turn(&self, vcpu: &Vcpu) {
        let _ = self.engine().step(&self.host, Input::Emulated { vcpu: vcpu.id });
    }

    /// Whether what a vCPU may do alone is by its view, and no answer asked for it.
    pub fn goes_by_view(&self, vcpu: &Vcpu) -> bool {
        self.engine().domain.emulation(vcpu.id).is_some_and(|it| it.by_view)
    }

    fn ask(&self, vcpu: &Vcpu, input: Input, code: &[u8], (view, rip): (&View, u64)) -> Outcome {
        let access = if let Input::Access { access, .. } = &input { Some((access.gfn, access.rights)) } else { None };
        let mut engine = self.engine();
        if vcpu.does_first_what_is_due() {
            // Its answer came while it was on its way back into a block, which may not be the one that it is to go on in: it leaves that, and asks then.
            return Outcome::Wait(WaitReason::Frame);
        }
        let registers = engine.domain.carries_registers().then(|| registers(&input, view, rip));
        let with = With { registers: registers.as_ref(), ..With::NOTHING };
        // Before the step: a release that the step itself brings about must not be overwritten.
        vcpu.waiting.stop();
        let outcome = engine.step_with(&self.host, input, Beside { with, code, content: None });
        vcpu.waiting.set_retry(matches!(outcome, Outcome::Wait(_)).then_some(Retry { rip, access }));
        match outcome {
            Outcome::Wait(WaitReason::Answer(ring) | WaitReason::Slot(ring) | WaitReason::Consumer(ring)) => {
                vcpu.waiting.set_ring(Some(ring));
            }
            Outcome::Wait(WaitReason::Frame) | Outcome::Crashed => vcpu.waiting.set_ring(None),
            _ => vcpu.waiting.go_on(),
        }
        engine.settle(&self.host);
        outcome
    }

    /// A vCPU was unplugged: it gives up its place in queues and what was reserved for it. A request of its that is out stays out, and
    /// the answer to it frees its slot.
    pub fn vcpu_ended(&self, index: u32) {
        let Some(vcpu) = self.host.vcpu(index) else { return };
        let mut engine = self.engine();
        vcpu.end();
        // One that left its block from the kernel can go while its access has no answer.
        engine.stands_no_more(&self.host, vcpu.id);
        let _ = engine.step(&self.host, Input::Abandon { vcpu: vcpu.id });
        engine.settle(&self.host);
    }

    /// Whether the next exception or interrupt of a vCPU is to be told.
    pub fn tells_next_interrupt(&self, vcpu: VcpuId) -> bool {
        self.engine().domain.tells_next_interrupt(vcpu)
    }

    /// Whether events of a kind are reported.
    pub fn is_monitored(&self, kind: CpuEventKind) -> bool {
        self.engine().domain.monitored(kind) != MonitorMode::Disabled
    }

    /// A thread stopped in the kernel on a page of guest memory; says whether the engine heard of it.
    pub fn fault(&self, fault: UffdFault) -> bool {
        explain::stopped_access(&self.host, fault).is_some_and(|access| self.stopped(fault, access))
    }

    /// Takes the responses that are on a ring, if no other thread has meanwhile; first the calls that were handed over before them.
    pub fn take_responses(&self, channel: &EventChannel) {
        let mut engine = self.engine();
        let Some(current) = self.host.channel(channel.ring).filter(|current| std::ptr::eq(&**current, channel)) else {
            // What stands on the page of a ring that has ended is no answer on the page of the next.
            return;
        };
        if current.takes_later(&self.host.chaos) {
            return;
        }
        channel.take_responses(|responses| {
            // After the index: what was handed over before these responses is seen.
            self.take_calls_held(&mut engine, channel);
            let with = With { until: Some(responses), ..With::NOTHING };
            let _ =
                engine.step_with(&self.host, Input::Kick { ring: channel.ring }, Beside { with, ..Beside::NOTHING });
        });
        engine.settle(&self.host);
    }

    /// Takes out what nothing needs any more. Called when nothing has happened for a while: a listener that relaxes a page only to
    /// watch it again in a moment costs no translations. Not while an access stands in the kernel: dropping blocks needs all vCPUs
    /// out of theirs, so the others would wait for the answer that it waits for. And not while the engine holds a vCPU: without a check in
    /// its way it would go on, also where its answer did not let it (one without VCPU_PAUSED, after the rights were given).
    pub fn disarm(&self) {
        if self.host.reads_registers() {
            instrumentation::remind();
            let engine = self.engine();
            if engine.stopped.is_empty() && !engine.domain.holds_vcpus() {
                if self.host.has_gate() {
                    instrumentation::want(engine.needed(self.host.gate.now()));
                }
                if ViewCheck::now() == ViewCheck::Proven {
                    instrumentation::need_not_compare();
                }
            }
        }
    }

    /// Writes what the trace still holds.
    pub fn flush_trace(&self) {
        let _ = self.engine().flush_trace(0);
    }

    /// QEMU ends, or is about to: so does the trace, in order.
    pub fn end(&self) {
        // Answers for which nobody waits may still be on their way to the engine.
        for channel in Ring::ALL.iter().filter_map(|ring| self.host.channel(*ring)) {
            if channel.pollers.is_pending() {
                self.take_responses(&channel);
            }
        }
        self.engine().end_trace();
    }

    /// The run cannot go on: the trace ends in order, the subscribers hear why, and QEMU ends at once.
    pub fn fail(&self, sentence: &str) -> ! {
        self.end();
        fatal::end_run(Some(&self.host), sentence)
    }
}

/// The registers that go with a request: as in Xen those of `cpuid` hold already what it returns.
fn registers(input: &Input, view: &View, rip: u64) -> Registers {
    match input {
        Input::CpuEvent { event: CpuEvent { kind: CpuEventKind::Cpuid, value, old, .. }, .. } => {
            let low = |word: u64| (word & 0xffff_ffff) as u32;
            view.after_cpuid(rip, (low(*value), low(*old)))
        }
        // The API answers within callbacks alone.
        Input::CpuEvent { event, .. } if event.kind.is_delivery() => view.register_file(rip, false),
        _ => view.register_file(rip, true),
    }
}
