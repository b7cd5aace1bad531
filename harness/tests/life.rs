//! QEMU stays alive while vCPUs are parked, and nobody outlives whom they belong to.

use crate::support::{
    answer, checkpoint, command, left_over, machine, machine_under, next_checkpoint, next_request, run_to_its_deadline,
    scenario, wait_for,
};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::run::{Job, Outcome};
use harness::scenario::{ConsumerAct, Listening, Rule, Scenario, Then};
use mem_event::message::{Call, Notice, VcpuState};
use mem_event::{AccessType, Control, Ring};
use mem_event_client::channel::{Channel, RingSettings};
use mem_event_client::socket::Client;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Stdio};
use std::time::Duration;

/// A guest that stands at its first checkpoint, with the toolstack's connection.
fn at_the_first_checkpoint(name: &str) -> (Qemu, RunFolder, Job, Client) {
    at_the_first_checkpoint_under(Gate::default(), name)
}

fn at_the_first_checkpoint_under(gate: Gate, name: &str) -> (Qemu, RunFolder, Job, Client) {
    let (mut qemu, folder, job) = machine_under(gate, scenario(name));
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    qemu.qmp.execute("cont").unwrap();
    loop {
        wait_for("the first checkpoint", &toolstack);
        if let Some(Notice::Checkpoint { number, .. }) = toolstack.notice().unwrap() {
            assert_eq!(number, 1);
            return (qemu, folder, job, toolstack);
        }
    }
}

/// A guest whose vCPUs stand before forbidden accesses that nobody answers: one on its event, or eight of which four
/// have no slot.
fn with_unanswered_events(gate: Gate, name: &str, symbol: &str, slots: u32) -> Standing {
    let (qemu, folder, job, mut toolstack) = at_the_first_checkpoint_under(gate, name);
    let channel =
        Channel::enable(&folder.file("socket"), Ring::Access, RingSettings { slots, ..RingSettings::default() });
    let symbol = job.symbols().find(symbol).unwrap().clone();
    let set = Control::SetAccess { first: symbol.gpa.gfn(), count: symbol.size.div_ceil(4096), access: AccessType::N };
    toolstack.values(&Call::Control(set)).unwrap();
    toolstack.values(&Call::Release { vcpu: mem_event::VcpuId(0) }).unwrap();
    let channel = channel.unwrap();
    wait_for("the first event", &channel);
    Standing { qemu, folder, channel, toolstack, content: None }
}

/// A guest whose vCPU stands at a frame that is paged out, and that nobody brings back.
fn with_a_frame_out(gate: Gate, name: &str, symbol: &str) -> Standing {
    let (qemu, folder, job, mut toolstack) = at_the_first_checkpoint_under(gate, name);
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Paging, RingSettings::default()).unwrap();
    let gfn = job.symbols().find(symbol).unwrap().gpa.gfn();
    channel.client.control(Control::Nominate { gfn }).unwrap().unwrap();
    let content = channel.client.read(gfn, 0, 4096).unwrap();
    channel.client.control(Control::Evict { gfn }).unwrap().unwrap();
    toolstack.values(&Call::Release { vcpu: mem_event::VcpuId(0) }).unwrap();
    wait_for("the request", &channel);
    Standing { qemu, folder, channel, toolstack, content: Some(content) }
}

/// A machine with a vCPU that waits for a consumer.
struct Standing {
    qemu: Qemu,
    folder: RunFolder,
    channel: Channel,
    toolstack: Client,
    /// Of the frame that is out.
    content: Option<Vec<u8>>,
}

