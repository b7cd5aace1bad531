//! What the full-system tests share: a run with its trace, and a machine in the test's own hands.

#![allow(dead_code, reason = "each test program uses its own part")]

pub mod domain;
pub mod example;
pub mod remote;
pub mod storm;
pub mod terminal;
pub mod xen;

use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::run::{Job, Outcome};
use harness::scenario::corpus;
use harness::scenario::settings::Consumer;
use harness::scenario::{MemoryAct, Name, Scenario, Time};
use harness::suite::{self, case::Case, case::Settings};
use harness::toolstack::log::Silent;
use harness::toolstack::transcript;
use harness::trace::replay::replay_file;
use harness::verdict::Kind;
use mem_event::message::{Call, Notice};
use mem_event::page::Index;
use mem_event::{AccessType, Control, Request, VcpuId};
use mem_event_client::{Channel, Client};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Only the limit of what can be called a hang.
pub const DEADLINE: Timespec = Timespec { tv_sec: 60, tv_nsec: 0 };

/// Whether this kernel maps a page write-protected at once (Linux 6.4); says so where it does not.
pub fn kernel_maps_write_protected() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel's release");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    let can = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 4);
    if !can {
        eprintln!("skipped: needs Linux 6.4, which maps pages write-protected; this is {}", release.trim());
    }
    can
}

/// Both gates, where this kernel has both.
pub fn gates() -> Vec<Gate> {
    if kernel_maps_write_protected() { vec![Gate::Callback, Gate::Mmu] } else { vec![Gate::Callback] }
}

/// The built-in scenario with this name.
pub fn scenario(name: &str) -> Scenario {
    corpus::find(name).expect("a built-in scenario")
}

/// Runs a built-in scenario as `mem-event test` does, so often; what all runs gave must be what is accepted. insta reads the same
/// files, and its own review works on them.
pub fn has_its_accepted_sequence(name: &str, gate: Gate, repeat: usize) {
    has_its_accepted_sequence_by(name, &Settings { gate, repeat, ..Settings::default() });
}

/// The same, run so.
pub fn has_its_accepted_sequence_by(name: &str, settings: &Settings) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots").join(format!("{name}.toml"));
    let cases = suite::cases(&[path]).expect("a scenario");
    let judged = suite::judge(&cases[0], settings, None);
    let difference = suite::report::difference(&judged, false);
    assert!(judged.acceptable || judged.verdict.kind == Kind::Success, "{name}: {}\n{difference}", judged.verdict);
    insta::with_settings!({
        snapshot_path => "../../../snapshots",
        prepend_module_to_snapshot => false,
        omit_expression => true,
        description => cases[0].scenario.title(),
    }, { insta::assert_snapshot!(name, judged.sequence.unwrap_or_default()) });
    assert!(judged.differs_from.is_none(), "{name}: insta and this program differ in how they compare\n{difference}");
}

/// Runs a scenario as `mem-event test` does; what became of it, and what is wrong if it is not as accepted.
pub fn judged(case: &Case, settings: &Settings) -> (Kind, Option<String>) {
    let judged = suite::judge(case, settings, None);
    let is_right = (judged.acceptable || judged.verdict.kind == Kind::Success) && judged.differs_from.is_none();
    let difference = suite::report::difference(&judged, false);
    let wrong = || format!("{}, {}: {}\n{difference}", settings.gate, case.scenario.name, judged.verdict);
    (judged.verdict.kind, (!is_right).then(wrong))
}

/// What runs a scenario once, under a gate.
pub fn once_under(gate: Gate) -> Settings {
    Settings { gate, repeat: 1, ..Settings::default() }
}

/// Runs a scenario with a trace. The verdict must be success, and the trace must replay without a difference.
pub fn run(scenario: Scenario) -> (Outcome, String) {
    run_under(Gate::default(), scenario)
}

/// The same, with what stops accesses.
pub fn run_under(gate: Gate, scenario: Scenario) -> (Outcome, String) {
    let folder = RunFolder::create().expect("a folder");
    let mut job = Job::new(scenario, None).expect("a guest and a QEMU");
    job.trace = Some(folder.file("trace"));
    job.gate = gate;
    let outcome = job.run(&mut Silent, None).expect("a verdict");
    let name = &job.scenario.name;
    assert_eq!(outcome.verdict.kind, Kind::Success, "{name}: {}\n{}", outcome.verdict, outcome.console);
    replays(&folder.file("trace"));
    let sequence = transcript::text(&outcome.records, job.scenario.machine.vcpus, &job.symbols());
    (outcome, sequence)
}

