//! One vCPU as the plugin knows it: its state, and beside it what its checks remember, how it waits and which checkpoints it reached.

use crate::host::checkpoints::{Arrival, Checkpoints, Release};
use crate::host::state::{Go, State};
use crate::host::thread;
use crate::host::trap_data::TrapData;
use crate::host::waiting::Waiting;
use crate::host::word::Word;
use crate::insn::cache::{self, PageCache};
use crate::qemu::unwinding::{Doing, Place, Unwinder};
use crate::qemu::{current, delivery, internals, outside, raising};
use mem_event::VcpuId;
use mem_event::spin::Spin;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One vCPU.
#[derive(Debug)]
pub struct Vcpu {
    /// Its number.
    pub id: VcpuId,
    /// The pages it may touch.
    pub cache: &'static PageCache,
    /// Its thread, 0 until it started.
    pub thread: AtomicI32,
    /// What its checks remember.
    pub trap: TrapData,
    /// How it waits for the engine.
    pub waiting: Waiting,
    checkpoints: Checkpoints,
    state: Mutex<State>,
    unwinder: Mutex<Unwinder>,
    /// It sleeps since a client paused the domain.
    pub paused: AtomicBool,
    /// It waits, and has given way to the others of its thread.
    gave_way: AtomicBool,
}

impl Vcpu {
    /// A vCPU that has not started; `None` for one beyond those that have a page cache.
    pub fn new(id: VcpuId, spin: Spin) -> Option<Vcpu> {
        let cache = cache::of(id.0)?;
        cache.empty();
        Some(Vcpu {
            id,
            cache,
            thread: AtomicI32::new(0),
            trap: TrapData::default(),
            waiting: Waiting::new(spin),
            checkpoints: Checkpoints::default(),
            state: Mutex::default(),
            unwinder: Mutex::default(),
            paused: AtomicBool::new(false),
            gave_way: AtomicBool::new(false),
        })
    }

    /// Whether it has a thread that may run it.
    pub fn has_started(&self) -> bool {
        self.thread.load(Ordering::Acquire) != 0
    }

    /// It was unplugged: a vCPU that comes in its place begins anew.
    pub fn end(&self) {
        self.thread.store(0, Ordering::Release);
        self.begins_anew();
        self.passes_all_checkpoints();
        self.paused.store(false, Ordering::Release);
    }

    /// It is out of its block, and does not come back to where it was: nothing of what it was about to do is left.
    pub fn begins_anew(&self) {
        self.cache.empty();
        self.trap.reset();
        delivery::forget(self.id.0);
        self.waiting.end();
        self.gave_way.store(false, Ordering::Release);
        *self.lock() = State::Runs;
    }

    /// It waits, and gives way to the others of its thread.
    pub fn gives_way(&self) {
        self.gave_way.store(true, Ordering::SeqCst);
    }

    /// Whether it has given way since it began to wait.
    pub fn has_given_way(&self) -> bool {
        self.gave_way.load(Ordering::Acquire)
    }

    /// It may go on; says whether it had given way.
    pub fn gives_way_no_more(&self) -> bool {
        self.gave_way.swap(false, Ordering::SeqCst)
    }

    /// Whether it would run if its thread came to it.
    pub fn could_run(&self) -> bool {
        let waits = self.waiting.is_stopped() || !self.waiting.is_busy() || self.awaits_release();
        self.has_started() && !waits && !raising::is_halted(self.id.0)
    }

    /// Nothing awaits its release at a checkpoint any more: it is gone, or begins at its reset vector.
    pub fn passes_all_checkpoints(&self) {
        self.checkpoints.arrivals().clear();
        self.checkpoints.word.go();
    }

    /// How long its thread has run.
    pub fn has_run(&self) -> Duration {
        thread::has_run(self.thread.load(Ordering::Acquire))
    }

    /// Whether its thread only wants a core to come to what it is told to do: it waits for nobody, and has not run for so long since then without
    /// coming to that. One that runs and runs waits for somebody too, spinning, as for the lock of a page that another one translates.
    pub fn wants_a_core(&self, had_run: Duration, enough: Duration) -> bool {
        let thread = self.thread.load(Ordering::Acquire);
        thread::is_runnable(thread) && thread::has_run(thread).saturating_sub(had_run) < enough
    }

    /// Which instruction it stands in, while the kernel holds its thread in a fault; `None` where it is in no block, as one is whose thread runs
    /// another one.
    pub fn place(&self) -> Option<Place> {
        if !current::may_run(self.id.0) {
            return None;
        }
        let thread = self.thread.load(Ordering::Acquire);
        self.unwinder.lock().unwrap_or_else(PoisonError::into_inner).place(self.id.0, thread)
    }

    /// What its thread does, of which the kernel has told that it stopped in a fault. One whose thread runs another one is on its way.
    pub fn doing(&self) -> Doing {
        if !current::may_run(self.id.0) {
            return Doing::Runs;
        }
        let thread = self.thread.load(Ordering::Acquire);
        self.unwinder.lock().unwrap_or_else(PoisonError::into_inner).doing(self.id.0, thread)
    }

    /// Whether the kernel holds its thread in a fault in the midst of a block.
    pub fn is_in_a_block(&self) -> bool {
        matches!(self.doing(), Doing::Stands(Some(_)))
    }