impl Standing {
    /// One by one, each way in which a vCPU waits: in its callback, or in the kernel, at a frame that is watched or out.
    fn in_each_way() -> impl Iterator<Item = (String, Standing)> {
        let both = crate::support::kernel_maps_write_protected();
        let gates = [Gate::Callback, Gate::Mmu].into_iter().filter(move |gate| *gate == Gate::Callback || both);
        let ways = gates.flat_map(|gate| [(gate, false), (gate, true)]).chain([(Gate::None, true)]);
        ways.map(|(gate, is_out)| match (gate, is_out) {
            (Gate::None, _) => ("out without a gate".to_owned(), with_a_frame_out(gate, "page_in", "PAGES")),
            (_, true) => (format!("out under gate={gate}"), with_a_frame_out(gate, "read_write", "WATCHED")),
            (_, false) => {
                (format!("watched under gate={gate}"), with_unanswered_events(gate, "read_write", "WATCHED", 0))
            }
        })
    }

    /// Gives the answer that the vCPU waits for; the guest then comes to its end.
    fn answer(mut self) -> (Qemu, RunFolder) {
        let request = self.channel.take().expect("the event is still there");
        let gfn = request.frame().unwrap();
        match &self.content {
            None => self.toolstack.set_access(gfn, AccessType::Rwx).unwrap(),
            Some(content) => {
                self.channel.client.values(&Call::Load { gfn, content: content.clone().into() }).map(drop).unwrap()
            }
        }
        assert!(!self.channel.is_pending(), "the event came once");
        self.channel.answer(&request.answer());
        self.channel.kick().unwrap();
        (self.qemu, self.folder)
    }
}

fn status(qemu: &mut Qemu) -> String {
    qemu.qmp.execute("query-status").unwrap()["status"].as_str().unwrap().into()
}

#[test]
fn the_monitor_stops_and_continues_a_machine_whose_vcpu_waits_and_it_goes_on() {
    for (way, mut standing) in Standing::in_each_way() {
        for _ in 0..10 {
            standing.qemu.qmp.execute("stop").unwrap();
            assert_eq!(status(&mut standing.qemu), "paused", "{way}");
            standing.qemu.qmp.execute("cont").unwrap();
            assert_eq!(status(&mut standing.qemu), "running", "{way}");
        }
        let (qemu, _folder) = standing.answer();
        wait_for(&format!("the guest's end, {way}"), &qemu);
        assert!(qemu.console().contains("verdict: success"), "{way}: {}", qemu.console());
    }
}

#[test]
fn the_monitor_stops_a_machine_of_eight_waiting_vcpus() {
    for gate in [Gate::Callback, Gate::Mmu] {
        if gate == Gate::Mmu && !crate::support::kernel_maps_write_protected() {
            continue;
        }
        let Standing { mut qemu, .. } = with_unanswered_events(gate, "smp_storm", "STORM", 4);
        qemu.qmp.execute("stop").unwrap();
        assert_eq!(status(&mut qemu), "paused");
        qemu.qmp.execute("cont").unwrap();
        qemu.qmp.execute("quit").unwrap();
        wait_for("the end", &qemu);
    }
}

#[test]
fn flags_outlive_a_long_wait_before_a_repeated_instruction() {
    let mut guest = Scenario::bare("repeat_flags");
    guest.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine(guest);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let settings = RingSettings::default();
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, settings).unwrap();
    qemu.qmp.execute("cont").unwrap();
    wait_for("the first checkpoint", &toolstack);
    toolstack.set_access(job.symbols().find("WATCHED").unwrap().gpa.gfn(), AccessType::N).unwrap();
    toolstack.values(&Call::Release { vcpu: mem_event::VcpuId(0) }).unwrap();
    let request = loop {
        match channel.take() {
            Some(request) => break request,
            None => wait_for("the event", &channel),
        }
        channel.clear_signal();
    };
    // Longer than a vCPU stays in its block where it may leave.
    harness::poll::readable(&qemu, std::time::Instant::now() + Duration::from_millis(50)).unwrap();
    toolstack.set_access(request.frame().unwrap(), AccessType::Rwx).unwrap();
    channel.answer(&request.answer());
    channel.kick().unwrap();
    drop(toolstack);
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{}", qemu.console());
}

#[test]
fn the_monitor_stops_a_machine_in_a_repetition_over_more_pages_than_can_be_looked_at() {
    for gate in [Gate::Callback, Gate::Mmu] {
        stops_in_a_repetition(gate);
    }
}

