//! Who records the engine's steps: the plugin's own trace, and connections that asked for a record of their own.

use crate::engine::spool::{ENDED, Spool};
use mem_event::trace::{Context, Remark, Writer};
use mem_event::{Domain, Effects, Input, Outcome};
use std::time::{Duration, Instant};

/// After so long a step is on its way to the trace's file, at the latest with the next one: somebody may follow it while the run is busy.
const LATE: Duration = Duration::from_millis(100);

/// One recording.
struct Recorder {
    /// The connection that it is for; 0 for the plugin's own.
    connection: u32,
    writer: Writer<Spool>,
    begun: Instant,
    /// When it was last handed to its thread, in nanoseconds of the recording.
    flushed: u64,
}

/// All recordings.
#[derive(Default)]
pub struct Recorders(Vec<Recorder>);

impl Recorders {
    /// The plugin's own, if there is one.
    pub fn of(writer: Option<Writer<Spool>>) -> Recorders {
        let mut recorders = Recorders::default();
        if let Some(writer) = writer {
            recorders.add(0, writer);
        }
        recorders
    }

    /// Another one, from here on.
    pub fn add(&mut self, connection: u32, writer: Writer<Spool>) {
        self.0.push(Recorder { connection, writer, begun: Instant::now(), flushed: 0 });
    }

    /// Whether nobody records.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A step, with the code at the instruction pointer and the connection that called it.
    #[inline]
    pub fn record(
        &mut self,
        (code, connection): (&[u8], u32),
        input: &Input,
        outcome: &Outcome,
        effects: &Effects,
        domain: &Domain,
    ) {
        for recorder in &mut self.0 {
            let time = recorder.now();
            recorder.writer.record(Context { time, code, connection }, input, outcome, effects);
            if recorder.writer.wants_state() {
                recorder.writer.keep(domain);
            }
            recorder.flush_late(time);
        }
        self.forget_failed();
    }

    /// A remark.
    pub fn remark(&mut self, remark: &Remark) {
        for recorder in &mut self.0 {
            let time = recorder.now();
            recorder.writer.remark(time, remark);
            recorder.flush_late(time);
        }
        self.forget_failed();
    }

    /// Hands everything to the threads that write.
    pub fn flush(&mut self) {
        for recorder in &mut self.0 {
            recorder.writer.flush();
            recorder.flushed = recorder.now();
        }
        self.forget_failed();
    }

    /// How many steps the recording of a connection has, or else the plugin's own.
    pub fn steps(&self, connection: u32) -> u64 {
        let of = |wanted| self.0.iter().find(|recorder| recorder.connection == wanted);
        of(connection).or_else(|| of(0)).map_or(0, |recorder| recorder.writer.steps())
    }

    /// All end here, in order. What they hold is written before this returns: the process may be about to end.
    pub fn finish(&mut self) {
        for recorder in self.0.drain(..) {
            // What went wrong with it has been said where it did.
            let _ = recorder.writer.finish();
        }
    }

    /// The recording of a connection ends here, in order.
    pub fn finish_that_of(&mut self, connection: u32) {
        while let Some(at) = self.0.iter().position(|recorder| recorder.connection == connection) {
            let mut writer = self.0.swap_remove(at).writer;
            // Its reader may be there and not read.
            writer.output().let_go();
            let _ = writer.finish();
        }
    }

    #[inline]
    fn forget_failed(&mut self) {
        self.0.retain(|recorder| {
            let failed = recorder.writer.failed();
            if let Some(why) = failed.filter(|why| *why != ENDED) {
                eprintln!("mem-event: the trace ends here, and the run goes on: {why}");
            }
            failed.is_none()
        });
    }
}

impl Recorder {
    #[inline]
    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    #[inline]
    fn flush_late(&mut self, now: u64) {
        if u128::from(now.saturating_sub(self.flushed)) > LATE.as_nanos() {
            self.writer.flush();
            self.flushed = now;
        }
    }
}