    /// Where it is.
    pub fn state(&self) -> State {
        *self.lock()
    }

    /// Whether it has to wait, to ask the engine again or to report something before it goes on.
    pub fn has_business(&self) -> bool {
        self.asks() || self.trap.has_pending_event() || self.trap.has_new_registers()
    }

    /// Whether it was let go on with other registers while it was on its way back to its instruction: it leaves its block once more, and they
    /// are set.
    pub fn is_put_elsewhere(&self) -> bool {
        self.trap.has_new_registers() && !self.waiting.is_stopped() && self.state().may_leave()
    }

    /// Whether it can leave the block that it is in from where it is.
    pub fn can_leave(&self) -> bool {
        self.state().may_leave() && internals::can_leave()
    }

    /// Whether it has something to do before it begins another block, and leaves the one that it is in for that.
    pub fn does_first_what_is_due(&self) -> bool {
        outside::is_due(self.id.0) && self.can_leave()
    }

    /// Whether it waits for the engine, or was let go on and has to ask it again.
    pub fn asks(&self) -> bool {
        self.waiting.is_stopped() || self.waiting.pending_retry().is_some()
    }

    /// Whether it is in its callback, where it sleeps until the engine or a client lets it go on: in no block that it would go on with, if
    /// that is dropped.
    pub fn waits_in_callback(&self) -> bool {
        match self.state() {
            State::Stands { .. } => self.waiting.is_stopped(),
            State::AtCheckpoint(_) => self.checkpoints.word.is_stopped(),
            State::Runs | State::Left { .. } | State::Back { .. } => false,
        }
    }

    /// Where it waits in its callback, its sleep ends, and it looks at what else there is to do.
    pub fn wake(&self) {
        self.waiting.word.wake();
        self.checkpoints.word.wake();
    }

    /// A check of the instruction at this address begins that may make it wait.
    pub fn stand(&self, before: u64, may_leave: bool) {
        let mut state = self.lock();
        *state = state.stand(before, may_leave);
    }

    /// It reports something here; says whether a block begins at the instruction, as far as it came back to it and has reported nothing
    /// since.
    pub fn report(&self) -> bool {
        let mut state = self.lock();
        let begins = state.begins_block();
        *state = state.report();
        begins
    }

    /// The callback ends so.
    pub fn go(&self, go: Go) -> Go {
        let before = {
            let mut state = self.lock();
            let before = *state;
            *state = before.go(go);
            before
        };
        match go {
            // Whatever it runs before it is back (an interrupt's handler) must be checked too.
            Go::Leave => self.cache.empty(),
            Go::Run => {
                if let State::AtCheckpoint(arrival) = before {
                    self.checkpoints.arrivals().pass(arrival);
                }
            }
        }
        go
    }

    /// It does this instruction alone, which was checked before; what it reports next is another's.
    pub fn passes_alone(&self, rip: u64) -> Go {
        self.stand(rip, true);
        self.report();
        self.go(Go::Run)
    }

    /// It was put before another instruction while it was out of its block: what it was about to report or to ask is over.
    pub fn moved(&self, before: u64) {
        self.trap.set_pending_event(None);
        self.trap.has_met_what_was_given();
        self.trap.is_in();
        let mut state = self.lock();
        if *state != State::Runs || self.trap.is_stepped() {
            *state = state.moved(before);
        }
    }

    /// It reached a checkpoint or a breakpoint; says whether for the first time, which is to be announced. It waits there until it is
    /// released.
    pub fn arrive(&self, arrival: Arrival) -> bool {
        let mut arrivals = self.checkpoints.arrivals();
        let known = arrivals.arrive(arrival);
        // Under the lock: a release comes before, and is seen here, or after, and sees where the vCPU stands.
        if known == Some(Release::Given) {
            self.checkpoints.word.go();
        } else {
            self.checkpoints.word.stop();
        }
        let mut state = self.lock();
        *state = state.arrive(arrival);
        known.is_none()
    }

    /// What it sleeps on at a checkpoint.
    pub fn checkpoint_word(&self) -> &Word {
        &self.checkpoints.word
    }

    /// Whether a client is to let it go on from a checkpoint.
    pub fn awaits_release(&self) -> bool {
        self.checkpoints.arrivals().is_waiting()
    }

    /// How many checkpoints it reached where a client is to let it go on.
    pub fn stops(&self) -> usize {
        self.checkpoints.arrivals().waiting()
    }

    /// A client lets it go on from the checkpoint that it reached first of those that it was not let go on from.
    pub fn release_checkpoint(&self) {
        let mut arrivals = self.checkpoints.arrivals();
        if let Some(arrival) = arrivals.release_oldest() {
            self.released(arrival);
        }
    }

    /// Nobody was told of this arrival: it needs no release.
    pub fn release_arrival(&self, arrival: Arrival) {
        let mut arrivals = self.checkpoints.arrivals();
        arrivals.release(arrival);
        self.released(arrival);
    }

    /// No client is left that could let it go on.
    pub fn release_checkpoints(&self) {
        let mut arrivals = self.checkpoints.arrivals();
        while let Some(arrival) = arrivals.release_oldest() {
            self.released(arrival);
        }
    }

    /// With the arrivals locked.
    fn released(&self, arrival: Arrival) {
        if self.state() == State::AtCheckpoint(arrival) {
            self.checkpoints.word.release();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