fn stops_in_a_repetition(gate: Gate) {
    let (mut qemu, folder, job, mut toolstack) = at_the_first_checkpoint_under(gate, "repeat_aliases");
    let settings = RingSettings::default();
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, settings).unwrap();
    let frame = |name| job.symbols().find(name).unwrap().gpa.gfn();
    toolstack.set_access(frame("ALIASED"), AccessType::N).unwrap();
    // Nobody writes there: something stays watched.
    toolstack.set_access(frame("LEVELS"), AccessType::R).unwrap();
    let bytes = (1u64 << 46).to_le_bytes().into();
    toolstack.values(&Call::WriteFrame { gfn: frame("COUNT"), offset: 0, bytes }).unwrap();
    toolstack.values(&Call::Release { vcpu: mem_event::VcpuId(0) }).unwrap();
    let request = loop {
        match channel.take() {
            Some(request) => break request,
            None => wait_for("the event", &channel),
        }
        channel.clear_signal();
    };
    toolstack.set_access(request.frame().unwrap(), AccessType::Rwx).unwrap();
    channel.answer(&request.answer());
    channel.kick().unwrap();
    let begun = std::time::Instant::now();
    while toolstack.read(frame("ALIASED"), 0xff8, 8).unwrap() != [0xa1; 8] {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{gate}: the repetition does not get through its first page"
        );
        harness::poll::readable(&qemu, std::time::Instant::now() + Duration::from_millis(5)).unwrap();
    }
    qemu.qmp.execute("stop").unwrap();
    assert_eq!(status(&mut qemu), "paused");
    qemu.qmp.execute("quit").unwrap();
    wait_for("the end", &qemu);
}

#[test]
fn the_monitor_resets_a_machine_whose_vcpu_waits() {
    for (way, mut standing) in Standing::in_each_way() {
        // With -no-reboot a reset is the end.
        standing.qemu.qmp.execute("system_reset").unwrap();
        wait_for(&format!("the end, {way}"), &standing.qemu);
    }
}

/// The answer belonged to the machine before, and let a vCPU of the next one go on that stood at an event of its own.
#[test]
fn a_reset_ends_a_wait_and_its_late_answer_is_nothing_to_the_machine_that_begins() {
    let both = crate::support::kernel_maps_write_protected();
    for gate in [Gate::Callback, Gate::Mmu].into_iter().filter(|gate| *gate == Gate::Callback || both) {
        let mut guest = scenario("read_write");
        guest.machine.args = ["-action", "reboot=reset"].map(str::to_owned).to_vec();
        let (mut qemu, folder, job) = machine_under(gate, guest);
        let gfn = job.symbols().find("WATCHED").unwrap().gpa.gfn();
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
        qemu.qmp.execute("cont").unwrap();
        let mut requests = Vec::new();
        for _ in 0..2 {
            let vcpu = checkpoint(&mut toolstack, 1);
            toolstack.set_access(gfn, AccessType::N).unwrap();
            toolstack.values(&Call::Release { vcpu }).unwrap();
            requests.push(next_request(&mut channel));
            if requests.len() == 1 {
                // What QEMU itself writes as it loads the guest anew is not to wait.
                toolstack.set_access(gfn, AccessType::Rwx).unwrap();
                qemu.qmp.execute("system_reset").unwrap();
            }
        }
        let [late, current] = &requests[..] else { panic!("{} requests", requests.len()) };
        answer(&mut channel, late);
        toolstack.values(&Call::Control(Control::Resume { ring: Ring::Access })).unwrap();
        let stands = toolstack.vcpus().unwrap()[0];
        assert_eq!(stands.state, VcpuState::Answer, "gate={gate}: {stands:?}");
        toolstack.set_access(gfn, AccessType::Rwx).unwrap();
        answer(&mut channel, current);
        let vcpu = checkpoint(&mut toolstack, 2);
        toolstack.values(&Call::Release { vcpu }).unwrap();
        let vcpu = checkpoint(&mut toolstack, 3);
        // QEMU may end before this reply is read.
        toolstack.send(&Call::Release { vcpu }).unwrap();
        wait_for("the guest's end", &qemu);
        assert!(qemu.console().contains("verdict: success"), "gate={gate}: {}", qemu.console());
    }
}

