//! One step of the engine at a time: recorded, and its effects carried out in their order.

use crate::engine::gone::Gone;
use crate::engine::kernel_stops::KernelStops;
use crate::engine::spool::{self, Spool};
use crate::host::domain_host::Host;
use crate::host::notification::Notification;
use crate::memory::userfault::UffdFault;
use mem_event::trace::{Context, Writer};
use mem_event::{Domain, Effects, Input, Outcome, With};
use std::time::Instant;

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
    /// When the recording began.
    pub begun: Instant,
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
            begun: Instant::now(),
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
}
