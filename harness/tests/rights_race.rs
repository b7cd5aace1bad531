//! No access passes against the rights in force: one vCPU has the consumer change a page's rights in a loop, another uses the page, or runs
//! its code. The consumer makes each change while the first vCPU waits for its answer.
//!
//! `MEM_EVENT_CHANGES` says how many changes; `ci/soak` makes a million.

use crate::support::{kernel_maps_write_protected, memory_file, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::Scenario;
use harness::verdict::{Kind, Verdict};
use mem_event::message::{Call, Notice};
use mem_event::{AccessType, Control, Gfn, Request, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use rustix::thread::gettid;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const CHANGES: u64 = 4_000;
/// How many where the other vCPU hardly runs.
const STARVED: u64 = 16;
/// The word that is counted in, and the one that hides something.
const COUNTED: u64 = 8;
const POISON: u64 = 0x7e57_0000_dead_beef;
const SPIN: Duration = Duration::from_micros(50);
/// Of the reductions each one in so many lasts until it has stopped the other vCPU, and of the grants each one in so many until the
/// other vCPU has gone on. The rest race as fast as the machine can; on a loaded core they may all be over before the other vCPU runs.
const LASTS: u64 = 64;
/// Only a hang takes so long.
const HANG: Duration = Duration::from_secs(60);

/// The guest's memory, as one sees it who holds its file.
struct Memory(File);

impl Memory {
    fn of(pid: u32) -> Memory {
        Memory(memory_file(pid))
    }

    fn word(&self, gfn: Gfn, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.read_exact_at(&mut bytes, gfn.0 * 4096 + offset).unwrap();
        u64::from_le_bytes(bytes)
    }

    fn set(&self, gfn: Gfn, offset: u64, value: u64) {
        self.0.write_all_at(&value.to_le_bytes(), gfn.0 * 4096 + offset).unwrap();
    }
}

/// The consumer, with its log.
struct Consumer {
    channel: Channel,
    memory: Memory,
    right: Right,
    raced: Gfn,
    /// Where the other vCPU counts: the frame and the word.
    counted: (Gfn, u64),
    /// The count when the right to write ended.
    at_reduction: u64,
    /// Of the reductions and grants one in so many lasts.
    lasts: u64,
    /// An event of the other vCPU, which waits until it has the right.
    held: Option<Request>,
    changes: u64,
    /// Reductions during which the other vCPU was stopped.
    stopped: u64,
    /// Grants after which it went on.
    moved: u64,
    last_count: u64,
}

impl Consumer {
    fn set(&mut self, gfn: Gfn, access: AccessType) {
        self.channel.client.values(&Call::Control(Control::SetAccess { first: gfn, count: 1, access })).unwrap();
    }

    fn count(&self) -> u64 {
        self.memory.word(self.counted.0, self.counted.1)
    }

    /// The next request; a hang is the only failure.
    fn take(&mut self) -> Request {
        loop {
            let until = Instant::now() + SPIN;
            while !self.channel.is_pending() && Instant::now() < until {
                std::thread::yield_now();
            }
            if let Some(request) = self.channel.take() {
                return request;
            }
            wait_for("an event", &self.channel);
            self.channel.clear_signal();
        }
    }

    /// Whether the other vCPU has used the page since it may; gives it a moment, so that rights end under its feet.
    fn goes_on(&self) -> bool {
        let until = Instant::now() + SPIN;
        while self.count() == self.last_count {
            if Instant::now() > until {
                return false;
            }
            std::thread::yield_now();
        }
        true
    }

    /// Takes rights, or gives them back, in turn.
    fn change(&mut self) {
        if self.changes.is_multiple_of(2) {
            self.moved += u64::from(self.goes_on());
            let hides = self.changes % 4 == 2;
            self.set(self.raced, if hides { AccessType::N } else { self.right.all_but() });
            // In force means: from the answer.
            self.at_reduction = self.count();
            if hides && self.right == Right::Data {
                self.memory.set(self.raced, 0, POISON);
            }
        } else {
            let count = self.count();
            assert_eq!(
                count, self.at_reduction,
                "{:?} passed while they were forbidden, change {}",
                self.right, self.changes
            );
            if self.right == Right::Data {
                self.memory.set(self.raced, 0, 0);
            }
            self.last_count = count;
            self.set(self.raced, AccessType::Rwx);
            if let Some(request) = self.held.take() {
                self.channel.answer(&request.answer());
                self.stopped += 1;
            }
        }
        self.changes += 1;
    }

    /// A reduction lasts until the other vCPU stands before it.
    fn wait_until_it_stands(&mut self) {
        while self.held.is_none() {
            self.held = Some(self.take());
        }
    }

    /// A grant lasts until the other vCPU has made use of it.
    fn wait_until_it_went_on(&mut self) {
        let deadline = Instant::now() + HANG;
        while self.count() == self.last_count {
            if let Some(request) = self.channel.take() {
                self.channel.answer(&request.answer());
                self.channel.kick().unwrap();
            }
            assert!(Instant::now() < deadline, "the other vCPU does not go on, change {}", self.changes);
            std::thread::yield_now();
        }
        self.moved += 1;
    }

    /// Serves until so many changes are made, and leaves all rights.
    fn run(&mut self, command: Gfn, changes: u64) {
        while self.changes < changes {
            let request = self.take();
            if request.frame() == Some(self.raced) {
                self.held = Some(request);
                // The rights may be back already.
                if self.changes % 2 == 1 {
                    continue;
                }
                self.channel.answer(&self.held.take().unwrap().answer());
            } else {
                self.change();
                let each = self.changes % self.lasts;
                if each == 1 {
                    self.wait_until_it_stands();
                } else if each == 2 % self.lasts {
                    self.channel.kick().unwrap();
                    self.wait_until_it_went_on();
                }
                if self.changes == changes {
                    self.set(command, AccessType::Rwx);
                }
                self.channel.answer(&request.answer());
            }
            self.channel.kick().unwrap();
        }
        // What the other vCPU asked before the last change; nobody else would ever answer it.
        while let Some(request) = self.channel.take() {
            self.channel.answer(&request.answer());
            self.channel.kick().unwrap();
        }
    }
}

/// What the other vCPU does with the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// It reads and writes it.
    Data,
    /// It runs its code, and stays within it for long.
    Fetches,
}

impl Right {
    /// What is left where it is taken.
    fn all_but(self) -> AccessType {
        match self {
            Right::Data => AccessType::R,
            Right::Fetches => AccessType::Rw,
        }
    }
}

fn no_access_passes(gate: Gate, right: Right) {
    let changes = std::env::var("MEM_EVENT_CHANGES").map_or(CHANGES, |text| text.parse().unwrap()) & !3;
    no_access_passes_of((gate, right), changes, None);
}

/// With another thread that has a core for itself, but for what it leaves to the vCPU that uses the page.
fn no_access_passes_beside(gate: Gate, right: Right) {
    let (begin, begun) = mpsc::channel();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            begin.send(gettid().as_raw_nonzero().get()).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let over = guard(&is_over);
        no_access_passes_of((gate, right), STARVED, Some(begun.recv().unwrap()));
        drop(over);
    });
}