/// The vCPU was taken to stand there still, so nobody heard of it and the guest stood for ever.
#[test]
fn a_checkpoint_is_announced_anew_after_a_reset() {
    let mut guest = scenario("read_write");
    guest.machine.args = ["-action", "reboot=reset"].map(str::to_owned).to_vec();
    let (mut qemu, folder, _job) = machine(guest);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    qemu.qmp.execute("cont").unwrap();
    let first = next_checkpoint(&mut toolstack);
    for _ in 0..3 {
        qemu.qmp.execute("system_reset").unwrap();
        let again = next_checkpoint(&mut toolstack);
        assert_eq!((again.vcpu, again.number), (first.vcpu, first.number));
    }
}

#[test]
fn the_monitor_quits_and_sigterm_ends_a_machine_whose_vcpu_waits() {
    for (way, mut standing) in Standing::in_each_way() {
        standing.qemu.qmp.execute("quit").unwrap();
        wait_for(&format!("the end by the monitor, {way}"), &standing.qemu);
        assert!(standing.qemu.wait().unwrap().success(), "{way}");
    }
    for (way, mut standing) in Standing::in_each_way() {
        rustix::process::kill_process(pid(standing.qemu.pid()), Signal::TERM).unwrap();
        wait_for(&format!("the end by SIGTERM, {way}"), &standing.qemu);
        assert!(standing.qemu.wait().unwrap().success(), "{way}");
    }
}

#[test]
fn the_monitor_stops_and_quits_a_machine_at_a_checkpoint() {
    let (mut qemu, _folder, _job, _toolstack) = at_the_first_checkpoint("read_write");
    qemu.qmp.execute("stop").unwrap();
    assert_eq!(status(&mut qemu), "paused");
    qemu.qmp.execute("quit").unwrap();
    wait_for("the end", &qemu);
}

/// A listener that ends all events in one way.
fn answering(then: Then) -> Option<Listening> {
    Some(Listening { rules: vec![Rule { then, ..Rule::default() }], ..Listening::default() })
}

#[test]
fn a_deadline_ends_a_run_with_the_list_of_sleepers() {
    let mut silent = scenario("smp_storm");
    silent.consumers.listener = answering(Then::Silence);
    // Also long enough that the time which one waits can be seen.
    let enough = |outcome: &Outcome| {
        outcome.sleepers.len() == 8 && outcome.sleepers.iter().any(|sleeper| !sleeper.contains("waits 0.0 s"))
    };
    let (outcome, _) = run_to_its_deadline(silent, enough);
    let waiting = |what: &str| outcome.sleepers.iter().filter(|sleeper| sleeper.contains(what)).count();
    let answers = " s for an answer on the access ring about frame 0x";
    assert_eq!(waiting(answers), 4, "{:?}", outcome.sleepers);
    assert_eq!(waiting(" s for a slot on the access ring, from this program's listener"), 4, "{:?}", outcome.sleepers);
    assert!(outcome.sleepers.iter().any(|sleeper| sleeper.contains("STORM")), "{:?}", outcome.sleepers);
}

