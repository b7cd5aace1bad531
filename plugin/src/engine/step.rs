//! One step of the engine at a time: recorded, and its effects carried out in their order.

use crate::engine::arriving::{Arriving, is_about_memory};
use crate::engine::gone::Gone;
use crate::engine::kernel_stops::KernelStops;
use crate::engine::provoked::Provoked;
use crate::engine::recorders::Recorders;
use crate::engine::spool::Spool;
use crate::engine::turn::Turn;
use crate::host::domain_host::Host;
use crate::host::notification::Notification;
use crate::memory::userfault::UffdFault;
use mem_event::message::{Call, Reply};
use mem_event::trace::remark::{Answer, Asked, Moment};
use mem_event::trace::{Remark, Writer};
use mem_event::{Access, CpuEventKind, Domain, Effects, Gfn, Input, MonitorMode, Outcome, Rights, With, digest};

/// What comes with one step beside its input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside<'a> {
    /// For the engine.
    pub with: With<'a>,
    /// The code at the vCPU's instruction pointer, for the trace.
    pub code: &'a [u8],
    /// The content of a page-in, for the effect `Fill`.
    pub content: Option<&'a [u8]>,
}

impl Beside<'_> {
    /// Nothing comes with the step.
    pub const NOTHING: Beside<'static> = Beside { with: With::NOTHING, code: &[], content: None };
}

/// The engine with what its effects need; one step at a time.
pub(crate) struct Engine {
    pub domain: Domain,
    pub effects: Effects,
    trace: Recorders,
    /// The connection whose call is served, 0 for none: see [`Engine::serving`].
    caller: u32,
    /// Whether the trace keeps what frames held that were read.
    pub keeps_reads: bool,
    /// Whether the trace says what frames held when the pager had to do with them.
    pub keeps_contents: bool,
    pub stopped: KernelStops,
    /// Who does an instruction alone now.
    pub turn: Option<Turn>,
    pub provoked: Provoked,
    /// Effects that failed in this step, as inputs that tell the engine.
    pub failures: Vec<Input>,
    /// Faults that were read while frames were remapped, and that nobody has explained yet.
    pub met: Vec<UffdFault>,
    /// What is on its way to a frame on which somebody stands.
    pub arriving: Arriving,
    /// What frames held whose memory went.
    pub gone: Gone,
    /// The threads that are to be notified when the engine is free.
    pub notifications: Vec<Notification>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("stopped", &self.stopped).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine that has made no step, recorded or not.
    pub fn new(domain: Domain, trace: Option<Writer<Spool>>) -> Engine {
        Engine {
            domain,
            effects: Effects::default(),
            trace: Recorders::of(trace),
            caller: 0,
            keeps_reads: false,
            keeps_contents: false,
            stopped: KernelStops::default(),
            turn: None,
            provoked: Provoked::default(),
            failures: Vec::new(),
            met: Vec::new(),
            arriving: Arriving::default(),
            gone: Gone::default(),
            notifications: Vec::new(),
        }
    }

    /// One step of the engine, recorded, with its effects carried out.
    pub fn step(&mut self, host: &Host, input: Input) -> Outcome {
        self.step_with(host, input, Beside::NOTHING)
    }

    /// The same with what comes beside the input.
    pub fn step_with(&mut self, host: &Host, input: Input, beside: Beside<'_>) -> Outcome {
        self.effects.clear();
        let written = executable_frame(host, &input);
        let outcome = self.domain.apply(&input, beside.with, &mut self.effects);
        // A response may switch single steps, and so does a step of which nobody is told: before the effects, which may let the vCPU go on.
        if self.domain.monitored(CpuEventKind::SingleStep) != MonitorMode::Disabled {
            self.mark_stepped(host);
        }
        if let Some(gfn) = written.filter(|gfn| !host.rights.allowed(*gfn).contains(Rights::X)) {
            self.arm(host);
            host.lose_execution(gfn, 1);
        }
        self.remark_registers(&input, beside.with);
        self.record(beside.code, &input, &outcome);
        let effects = std::mem::take(&mut self.effects);
        for effect in &effects.list {
            if is_about_memory(effect) {
                self.arrives(host);
            }
            if let Err(undone) = self.carry_out(host, effect, beside.content) {
                self.failures.push(undone);
                break;
            }
        }
        self.effects = effects;
        outcome
    }

    /// The trace ends here, in order; so does what connections record.
    pub fn end_trace(&mut self) {
        self.trace.finish();
        self.domain.keep_record(false);
    }

    /// From here on a connection gets a record of its own. It begins with the engine's state.
    pub fn record_for(&mut self, connection: u32, mut writer: Writer<Spool>) {
        writer.keep(&self.domain);
        self.trace.add(connection, writer);
        self.domain.keep_record(true);
    }

    /// A connection is gone, and its record ends.
    pub fn ends_record_of(&mut self, connection: u32) {
        self.trace.finish_that_of(connection);
        self.domain.keep_record(!self.trace.is_empty());
    }

    /// Control operations are this connection's from now on, until the engine is let go of.
    pub fn serving(&mut self, connection: u32) {
        self.caller = connection;
    }

    /// The connection whose call is served.
    pub fn caller(&self) -> u32 {
        self.caller
    }

    /// Puts a remark into the trace, which is built only if there is one.
    #[inline]
    pub fn remark(&mut self, remark: impl FnOnce() -> Remark) {
        if !self.trace.is_empty() {
            self.trace.remark(&remark());
            self.keep_what_is_recorded();
        }
    }

    /// Puts a call into the trace that no step tells of.
    pub fn called(&mut self, connection: u32, call: &Call, reply: &Reply) {
        let keeps_reads = self.keeps_reads;
        self.remark(|| Remark::Called {
            connection,
            call: Asked::of(call),
            reply: Answer::of(call, reply, keeps_reads),
        });
    }

    fn remark_registers(&mut self, input: &Input, with: With<'_>) {
        if let Some(remark) = Remark::of_registers(input, with, &self.effects.list) {
            self.remark(|| remark);
        }
    }

    /// What a frame holds at this moment, for the trace.
    pub fn remark_content(&mut self, gfn: Gfn, content: &[u8], how: Moment) {
        if self.keeps_contents {
            self.remark(|| Remark::Content { gfn, hash: digest(content), how });
        }
    }

    /// Hands what the trace still holds to its thread; how many steps the one of this connection has, or the plugin's own.
    pub fn flush_trace(&mut self, connection: u32) -> u64 {
        self.trace.flush();
        self.keep_what_is_recorded();
        self.trace.steps(connection)
    }

    #[inline]
    fn record(&mut self, code: &[u8], input: &Input, outcome: &Outcome) {
        if self.trace.is_empty() {
            return;
        }
        let connection = if matches!(input, Input::Control(_)) { self.caller } else { 0 };
        let Engine { trace, effects, domain, .. } = self;
        trace.record((code, connection), input, outcome, effects, domain);
        self.keep_what_is_recorded();
    }

    /// Nothing is kept that only a trace wants, once there is none.
    #[inline]
    fn keep_what_is_recorded(&mut self) {
        if self.trace.is_empty() {
            self.domain.keep_record(false);
        }
    }
}

/// The frame that is about to be written to and may be executed: a write may take that right (`rx2rw`).
fn executable_frame(host: &Host, input: &Input) -> Option<Gfn> {
    let (Input::Access { access, .. } | Input::Foreign { access }) = input else { return None };
    let Access { gfn, rights, .. } = *access;
    Some(gfn).filter(|gfn| rights.contains(Rights::W) && host.rights.allowed(*gfn).contains(Rights::X))
}
