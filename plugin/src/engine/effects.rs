//! One step of the engine at a time: recorded, and its effects carried out in their order.

use crate::arguments::Gate;
use crate::engine::held::Call;
use crate::engine::hypervisor::Hypervisor;
use crate::engine::spool::{self, Spool};
use crate::engine::stopped::{Look, Stopped, Toucher};
use crate::host::instrumentation;
use crate::host::vcpu::Vcpu;
use crate::memory::userfault;
use mem_event::message::Notice;
use mem_event::trace::{Context, Writer};
use mem_event::{CpuEventKind, Domain, Effect, Effects, Gfn, Input, MonitorMode, Outcome, Rights, With};
use std::time::Instant;

/// What comes with one step beside its input.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    /// For the engine.
    pub with: With<'a>,
    /// The code at the vCPU's instruction pointer, for the trace.
    pub code: &'a [u8],
    /// The content of a page-in, for the effect `Fill`.
    pub content: Option<&'a [u8]>,
}

impl Told<'_> {
    /// Nothing comes with the step.
    pub const NOTHING: Told<'static> = Told { with: With::NOTHING, code: &[], content: None };
}

/// The engine with what its effects need; one step at a time.
pub(crate) struct Engine {
    pub domain: Domain,
    pub effects: Effects,
    pub trace: Option<Writer<Spool>>,
    /// When the recording began.
    pub begun: Instant,
    pub stopped: Stopped,
    /// Effects that failed in this step, as inputs that tell the engine.
    pub failures: Vec<Input>,
    /// Faults that were read while frames were remapped, and are not looked at yet.
    pub met: Vec<userfault::Fault>,
    /// Who is to be called when nobody holds the engine.
    pub calls: Vec<Call>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

impl Engine {
    /// One step of the engine, recorded, with its effects carried out.
    pub fn step(&mut self, host: &Hypervisor, input: Input) -> Outcome {
        self.step_with(host, input, Told::NOTHING)
    }

    /// The same with what comes beside the input.
    pub fn step_with(&mut self, host: &Hypervisor, input: Input, told: Told<'_>) -> Outcome {
        self.effects.clear();
        let outcome = self.domain.apply(&input, told.with, &mut self.effects);
        self.record(told.code, &input, &outcome);
        let effects = std::mem::take(&mut self.effects);
        for effect in &effects.list {
            if let Err(undone) = self.carry_out(host, effect, told.content) {
                self.failures.push(undone);
                break;
            }
        }
        self.effects = effects;
        outcome
    }

    /// The trace ends here, in order.
    pub fn end_trace(&mut self) {
        if let Some(trace) = self.trace.take() {
            // What went wrong with it has been said where it did.
            let _ = trace.finish();
            self.domain.keep_record(false);
        }
    }

    #[inline]
    fn record(&mut self, code: &[u8], input: &Input, outcome: &Outcome) {
        let Some(trace) = &mut self.trace else { return };
        let time = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        trace.record(Context { time, code }, input, outcome, &self.effects);
        if trace.wants_state() {
            trace.keep(&self.domain);
        }
        if let Some(why) = trace.failed() {
            if why != spool::ENDED {
                eprintln!("mem-event: the trace ends here, and the run goes on: {why}");
            }
            // From here on nothing is kept that only a trace wants.
            self.trace = None;
            self.domain.keep_record(false);
        }
    }

    /// Instruments what is wanted now. What is not wanted any more stays until [`Hypervisor::disarm`].
    pub fn arm(&mut self, host: &Hypervisor) {
        if host.has_gate() {
            self.mark_stepped(host);
            instrumentation::want(instrumentation::wanted() | self.needed(host.gate()));
        }
    }

    /// What must be instrumented for what is watched and monitored.
    pub fn needed(&self, gate: Gate) -> u8 {
        let monitored = |kind: &CpuEventKind| self.domain.monitored(*kind) != MonitorMode::Disabled;
        let events = CpuEventKind::ALL.iter().any(monitored);
        let when = |is: bool, what: u8| if is { what } else { 0 };
        let data = if gate == Gate::Callback { instrumentation::ACCESS } else { instrumentation::NOTE };
        when(self.domain.is_watching(), data)
            | when(self.domain.is_watching_write_only(), instrumentation::ACCESS)
            | when(self.domain.is_watching_execution() || events, instrumentation::EXECUTE)
            | when(events, instrumentation::SPECIAL)
            | when(monitored(&CpuEventKind::SingleStep), instrumentation::STEP)
    }

    pub fn mark_stepped(&self, host: &Hypervisor) {
        for vcpu in &host.vcpus {
            vcpu.step(self.domain.single_steps(vcpu.id));
        }
    }

    /// What earlier steps left to do: failed effects are told to the engine, and those stopped in the kernel look again.
    pub fn settle(&mut self, host: &Hypervisor) {
        loop {
            if let Some(failure) = self.failures.pop() {
                let _ = self.step(host, failure);
            } else if let Some(fault) = self.met.pop() {
                // The newest first, as good as any order: each thread is stopped by one.
                host.look(fault).into_iter().for_each(|look| self.stopped.add(look));
            } else if let Some(look) = self.stopped.next_to_look() {
                self.look_again(host, look);
            } else {
                host.set_stopping(!self.stopped.is_empty());
                // A frame may have come into being with the domain's default rights.
                if self.domain.is_watching()
                    && instrumentation::wanted() & (instrumentation::ACCESS | instrumentation::NOTE) == 0
                {
                    self.arm(host);
                }
                return;
            }
        }
    }