#[test]
fn an_answer_that_changes_nothing_brings_the_same_event_again() {
    let mut stubborn = scenario("read_write");
    stubborn.consumers.listener = answering(Then::Answer);
    let (outcome, job) = run_to_its_deadline(stubborn, |outcome| outcome.records.len() > 2);
    let events: Vec<String> = outcome.records.iter().map(|record| record.line(&job.symbols())).skip(1).collect();
    // The deadline may come before the last one's answer.
    let (last, answered) = events.split_last().unwrap();
    let event = answered[0].split(" -> ").next().unwrap();
    assert!(answered.iter().all(|other| *other == answered[0]) && last.starts_with(event), "{:?}", events);
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

fn handle(number: u32) -> OwnedFd {
    rustix::process::pidfd_open(pid(number), PidfdFlags::empty()).unwrap()
}

/// A scenario whose listener never answers: its vCPU waits from the first event on.
const SILENT: &str = r#"
version = 1
about = "A listener that never answers"

[machine]
guest = "read_write"

[[consumers.listener.rules]]
then = "silence"

[[steps]]
at = 1
do = [{ set-access = { frames = "WATCHED", access = "n" } }]
"#;

/// A run of the command that stands still in the middle, after its first checkpoint.
fn standing_run(folder: &RunFolder) -> (Child, BufReader<impl Read + AsFd>, OwnedFd) {
    standing_run_with(folder, &[])
}

/// The same with further arguments.
fn standing_run_with(folder: &RunFolder, further: &[&str]) -> (Child, BufReader<impl Read + AsFd + use<>>, OwnedFd) {
    // What is in the run's own folder was left by a run.
    let elsewhere = RunFolder::create().unwrap();
    let silent = elsewhere.file("silent.toml");
    std::fs::write(&silent, SILENT).unwrap();
    let mut run = command(folder);
    run.arg("run").arg(&silent).arg("--json").args(further).stdout(Stdio::piped());
    let mut child = run.spawn().unwrap();
    let output = child.stdout.take().unwrap();
    rustix::pipe::fcntl_setpipe_size(&output, 4096).unwrap();
    let mut output = BufReader::with_capacity(256, output);
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.contains("\"event\""), "{line}");
    let id = child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
    let qemu: Vec<&str> = children.split_whitespace().collect();
    assert_eq!(qemu.len(), 1, "the command has one child: {children}");
    let qemu = handle(qemu[0].parse().unwrap());
    (child, output, qemu)
}

#[test]
fn a_qemu_ends_with_the_harness_that_started_it() {
    let folder = RunFolder::create().unwrap();
    let (mut child, _output, qemu) = standing_run(&folder);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("QEMU's end", &qemu);
    // What a killed run leaves in its folder goes with the next run.
    assert!(command(&folder).args(["run", "example"]).output().unwrap().status.success());
    assert_eq!(left_over(&folder), [""; 0]);
}

#[test]
fn a_killed_qemu_is_a_crash_and_its_trace_reads_to_the_last_step() {
    let folder = RunFolder::create().unwrap();
    let elsewhere = RunFolder::create().unwrap();
    let trace = elsewhere.file("trace");
    let (mut child, mut output, qemu) = standing_run_with(&folder, &["--trace", trace.to_str().unwrap()]);
    rustix::process::pidfd_send_signal(&qemu, Signal::KILL).unwrap();
    wait_for("QEMU's end", &qemu);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(6), "{rest}");
    assert!(rest.contains("QEMU died of SIGKILL"), "{rest}");
    assert_eq!(left_over(&folder), [""; 0]);
    crate::support::replays(&trace);
}

#[test]
fn sigterm_and_sigint_end_a_run_in_good_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let folder = RunFolder::create().unwrap();
        let elsewhere = RunFolder::create().unwrap();
        let trace = elsewhere.file("trace");
        let (mut child, mut output, qemu) = standing_run_with(&folder, &["--trace", trace.to_str().unwrap()]);
        rustix::process::kill_process(pid(child.id()), signal).unwrap();
        let mut rest = String::new();
        output.read_to_string(&mut rest).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(4), "{rest}");
        assert!(rest.contains("interrupted by a signal"), "{rest}");
        wait_for("QEMU's end", &qemu);
        assert_eq!(left_over(&folder), [""; 0]);
        let replayed = harness::trace::replay::replay_file(&trace, false).unwrap();
        assert!(replayed.report().contains("ended in order"), "{}", replayed.report());
    }
}

