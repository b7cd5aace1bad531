//! A guest whose consumers are processes, which are killed and succeeded while it runs.

use super::{replays, scenario, unless_busy};
use harness::consumers::external::Running;
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::run::Job;
use harness::scenario::corpus;
use harness::scenario::external::External;
use harness::scenario::settings::Consumer;
use harness::scenario::{Place, Scenario, Size};
use harness::verdict::{Kind, Verdict};
use mem_event::message::{Call, Notice};
use mem_event::{AccessType, Control, Gfn, Ring};
use mem_event_client::{Channel, Client, Lost, RingSettings};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::path::Path;
use std::time::{Duration, Instant};

/// Only the limit of what can be called a hang.
const HANG: Duration = Duration::from_secs(300);

/// A guest, its toolstack, and the frames that are watched from its first checkpoint on.
pub struct Domain {
    pub qemu: Qemu,
    pub folder: RunFolder,
    pub toolstack: Client,
    pub watched: Vec<Gfn>,
    begun: Instant,
    /// How long its guest may take.
    pub patience: Duration,
}

impl Domain {
    /// A built-in guest that stands before its first instruction, with a trace.
    pub fn of(name: &str, watched: Option<&str>) -> Domain {
        let job = Job::new(scenario(name), None).unwrap();
        let symbols = job.symbols();
        let watched = watched.map(|text| Place::from(text).frames(&symbols).unwrap().iter().collect());
        Domain::start(job.scenario, watched.unwrap_or_default())
    }

    /// Linux with so much memory; it works on half of it, or powers off when it has booted.
    pub fn linux(memory: u64, works: bool) -> Domain {
        let mut linux = corpus::linux();
        linux.machine.memory = Size(memory);
        Domain::start_with(linux, Vec::new(), works)
    }

    fn start(scenario: Scenario, watched: Vec<Gfn>) -> Domain {
        Domain::start_with(scenario, watched, true)
    }

    fn start_with(mut scenario: Scenario, watched: Vec<Gfn>, linux_works: bool) -> Domain {
        // So that the gate is there; who listens comes by itself.
        scenario.consumers.listener.get_or_insert_default();
        let folder = RunFolder::create().unwrap();
        let mut job = Job::new(scenario, None).unwrap();
        job.trace = Some(folder.file("trace"));
        job.linux_works = linux_works;
        let qemu = job.machine().unwrap().start(&folder).unwrap();
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        Domain { qemu, folder, toolstack, watched, begun: Instant::now(), patience: HANG }
    }

    /// A consumer of its rings, as soon as those before it are seen to be gone; none where the domain ends first.
    pub fn join(&mut self, consumer: &Consumer) -> Option<Running> {
        self.join_as(&consumer.external(Path::new(env!("CARGO_BIN_EXE_mem-event"))).unwrap())
    }

    /// The same for a consumer with what is handed over.
    pub fn join_as(&mut self, external: &External) -> Option<Running> {
        let socket = self.folder.file("socket");
        let ready = unless_busy(|| {
            let mut running = Running::start(&socket, external, &Scenario::bare("succeeded"), None)?;
            running.wait_until_ready(Instant::now() + HANG)?;
            Ok(running)
        });
        ready.inspect_err(|error| assert!(self.ends_soon(), "a consumer cannot join: {error:#}")).ok()
    }

    /// Whether QEMU is about to end: what a connection notices first.
    fn ends_soon(&self) -> bool {
        is_readable(&self.qemu, Duration::from_secs(60))
    }

    /// Lets the guest go on for so long, through its checkpoints; whether it still does.
    pub fn go_on(&mut self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            self.is_no_hang();
            // Also what came while somebody waited for a reply.
            self.hear();
            let left = until.saturating_duration_since(Instant::now());
            let mut waited = [PollFd::new(&self.qemu, PollFlags::IN), PollFd::new(&self.toolstack, PollFlags::IN)];
            let limit = Timespec::try_from(left).unwrap();
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, Some(&limit))).unwrap();
            if !waited[0].revents().is_empty() {
                return false;
            }
            if self.toolstack.has_ended() {
                assert!(self.ends_soon(), "the plugin closed the connection, and QEMU goes on");
                return false;
            }
            if left.is_zero() {
                return true;
            }
        }
    }

    fn hear(&mut self) {
        while let Some(notice) = self.toolstack.notice().unwrap() {
            match notice {
                Notice::Checkpoint { vcpu, number, .. } => {
                    if number == 1 {
                        self.watch();
                    }
                    unless_ended(self.toolstack.send(&Call::Release { vcpu }));
                    unless_ended(self.toolstack.reply().map(drop));
                }
                Notice::Ended => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Takes all rights from the frames that are to be watched.
    fn watch(&mut self) {
        for first in self.watched.iter().copied() {
            let set = Control::SetAccess { first, count: 1, access: AccessType::N };
            unless_ended(self.toolstack.values(&Call::Control(set)).map(drop));
        }
    }

    /// From now on nothing passes on these frames.
    pub fn watch_now(&mut self, frames: &[Gfn]) {
        self.watched = frames.to_vec();
        self.watch();
    }

    /// A frame comes back with its content, by whoever has it; the paging ring is its holder's as long as that is kept.
    pub fn load_by_hand(&mut self, gfn: Gfn, content: Vec<u8>) -> Channel {
        let socket = self.folder.file("socket");
        let enable = || Channel::enable(&socket, Ring::Paging, RingSettings::default());
        let mut channel = unless_busy(enable).unwrap();
        channel.client.values(&Call::Load { gfn, content: content.into() }).unwrap();
        while let Some(request) = channel.take() {
            channel.answer(&request.answer());
        }
        channel.kick().unwrap();
        channel
    }

    /// Whoever waits for something that does not come says so.
    pub fn is_no_hang(&mut self) {
        if self.begun.elapsed() > self.patience {
            let console = self.qemu.console();
            panic!("the guest hangs: {:#?}\n{console}\n{}", self.toolstack.vcpus(), self.qemu.errors());
        }
    }

    /// Lets the guest go on until the consumer has died.
    pub fn go_on_until_death_of(&mut self, running: &mut Running) {
        loop {
            if let Some(how) = running.fault().unwrap() {
                assert!(how.contains("signal: 9"), "{how}");
                return;
            }
            assert!(self.go_on(Duration::from_millis(1)), "the guest ended before its consumer died");
        }
    }

    /// The guest has ended, with its own verdict; what it says. Its trace replays to the end; of how many steps.
    pub fn verdict(mut self) -> (String, u64) {
        assert!(self.ends_soon(), "the guest goes on");
        let status = self.qemu.wait().unwrap();
        let console = self.qemu.console();
        let verdict = Verdict::on_console(&console);
        let verdict = verdict.unwrap_or_else(|| panic!("no verdict, {status}:\n{console}\n{}", self.qemu.errors()));
        assert_eq!(verdict.kind, Kind::Success, "{verdict}\n{}", self.qemu.errors());
        let steps = replays(&self.folder.file("trace"));
        assert!(steps > 0);
        (verdict.reason, steps)
    }
}

/// The connection may end with the guest.
fn unless_ended(done: anyhow::Result<()>) {
    match done {
        Err(error) if !error.is::<Lost>() => panic!("{error:#}"),
        _ => {}
    }
}

fn is_readable(fd: impl std::os::fd::AsFd, limit: Duration) -> bool {
    harness::poll::readable(fd, Instant::now() + limit).unwrap()
}

/// How often, from an environment variable, or as often as `ci/test` does.
pub fn how_often(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}
