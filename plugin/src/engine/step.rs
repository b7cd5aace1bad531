//! One step of the engine at a time: recorded, and its effects carried out in their order.

use crate::engine::gone::Gone;
use crate::engine::kernel_stops::KernelStops;
use crate::engine::spool::{self, Spool};
use crate::host::domain_host::Host;
use crate::host::notification::Notification;
use crate::memory::userfault::UffdFault;
use mem_event::trace::remark::Moment;
use mem_event::trace::{Context, Remark, Writer};
use mem_event::{Domain, Effects, Gfn, Input, Outcome, With, digest};
use std::time::Instant;

/// Nanoseconds after which a step is on its way to the trace's file, at the latest with the next one.
const LATE: u64 = 100_000_000;

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
    pub trace: Option<Writer<Spool>>,
    /// The connection whose call is served, 0 for none: see [`Engine::serving`].
    caller: u32,
    /// Whether the trace keeps what frames held that were read.
    pub keeps_reads: bool,
    /// Whether the trace says what frames held when the pager had to do with them.
    pub keeps_contents: bool,
    /// When the recording began.
    pub begun: Instant,
    /// When the trace was last handed to its thread, in nanoseconds of the recording.
    flushed: u64,
    pub stopped: KernelStops,
    /// Effects that failed in this step, as inputs that tell the engine.
    pub failures: Vec<Input>,
    /// Faults that were read while frames were remapped, and that nobody has explained yet.
    pub met: Vec<UffdFault>,
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
            trace,
            caller: 0,
            keeps_reads: false,
            keeps_contents: false,
            begun: Instant::now(),
            flushed: 0,
            stopped: KernelStops::default(),
            failures: Vec::new(),
            met: Vec::new(),
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
        let outcome = self.domain.apply(&input, beside.with, &mut self.effects);
        self.record(beside.code, &input, &outcome);
        let effects = std::mem::take(&mut self.effects);
        for effect in &effects.list {
            if let Err(undone) = self.carry_out(host, effect, beside.content) {
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
        let Some(trace) = &mut self.trace else { return };
        trace.remark(nanoseconds(self.begun), &remark());
        self.end_a_failed_trace();
    }

    /// What a frame holds at this moment, for the trace.
    pub fn remark_content(&mut self, gfn: Gfn, content: &[u8], how: Moment) {
        if self.keeps_contents {
            self.remark(|| Remark::Content { gfn, hash: digest(content), how });
        }
    }

    /// Hands what the trace still holds to its thread; how many steps it has.
    pub fn flush_trace(&mut self) -> u64 {
        let Some(trace) = &mut self.trace else { return 0 };
        trace.flush();
        let steps = trace.steps();
        self.flushed = nanoseconds(self.begun);
        self.end_a_failed_trace();
        steps
    }

    #[inline]
    fn record(&mut self, code: &[u8], input: &Input, outcome: &Outcome) {
        let Some(trace) = &mut self.trace else { return };
        let time = nanoseconds(self.begun);
        let connection = if matches!(input, Input::Control(_)) { self.caller } else { 0 };
        trace.record(Context { time, code, connection }, input, outcome, &self.effects);
        if trace.wants_state() {
            trace.keep(&self.domain);
        }
        if time - self.flushed.min(time) > LATE {
            // Somebody may follow the file while the run is busy.
            trace.flush();
            self.flushed = time;
        }
        self.end_a_failed_trace();
    }

    #[inline]
    fn end_a_failed_trace(&mut self) {
        let Some(why) = self.trace.as_ref().and_then(Writer::failed) else { return };
        if why != spool::ENDED {
            eprintln!("mem-event: the trace ends here, and the run goes on: {why}");
        }
        // From here on nothing is kept that only a trace wants.
        self.trace = None;
        self.domain.keep_record(false);
    }
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
