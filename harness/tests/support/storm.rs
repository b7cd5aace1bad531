//! A guest that makes events for as long as one likes, in a test's own hands.

use super::{machine, next_checkpoint, scenario, traced_machine, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::run::Job;
use harness::scenario::{Scenario, Thread};
use harness::verdict::{Kind, Verdict};
use mem_event::message::Call;
use mem_event::{AccessType, Control, Gfn, PAGE_SIZE, Ring};
use mem_event_client::{Channel, Client, RingSettings};
use std::path::PathBuf;

/// A guest whose vCPUs hit watched pages, with its toolstack and its listener's ring.
pub struct Storm {
    /// The machine.
    pub qemu: Qemu,
    folder: RunFolder,
    job: Job,
    pages: &'static [&'static str],
    /// A connection that hears notices.
    pub toolstack: Client,
    /// The access ring, of four slots.
    pub listener: Channel,
}

impl Storm {
    /// Starts one of eight vCPUs, each of which makes as many events as it is answered without new rights, and ends when it has them.
    pub fn start() -> Storm {
        Storm::of(scenario("smp_storm"), &["STORM"], machine)
    }

    /// The same in one thread.
    pub fn in_one_thread() -> Storm {
        let mut scenario = scenario("smp_storm");
        scenario.machine.thread = Thread::Single;
        Storm::of(scenario, &["STORM"], machine)
    }

    /// The same with a trace.
    pub fn traced() -> Storm {
        Storm::of(scenario("smp_storm"), &["STORM"], traced_machine)
    }

    /// Starts one of four vCPUs that go on even where they are let through now and then.
    pub fn endless() -> Storm {
        let mut scenario = Scenario::bare("rights_race");
        scenario.machine.vcpus = 4;
        Storm::of(scenario, &["COMMAND", "RACED"], machine)
    }

    /// It stands before its first events.
    fn of(
        mut scenario: Scenario,
        pages: &'static [&'static str],
        machine: fn(Scenario) -> (Qemu, RunFolder, Job),
    ) -> Storm {
        // So that the gate is there; who listens is this test.
        scenario.consumers.listener.get_or_insert_default();
        let (mut qemu, folder, job) = machine(scenario);
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let settings = RingSettings { slots: 4, ..RingSettings::default() };
        let listener = Channel::enable(&folder.file("socket"), Ring::Access, settings).unwrap();
        qemu.qmp.execute("cont").unwrap();
        let mut storm = Storm { qemu, folder, job, pages, toolstack, listener };
        storm.checkpoint(|storm| storm.set(AccessType::N));
        storm
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.file("socket")
    }

    /// Sets the rights of all pages of the storm.
    pub fn set(&mut self, access: AccessType) {
        self.pages.iter().for_each(|name| self.set_of(name, access));
    }

    /// Sets the rights of the pages with this name.
    pub fn set_of(&mut self, name: &str, access: AccessType) {
        let count = self.job.symbols().find(name).unwrap().size / PAGE_SIZE as u64;
        let set = Control::SetAccess { first: self.frame(name), count, access };
        self.toolstack.values(&Call::Control(set)).unwrap();
    }

    /// The first frame of the pages with this name.
    pub fn frame(&self, name: &str) -> Gfn {
        self.job.symbols().find(name).unwrap().gpa.gfn()
    }

    /// Waits for the next checkpoint, does this, and lets the vCPU go on.
    fn checkpoint(&mut self, then: impl FnOnce(&mut Storm)) {
        let vcpu = next_checkpoint(&mut self.toolstack).vcpu;
        then(self);
        self.toolstack.values(&Call::Release { vcpu }).unwrap();
    }

    /// Takes an event and answers it; the rights stay, so the vCPU makes the same one again.
    pub fn answer_one(&mut self) {
        while !self.listener.is_pending() {
            wait_for("an event", &self.listener);
            self.listener.clear_signal();
        }
        self.answer_pending(1);
    }

    /// Answers at most so many of the events that are there.
    pub fn answer_pending(&mut self, most: u32) {
        for request in (0..most).map_while(|_| self.listener.take()).collect::<Vec<_>>() {
            self.listener.answer(&request.answer());
            self.listener.kick().unwrap();
        }
    }

    /// The guest comes to its end, with its sums right; its folder, where its trace is.
    pub fn ends(mut self) -> RunFolder {
        self.checkpoint(|_| ());
        wait_for("the guest's end", &self.qemu);
        self.qemu.wait().unwrap();
        let verdict = Verdict::on_console(&self.qemu.console()).expect("a verdict");
        assert_eq!(verdict.kind, Kind::Success, "{verdict}; {}", self.qemu.errors());
        self.folder
    }
}