/// Runs a scenario that never ends by itself to its deadline. On a busy machine a guest may not have come far when a short one passes:
/// then a longer one, which only a guest that never comes so far reaches in vain.
pub fn run_to_its_deadline(mut scenario: Scenario, came_far: impl Fn(&Outcome) -> bool) -> (Outcome, Job) {
    let mut ends = [1, 10, 120].map(Duration::from_secs).into_iter();
    loop {
        let deadline = ends.next().expect("the guest comes so far within two minutes");
        scenario.deadline = Time(deadline);
        let job = Job::new(scenario.clone(), None).expect("a guest and a QEMU");
        let outcome = job.run(&mut Silent, None).expect("a verdict");
        assert_eq!(outcome.verdict.kind, Kind::Failure, "{}", outcome.verdict);
        assert!(
            outcome.verdict.reason.contains(&format!("the deadline of {deadline:?} passed")),
            "{}",
            outcome.verdict
        );
        if came_far(&outcome) {
            return (outcome, job);
        }
    }
}

/// The trace replays without a difference; how many steps it has.
pub fn replays(trace: &Path) -> u64 {
    let replayed = replay_file(trace, false).expect("a trace");
    assert_eq!(replayed.exit_code(), 0, "{}", replayed.report());
    assert!(replayed.steps > 0 || replayed.end.is_ok(), "{}", replayed.report());
    replayed.steps
}

/// A guest whose QEMU stands before its first instruction; the plugin's socket is `socket` in the folder.
pub fn machine(scenario: Scenario) -> (Qemu, RunFolder, Job) {
    start(None, Gate::default(), scenario, false)
}

/// The same, with what stops accesses.
pub fn machine_under(gate: Gate, scenario: Scenario) -> (Qemu, RunFolder, Job) {
    start(None, gate, scenario, false)
}

/// The same, by another QEMU.
pub fn machine_by(qemu: &Path, gate: Gate, scenario: Scenario) -> (Qemu, RunFolder, Job) {
    start(Some(qemu), gate, scenario, false)
}

/// A program that has the dynamic loader start the QEMU in the path, as a QEMU with libraries of its own is started; `None` where that one
/// is such a program itself.
pub fn started_by_the_loader(folder: &RunFolder) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let qemu = std::env::split_paths(&path).map(|folder| folder.join("qemu-system-x86_64")).find(|it| it.is_file())?;
    if !std::fs::read(&qemu).ok()?.starts_with(b"\x7fELF") {
        return None;
    }
    let folders = Command::new(&qemu).args(["-L", "help"]).output().expect("a QEMU");
    let folders = String::from_utf8_lossy(&folders.stdout);
    let folders: String = folders.lines().map(|folder| format!(" -L {folder}")).collect();
    let program = folder.file("qemu-system-x86_64");
    let script = format!("#!/bin/sh\nexec /lib64/ld-linux-x86-64.so.2 {}{folders} \"$@\"\n", qemu.display());
    std::fs::write(&program, script).expect("a program");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    Some(program)
}

/// The same; its trace is `trace` in the folder.
pub fn traced_machine(scenario: Scenario) -> (Qemu, RunFolder, Job) {
    start(None, Gate::default(), scenario, true)
}

fn start(qemu: Option<&Path>, gate: Gate, scenario: Scenario, traced: bool) -> (Qemu, RunFolder, Job) {
    let mut job = Job::new(scenario, qemu).expect("a guest and a QEMU");
    job.gate = gate;
    let folder = RunFolder::create().expect("a folder");
    job.trace = traced.then(|| folder.file("trace"));
    let qemu = job.machine().expect("the plugin").start(&folder).expect("a QEMU");
    (qemu, folder, job)
}

/// Waits until something can be read, or has ended; a hang is the only failure.
pub fn wait_for(what: &str, fd: impl AsFd) {
    let mut waited = [PollFd::new(&fd, PollFlags::IN)];
    let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, Some(&DEADLINE)));
    assert_eq!(ready, Ok(1), "{what} does not come");
}

/// The next request of a ring. A signal may come without one.
pub fn next_request(channel: &mut Channel) -> Request {
    loop {
        if let Some(request) = channel.take() {
            return request;
        }
        wait_for("a request", &*channel);
        channel.clear_signal();
    }
}

/// A vCPU at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    pub vcpu: VcpuId,
    pub number: u64,
    pub arguments: [u64; 3],
}

/// The next checkpoint.
pub fn next_checkpoint(toolstack: &mut Client) -> Stop {
    loop {
        match toolstack.notice().expect("the connection holds") {
            Some(Notice::Checkpoint { vcpu, number, arguments }) => return Stop { vcpu, number, arguments },
            Some(other) => panic!("{other:?} where a checkpoint is due"),
            None => wait_for("a checkpoint", &*toolstack),
        }
    }
}

/// The vCPU that comes to this checkpoint; those before it are passed.
pub fn checkpoint(toolstack: &mut Client, number: u64) -> VcpuId {
    loop {
        let stop = next_checkpoint(toolstack);
        if stop.number == number {
            return stop.vcpu;
        }
        toolstack.values(&Call::Release { vcpu: stop.vcpu }).expect("the vCPU stands");
    }
}