    fn look_again(&mut self, host: &Hypervisor, Look { toucher, fault, access }: Look) {
        let outcome = match toucher {
            Toucher::Vcpu(vcpu) => {
                let view = if self.domain.carries_registers() { crate::qemu::view::view_of(vcpu.0) } else { None };
                let registers = view.map(|view| view.register_file(access.rip, false));
                let with = With { registers: registers.as_ref(), ..With::NOTHING };
                self.step_with(host, Input::Access { vcpu, access }, Told { with, ..Told::NOTHING })
            }
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
                if let Toucher::Vcpu(vcpu) = toucher
                    && let Some(vcpu) = host.vcpu(vcpu.0)
                {
                    vcpu.set_busy(true);
                }
                if self.stopped.remove(toucher, fault) {
                    report("map", fault.gfn, host.memory.restore(fault.gfn, host.maps_writable(fault.gfn)));
                }
            }
        }
    }

    /// Carries one effect out; `Err` is what the engine must hear where it cannot be, and the step's other effects stay undone.
    fn carry_out(&mut self, host: &Hypervisor, effect: &Effect, content: Option<&[u8]>) -> Result<(), Input> {
        match effect {
            Effect::Requested { .. } | Effect::Answered { .. } => {}
            Effect::Notify(ring) => {
                // One that looks at the ring by itself needs no signal.
                if let Some(link) = host.link(*ring)
                    && link.lookout.must_signal()
                {
                    self.calls.push(Call::Consumer(link));
                }
            }
            Effect::Wake(vcpu) => {
                // Both: one that waits in a callback leaves its block now and then, and may have met a page in the kernel since.
                let _ = self.stopped.wake(*vcpu);
                if let Some(asleep) = host.vcpu(vcpu.0).and_then(Vcpu::wake) {
                    self.calls.push(Call::Vcpu(*vcpu, asleep));
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
            Effect::Map(gfn) => self.map(host, *gfn),
            Effect::Punch(gfn) => {
                self.part(host, *gfn);
                report("punch", *gfn, host.memory.punch(*gfn));
            }
            Effect::Zero(gfn) => {
                if !self.stopped.is_touched(*gfn) {
                    report("zero", *gfn, host.memory.zero(*gfn));
                }
            }
            Effect::Fill(gfn) => fill(host, *gfn, content)?,
            Effect::Share { source, client } => {
                // Where it fails the client goes on with a page of its own, which is as right.
                report("share", *client, host.memory.share(*source, *client, &mut self.met));
            }
            Effect::Unshare { gfn, .. } => {
                self.part(host, *gfn);
                self.map(host, *gfn);
            }
            Effect::Closed(ring) => host.set_link(*ring, None),
            Effect::Broken(ring, why) => {
                eprintln!("mem-event: the {ring} ring is broken: {why}");
                host.set_link(*ring, None);
            }
            Effect::Crash(why) => {
                eprintln!("mem-event: the domain crashed: {why}");
                host.notify_subscribers(&Notice::Crashed(why.clone()));
            }
        }
        Ok(())
    }

    /// The frame goes back to the guest.
    fn map(&mut self, host: &Hypervisor, gfn: Gfn) {
        // The kernel wakes by page, not by thread: as long as somebody on the page has no answer, nobody goes. And whoever may not
        // read it is to stop at it.
        if !self.stopped.is_touched(gfn) && host.rights.allowed(gfn).contains(Rights::R) {
            report("map", gfn, host.memory.restore(gfn, host.maps_writable(gfn)));
        }
    }

    /// The frame shares its page with nobody from now on. If that fails, it still shows what is others' as well, which nobody may
    /// write to: the run cannot go on.
    fn part(&mut self, host: &Hypervisor, gfn: Gfn) {
        if let Err(error) = host.memory.part(gfn, &mut self.met) {
            self.end_trace();
            crate::entry::install::fail_closed(&format!("frame {gfn} cannot have memory of its own: {error}"));
        }
    }

    /// No access passes unseen from here on: caches forget, and a vCPU that was past its check meets an unmapped page.
    fn unmap(&mut self, host: &Hypervisor, first: Gfn, count: u64) {
        if host.has_gate() {
            host.vcpus.iter().for_each(|vcpu| vcpu.cache.empty());
        }
        report("unmap", first, host.memory.unmap(first, count));
    }
}

fn fill(host: &Hypervisor, gfn: Gfn, content: Option<&[u8]>) -> Result<(), Input> {
    let content = content.unwrap_or(&[0; mem_event::PAGE_SIZE]);
    host.memory.write(gfn, 0, content).map_err(|error| {
        eprintln!("mem-event: frame {gfn} cannot be filled: {error}");
        Input::FillFailed { gfn }
    })
}

/// A failed effect is said; the engine cannot be told of these.
pub(crate) fn report(what: &str, gfn: Gfn, result: std::io::Result<()>) {
    if let Err(error) = result {
        eprintln!("mem-event: cannot {what} frame {gfn}: {error}");
    }
}
