//! One vCPU as the plugin knows it. How it waits is in `wait`.

use crate::host::due::Due;
use crate::host::word::{Asleep, Word};
use crate::insn::cache::PageCache;
use crate::insn::walk::PagingMode;
use mem_event::spin::{Spin, Window};
use mem_event::{Gfn, Rights, Ring, VcpuId};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a vCPU does after a callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// Execute the instruction.
    Run,
    /// Leave the block, let QEMU do what it needs, come back to the same instruction.
    Leave,
}

/// What a vCPU asked the engine when it was told to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The instruction at which it asked.
    pub rip: u64,
    /// The access; none for a CPU event.
    pub access: Option<(Gfn, Rights)>,
}

impl Retry {
    /// Whether an access at this instruction is the look, or comes instead of it. The instruction's other accesses are neither:
    /// what was set aside for the one that waits would go back before that one looks.
    pub fn is_due(&self, rip: u64, access: (Gfn, Rights)) -> bool {
        rip != self.rip || self.access == Some(access)
    }
}

/// No ring.
const NONE: u8 = u8::MAX;

/// One vCPU as the plugin knows it.
#[derive(Debug)]
pub struct Vcpu {
    /// Its number.
    pub id: VcpuId,
    /// The pages it may touch.
    pub cache: &'static PageCache,
    /// Its thread, 0 until it started.
    pub thread: AtomicI32,
    /// Whether the engine stopped it.
    pub(crate) event: Word,
    /// The ring whose answer or slot it waits for; `NONE` for none.
    awaits: AtomicU8,
    /// What it asked when the engine told it to wait; none since it was let go on.
    owed: Mutex<Option<Retry>>,
    /// Whether it owes a look: every miss of its page cache asks.
    owes: AtomicBool,
    /// How long it spins.
    window: Mutex<Window>,
    /// Whether it wants a core: it runs the guest, or spins.
    busy: AtomicBool,
    /// What it waits on at a checkpoint.
    pub checkpoint: Word,
    /// What it has to report before it goes on.
    due: Mutex<Option<Due>>,
    /// Whether its steps are reported.
    stepped: AtomicBool,
    /// A page that may be executed and not read, mapped while QEMU reads its code; 0 for none, else the frame and 1.
    read_for_code: AtomicU64,
    /// The instruction that it left its block at and has not executed since; 0 for none.
    left: AtomicU64,
    /// The instruction that it left its block at so that a block begins there; 0 for none.
    begins: AtomicU64,
    /// How it walked page tables last.
    mode: Mutex<PagingMode>,
    /// Whether it has reached a checkpoint and not gone on yet; it may leave its block in between.
    arrived: AtomicBool,
    /// When it began to wait, in milliseconds since the first that waited, and 1; 0 where it has not waited long enough to sleep.
    rests: AtomicU64,
    /// Whether it must not leave its block at the instruction that it is at.
    stays: AtomicBool,
}