#[test]
fn the_second_sigint_ends_a_run_at_once() {
    let folder = RunFolder::create().unwrap();
    let (mut child, _output, qemu) = standing_run(&folder);
    // Nobody reads its output, and what is left of the room is taken: at the first it cannot come to its end.
    let end = format!("/proc/{}/fd/1", child.id());
    let room = rustix::fs::open(end, OFlags::WRONLY | OFlags::NONBLOCK, Mode::empty()).unwrap();
    while rustix::io::write(&room, b"\n").is_ok() {}
    while child.try_wait().unwrap().is_none() {
        rustix::process::kill_process(pid(child.id()), Signal::INT).unwrap();
        std::thread::yield_now();
    }
    assert_eq!(child.wait().unwrap().code(), Some(130));
    wait_for("QEMU's end", &qemu);
}

/// A machine of somebody else's, and the command attached to it; the first line of its output has come.
fn attached(name: &str, wanted: &[&str]) -> (Qemu, RunFolder, Child, BufReader<impl Read + use<>>) {
    let mut owned = scenario(name);
    owned.consumers.listener.get_or_insert_default();
    owned.consumers.pager.get_or_insert_default();
    let (qemu, folder, job) = machine(owned);
    let (child, output) = attach(&folder, &job, wanted);
    (qemu, folder, child, output)
}

/// The command attached to a machine; the first line of its output has come.
fn attach(folder: &RunFolder, job: &Job, wanted: &[&str]) -> (Child, BufReader<impl Read + use<>>) {
    let guest = job.guest.as_ref().unwrap().path.as_os_str();
    let mut child = command(folder)
        .arg("attach")
        .arg(folder.file("socket"))
        .arg("--guest")
        .arg(guest)
        .arg("--json")
        .args(wanted)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert!(line.contains("attached"), "{line}");
    (child, output)
}

#[test]
fn a_machine_outlives_the_command_that_was_attached_to_it() {
    let mut owned = scenario("page_in");
    owned.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine(owned);
    let (mut killed, _output) = attach(&folder, &job, &["--watch", "PAGES=rw", "--page-out", "gpa:0x100000-0x103fff"]);
    killed.kill().unwrap();
    killed.wait().unwrap();
    qemu.qmp.execute("cont").unwrap();
    assert_eq!(status(&mut qemu), "running");
    // What was out is the successor's to bring back, and what is watched stays so.
    let (mut successor, mut output) = attach(&folder, &job, &["--watch", "0x3000=w", "--page-out", "0x3001"]);
    let mut events = String::new();
    output.read_to_string(&mut events).unwrap();
    assert_eq!(successor.wait().unwrap().code(), Some(0), "{events}");
    assert!(events.contains("\"symbol\":\"PAGES") && events.contains("load"), "{events}");
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{}", qemu.console());
}

#[test]
fn attach_joins_a_machine_and_ends_with_it() {
    let (mut qemu, _folder, mut child, mut output) = attached("read_write", &["--watch", "WATCHED=r"]);
    qemu.qmp.execute("cont").unwrap();
    let mut events = String::new();
    output.read_to_string(&mut events).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{events}");
    assert!(events.contains("\"symbol\":\"WATCHED") && events.contains("the domain ended"), "{events}");
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{}", qemu.console());
}

#[test]
fn attach_leaves_a_machine_as_it_was() {
    let (mut qemu, _folder, mut child, mut output) =
        attached("page_in", &["--watch", "PAGES=rw", "--page-out", "gpa:0x100000-0x103fff"]);
    rustix::process::kill_process(pid(child.id()), Signal::INT).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest}");
    assert!(rest.contains("left the domain"), "{rest}");
    qemu.qmp.execute("cont").unwrap();
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{}", qemu.console());
}

#[test]
fn frames_paged_out_before_the_first_instruction_come_back() {
    let mut early = Scenario::bare("page_in");
    early.consumers.pager.get_or_insert_default();
    early.start = vec![ConsumerAct::PageOut { frames: "gpa:0x100000-0x103fff".into() }.into()];
    let (outcome, _) = crate::support::run(early);
    assert!(outcome.paged.pages_out > 0 && outcome.paged.pages_in > 0, "{:?}", outcome.paged);
}