/// Ends the other thread, also where a claim fails.
fn guard(is_over: &AtomicBool) -> impl Drop {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    Over(is_over)
}

/// The threads have the first core, one of them as the last that gets it.
fn starve(thread: i64, beside: i32) {
    for thread in [thread, beside.into()] {
        let cores = Command::new("taskset").args(["-pc", "0", &thread.to_string()]).output().unwrap();
        assert!(cores.status.success(), "{cores:?}");
    }
    let last = Command::new("chrt").args(["-i", "-p", "0", &thread.to_string()]).output().unwrap();
    assert!(last.status.success(), "{last:?}");
}

fn no_access_passes_of((gate, right): (Gate, Right), changes: u64, beside: Option<i32>) {
    let mut scenario = Scenario::bare("rights_race");
    scenario.machine.vcpus = 2;
    scenario.consumers.listener.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = gate;
    let folder = RunFolder::create().unwrap();
    let mut qemu = job.machine().unwrap().start(&folder).unwrap();
    let socket = folder.file("socket");
    let mut toolstack = Client::connect(&socket).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let frame = |name: &str| job.symbols().find(name).unwrap().gpa.gfn();
    let command = frame("COMMAND");
    let (raced, counted) = match right {
        Right::Data => (frame("RACED"), (frame("RACED"), COUNTED)),
        Right::Fetches => (frame("RUN"), (frame("RUNS"), 0)),
    };
    let mut consumer = Consumer {
        channel: Channel::enable(&socket, Ring::Access, RingSettings::default()).unwrap(),
        memory: Memory::of(qemu.pid()),
        right,
        raced,
        counted,
        at_reduction: 0,
        lasts: if beside.is_some() { 2 } else { LASTS },
        held: None,
        changes: 0,
        stopped: 0,
        moved: 0,
        last_count: 0,
    };
    qemu.qmp.execute("cont").unwrap();
    loop {
        wait_for("the checkpoint", &toolstack);
        if let Some(Notice::Checkpoint { .. }) = toolstack.notice().unwrap() {
            break;
        }
    }
    if let Some(beside) = beside {
        let vcpus = qemu.qmp.execute("query-cpus-fast").unwrap();
        starve(vcpus[1]["thread-id"].as_i64().unwrap(), beside);
    }
    consumer.set(command, AccessType::R);
    toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    let begun = Instant::now();
    consumer.run(command, changes);
    let took = begun.elapsed();
    wait_for("the guest's end", &qemu);
    qemu.wait().unwrap();
    let verdict = Verdict::on_console(&qemu.console()).expect("a verdict");
    assert_eq!(verdict.kind, Kind::Success, "{verdict}");
    let Consumer { stopped, moved, .. } = consumer;
    println!("{gate}, {right:?}: {changes} changes in {took:?}; stopped in {stopped}, went on after {moved}");
    let least = changes / LASTS;
    assert!(
        stopped >= least && moved >= least,
        "no race: stopped in {stopped}, went on after {moved}, {least} each are due"
    );
}

#[test]
fn no_access_passes_against_the_rights_in_force_by_the_callback() {
    no_access_passes(Gate::Callback, Right::Data);
}

#[test]
fn no_access_passes_against_the_rights_in_force_by_the_hosts_mmu() {
    if kernel_maps_write_protected() {
        no_access_passes(Gate::Mmu, Right::Data);
    }
}

#[test]
fn no_fetch_passes_against_the_rights_in_force_by_the_callback() {
    no_access_passes(Gate::Callback, Right::Fetches);
}

#[test]
fn no_fetch_passes_against_the_rights_in_force_by_the_hosts_mmu() {
    if kernel_maps_write_protected() {
        no_access_passes(Gate::Mmu, Right::Fetches);
    }
}

/// A reply came after a twentieth of a second to whoever waited for his own event meanwhile, though the other vCPU was still in its block.
#[test]
fn a_vcpu_that_the_machine_keeps_from_running_is_waited_for() {
    no_access_passes_beside(Gate::Callback, Right::Fetches);
}