/// Since when times are counted.
static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Vcpu {
    /// A vCPU that has not started; `None` for one beyond those that have a page cache.
    pub fn new(id: VcpuId, spin: Spin) -> Option<Vcpu> {
        let cache = crate::insn::cache::of(id.0)?;
        cache.empty();
        Some(Vcpu {
            id,
            cache,
            thread: AtomicI32::new(0),
            event: Word::default(),
            awaits: AtomicU8::new(NONE),
            owed: Mutex::default(),
            owes: AtomicBool::new(false),
            window: Mutex::new(Window::new(spin)),
            busy: AtomicBool::new(false),
            checkpoint: Word::default(),
            due: Mutex::default(),
            stepped: AtomicBool::new(false),
            read_for_code: AtomicU64::new(0),
            left: AtomicU64::new(0),
            begins: AtomicU64::new(0),
            mode: Mutex::default(),
            arrived: AtomicBool::new(false),
            rests: AtomicU64::new(0),
            stays: AtomicBool::new(false),
        })
    }

    /// Whether it must not leave its block at the instruction that it is at.
    pub fn must_stay(&self) -> bool {
        self.stays.load(Ordering::Relaxed)
    }

    /// It must not leave its block at the instruction that it is at, or may. In its own thread.
    pub fn stays(&self, must: bool) {
        self.stays.store(must, Ordering::Relaxed);
    }

    /// It goes to sleep: unless it has before, its wait is counted from now. Spinning is not worth a look at the clock.
    pub fn rests(&self) {
        if self.rests.load(Ordering::Relaxed) == 0 {
            self.rests_anew();
        }
    }

    /// Its wait is counted from now.
    pub fn rests_anew(&self) {
        self.rests.store(millis(BEGUN.elapsed()) + 1, Ordering::Relaxed);
    }

    /// For how many milliseconds it has waited.
    pub fn rested(&self) -> u32 {
        let since = self.rests.load(Ordering::Relaxed);
        let waited = if since == 0 { 0 } else { (millis(BEGUN.elapsed()) + 1).saturating_sub(since) };
        u32::try_from(waited).unwrap_or(u32::MAX)
    }

    /// What it has to report before it goes on.
    pub fn due(&self) -> Option<Due> {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has to report this, or nothing any more.
    pub fn owes(&self, due: Option<Due>) {
        *self.due.lock().unwrap_or_else(PoisonError::into_inner) = due;
    }

    /// Whether its steps are reported.
    pub fn is_stepped(&self) -> bool {
        self.stepped.load(Ordering::Acquire)
    }

    /// From now on its steps are reported, or not any more.
    pub fn step(&self, on: bool) {
        self.stepped.store(on, Ordering::Release);
    }

    /// QEMU may read this page now, to translate what the vCPU executes.
    pub fn reads_for_code(&self, gfn: Gfn) {
        self.read_for_code.store(gfn.0 + 1, Ordering::Release);
    }

    /// The page that QEMU was let read, once.
    pub fn has_been_read(&self) -> Option<Gfn> {
        if self.read_for_code.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.read_for_code.swap(0, Ordering::AcqRel).checked_sub(1).map(Gfn)
    }

    /// It leaves its block before this instruction, or executes it.
    pub fn goes(&self, go: Go, rip: u64) -> Go {
        self.left.store(if go == Go::Leave { rip } else { 0 }, Ordering::Relaxed);
        go
    }

    /// Whether it left its block before this instruction, and is back.
    pub fn comes_back_to(&self, rip: u64) -> bool {
        self.left.load(Ordering::Relaxed) == rip
    }

    /// Whether a block begins at this instruction, as it was asked for; says so once. If not, it is asked for now: the vCPU is to leave.
    pub fn begins_block_at(&self, rip: u64) -> bool {
        let begins = self.begins.swap(0, Ordering::Relaxed) == rip;
        if !begins {
            self.begins.store(rip, Ordering::Relaxed);
            // What it runs before it is back must look too.
            self.cache.empty();
        }
        begins
    }

    /// How it walked page tables last: after a change of them its next access is a miss, which says so here.
    pub fn paging_mode(&self) -> PagingMode {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It walks page tables so.
    pub fn walks(&self, mode: PagingMode) {
        *self.mode.lock().unwrap_or_else(PoisonError::into_inner) = mode;
    }

    /// Whether it stands at a checkpoint.
    pub fn at_checkpoint(&self) -> bool {
        self.arrived.load(Ordering::Relaxed)
    }

    /// It reached a checkpoint, or goes on from one.
    pub fn arrive(&self, arrived: bool) {
        if arrived {
            self.rests_anew();
        }
        self.arrived.store(arrived, Ordering::Relaxed);
    }

    /// The engine told this vCPU to wait. Under the engine's lock, so that a wake cannot come before.
    pub fn stop(&self) {
        self.rests.store(0, Ordering::Relaxed);
        self.event.stop();
    }

    /// The engine did not stop this vCPU after all; in its own thread.
    pub fn go_on(&self) {
        self.event.go();
    }

    /// The engine woke this vCPU; if it sleeps, it is still to be called.
    #[must_use = "a sleeper does not see that it may go on"]
    pub fn release(&self) -> Option<Asleep> {
        self.event.release_quietly()
    }

    /// It was woken while it slept so.
    pub fn notify(&self, asleep: Asleep) {
        self.event.notify(asleep);
    }

    /// Whether the engine stopped this vCPU and has not woken it.
    pub fn is_stopped(&self) -> bool {
        self.event.is_stopped()
    }

    /// What it asked when the engine told it to wait, unless it has been let go on since. A wake may have come with a slot or a
    /// frame, which only another look uses or gives back, also where what it wants is allowed by now: else it is kept from all
    /// others for ever.
    pub fn pending_retry(&self) -> Option<Retry> {
        if !self.owes.load(Ordering::Relaxed) {
            return None;
        }
        *self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the engine said to it: to wait, having asked this, or not. In its own thread.
    pub fn was_answered(&self, retry: Option<Retry>) {
        self.owes.store(retry.is_some(), Ordering::Relaxed);
        *self.owed.lock().unwrap_or_else(PoisonError::into_inner) = retry;
    }

    /// The ring that it waits for from now on, if any.
    pub fn awaits(&self, ring: Option<Ring>) {
        self.awaits.store(ring.map_or(NONE, |ring| ring as u8), Ordering::Relaxed);
    }

    /// The ring that it waits for.
    pub fn awaited(&self) -> Option<Ring> {
        Ring::from_number(self.awaits.load(Ordering::Relaxed))
    }

    /// How long it spins before it sleeps.
    pub fn window(&self) -> std::sync::MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it wants a core.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// It wants a core from now on, or sleeps.
    pub fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}