/// A request has its answer, and the engine is told.
pub fn answer(channel: &mut Channel, request: &Request) {
    channel.answer(&request.answer());
    channel.kick().expect("the engine hears of it");
}

/// The command, with its temporary files in this folder.
pub fn command(folder: &RunFolder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mem-event"));
    // As a person runs it: a test that means a CI system says so.
    command.env("TMPDIR", folder.file("")).env_remove("CI");
    command
}

/// What the command left in its folder for temporary files.
pub fn left_over(folder: &RunFolder) -> Vec<String> {
    let entries = std::fs::read_dir(folder.file("")).expect("the folder").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The requests and answers of a trace, in order, without the steps' numbers.
pub fn sequence_of(trace: &Path) -> String {
    let sequence = replay_file(trace, true).expect("a trace").sequence;
    let without_step = |line: &str| line.split_once("  ").map_or_else(String::new, |(_, rest)| format!("{rest}\n"));
    sequence.lines().map(without_step).collect()
}

/// The memory of a process that is its own, in bytes: without the guest's, which is a file.
pub fn own_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("its own memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// The file that holds a guest's memory, of the QEMU that runs it.
pub fn memory_file(pid: u32) -> File {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let is_memory = |path: &PathBuf| {
        std::fs::read_link(path).is_ok_and(|to| to.to_string_lossy().starts_with("/memfd:memory-backend-memfd"))
    };
    let path = descriptors.map(|entry| entry.path()).find(is_memory).expect("the memory's file");
    File::options().read(true).write(true).open(path).unwrap()
}

/// The same numbers in every run (splitmix64); the state is the seed.
pub struct Random(pub u64);

impl Random {
    /// A number below the limit.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

/// Runs a scenario whose rings are served by built-in consumers in processes of their own; the outcome, and the requests and
/// answers of its trace.
pub fn served_by(mut scenario: Scenario, consumers: &[Consumer]) -> (Outcome, String) {
    scenario.consumers.process = consumers.to_vec();
    let folder = RunFolder::create().expect("a folder");
    let mut job = Job::new(scenario, None).expect("a guest and a QEMU");
    job.trace = Some(folder.file("trace"));
    let outcome = job.run(&mut Silent, None).expect("a verdict");
    (outcome, sequence_of(&folder.file("trace")))
}

/// Does what is refused with EBUSY until the plugin has seen the end of the consumer before; a hang is the only failure.
pub fn unless_busy<T>(mut attempt: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let until = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        match attempt() {
            Err(error) if format!("{error:#}").contains("EBUSY") && std::time::Instant::now() < until => {
                std::thread::yield_now();
            }
            other => return other,
        }
    }
}

/// Writes nonsense on a ring's page and ends the ring; who was its consumer still holds page and connection.
pub fn break_and_disable(consumer: &mut Channel, toolstack: &mut Client) {
    let (ring, _) = consumer.shape();
    let page = consumer.back().page();
    page.store(Index::RspProd, page.load(Index::RspProd, Ordering::Acquire).wrapping_add(1000), Ordering::Release);
    toolstack.values(&Call::Control(Control::Resume { ring })).expect("the ring is looked at");
    // Before the damage is seen it is refused: vCPUs wait for the ring's slots.
    let disable = Call::Control(Control::Disable { ring, drain: false });
    unless_busy(|| toolstack.values(&disable)).expect("the ring ends");
}

/// Waits until a file that another process writes holds this line; a hang is the only failure.
pub fn file_holds(path: &Path, line: &str) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !std::fs::read_to_string(path).is_ok_and(|text| text.contains(line)) {
        assert!(std::time::Instant::now() < until, "{} does not come to hold {line:?}", path.display());
        std::thread::yield_now();
    }
}

/// A Linux, of which a frame that it has no code in may do this alone from its first instruction on.
pub fn linux_with_a_frame_that_may(access: AccessType) -> Scenario {
    let mut scenario = corpus::linux();
    scenario.consumers.listener.get_or_insert_default();
    scenario.start =
        vec![MemoryAct::SetAccess { frames: "0x800".into(), access: Name(access), view: None, refused: None }.into()];
    scenario
}

/// Among how many blocks those were chosen that the plugin looked at, and how many these were: what it says in the end.
pub fn looked_at(said: &str) -> (u64, u64) {
    let line = said.lines().find(|line| line.ends_with("were looked at")).expect("a line that tells how many");
    let numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    let [among, chosen]: [u64; 2] = numbers.collect::<Vec<_>>().try_into().expect("two numbers");
    (among, chosen)
}

/// Runs a scenario under the host's MMU, with an argument of the plugin's. The verdict must be success.
pub fn run_by_the_mmu(scenario: Scenario, argument: &str) -> Outcome {
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = Gate::Mmu;
    job.plugin = vec![argument.into()];
    job.linux_works = false;
    let outcome = job.run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}\n{}", outcome.verdict, outcome.said);
    outcome
}
