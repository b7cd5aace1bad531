//! `explain`: each rule fires on a consumer that does what it is about, and names the steps; none fires where nothing is wrong.

use crate::support::{command, file_holds, scenario, wait_for};
use harness::consumers::external::Running;
use harness::guest::symbols::Symbols;
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::refusal::{Blame, Refusal};
use harness::run::Job;
use harness::scenario::external::HandedRing;
use harness::scenario::settings::{Consumer, Fault, FaultySettings};
use harness::scenario::{Scenario, corpus};
use harness::toolstack::log::Silent;
use harness::trace::explain::finding::Finding;
use harness::trace::explain::{Explained, explained};
use harness::trace::open;
use mem_event::message::{Call, Notice, RingState};
use mem_event::spin::Spin;
use mem_event::trace::{Context, Header, Writer};
use mem_event::{
    Access, AccessSource, AccessType, Back, Control, CpuEventKind, Domain, DomainConfig, Effects, Flags, Gfn, Input,
    Layout, MonitorMode, Rights, Ring, RingPage, VcpuId, With,
};
use mem_event_client::{Channel, Client, RingSettings};
use std::path::Path;
use std::time::{Duration, Instant};

/// A guest at its first checkpoint, whose vCPUs and service never spin, so that who signals is seen.
struct Guest {
    qemu: Qemu,
    folder: RunFolder,
    job: Job,
    toolstack: Client,
}

impl Guest {
    fn of(name: &str) -> Guest {
        let folder = RunFolder::create().unwrap();
        let mut scenario = scenario(name);
        // So that the gate is there; who serves is the test's matter.
        scenario.consumers.listener.get_or_insert_default();
        let mut job = Job::new(scenario, None).unwrap();
        (job.trace, job.spin) = (Some(folder.file("trace")), Spin::Off);
        let qemu = job.machine().unwrap().start(&folder).unwrap();
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        Guest { qemu, folder, job, toolstack }
    }

    /// Its consumer, with what it says in the file `said`.
    fn serve(&self, fault: Fault, at: u64, layout: Layout) -> Running {
        let faulty = Consumer::Faulty(FaultySettings { fault, at, delay: 0 });
        let mut external = faulty.external(Path::new(env!("CARGO_BIN_EXE_mem-event"))).unwrap();
        external.rings = vec![HandedRing { ring: Ring::Access, layout: Some(layout), slots: 0 }];
        external.command += &format!(" >{}", self.folder.file("said").display());
        let socket = self.folder.file("socket");
        let mut running = Running::start(&socket, &external, &Scenario::bare("explained"), None).unwrap();
        running.wait_until_ready(Instant::now() + Duration::from_secs(60)).unwrap();
        running
    }

    fn begin(&mut self) -> VcpuId {
        self.qemu.qmp.execute("cont").unwrap();
        self.next_checkpoint().0
    }

    /// The vCPU at the next checkpoint, and the checkpoint's number.
    fn next_checkpoint(&mut self) -> (VcpuId, u64) {
        loop {
            if let Some(Notice::Checkpoint { vcpu, number, .. }) = self.toolstack.notice().unwrap() {
                return (vcpu, number);
            }
            wait_for("the next checkpoint", &self.toolstack);
        }
    }
    fn release(&mut self, vcpu: VcpuId) {
        self.toolstack.values(&Call::Release { vcpu }).unwrap();
    }

    fn frame(&self, symbol: &str) -> Gfn {
        self.job.symbols().find(symbol).unwrap().gpa.gfn()
    }

    fn control(&mut self, control: Control) {
        self.toolstack.values(&Call::Control(control)).unwrap();
    }

    /// Waits until the plugin has seen that the ring's consumer is gone: what it answered is taken by then.
    fn loses(&mut self, ring: Ring) {
        let until = Instant::now() + Duration::from_secs(60);
        let is_lost = |client: &mut Client| {
            client
                .rings()
                .unwrap()
                .iter()
                .any(|it| it.ring == ring && matches!(it.state, RingState::Lost | RingState::Broken))
        };
        while !is_lost(&mut self.toolstack) {
            assert!(Instant::now() < until, "the {ring} ring keeps its consumer");
            std::thread::yield_now();
        }
    }

    /// What its trace has to say. QEMU need not come to its own end.
    fn explained(mut self) -> Explained {
        self.toolstack.values(&Call::EndTrace).unwrap();
        self.qemu.kill();
        of_trace(&self.folder.file("trace"))
    }
}

fn of_trace(trace: &Path) -> Explained {
    let mut tape = open(trace).unwrap();
    let symbols = Symbols::of_trace(tape.header());
    explained(&mut tape, &symbols, |_| {})
}

/// What is found in the trace of `page_fault`, whose page is watched, when its listener has misbehaved `times` times from the first
/// event on, and is gone.
fn found_after(fault: Fault, times: u64, layout: Layout) -> Vec<Finding> {
    let mut guest = Guest::of("page_fault");
    let mut consumer = guest.serve(fault, 1, layout);
    let vcpu = guest.begin();
    let first = guest.frame("WATCHED");
    guest.control(Control::SetAccess { first, count: 1, access: AccessType::N });
    guest.release(vcpu);
    if matches!(fault, Fault::Dying | Fault::DyingAnswered | Fault::DyingMonitoring) {
        wait_for("its death", consumer.wait_for().unwrap());
        assert!(consumer.fault().unwrap().unwrap().contains("signal: 9"));
    } else {
        file_holds(&guest.folder.file("said"), &format!("event {times}: {fault:?}"));
        consumer.kill();
    }
    guest.loses(Ring::Access);
    guest.explained().findings
}

/// The finding of a rule, of which all parts are there.
#[track_caller]
fn of<'a>(findings: &'a [Finding], rule: &str) -> &'a Finding {
    let found = findings.iter().find(|finding| finding.rule == rule);
    let found = found.unwrap_or_else(|| panic!("{rule} finds nothing in {findings:#?}"));
    assert!(!found.steps.is_empty() && found.steps.is_sorted(), "{found:?}");
    assert!(!found.remedy.is_empty() && found.times > 0, "{found:?}");
    found
}

#[test]
fn an_answer_without_vcpu_paused_is_named_and_so_is_the_wait_that_it_should_have_ended() {
    let findings = found_after(Fault::NotPaused, 1, Layout::Flags32);
    let found = of(&findings, "no-vcpu-paused");
    assert!(found.says.starts_with("the listener's answer of step "), "{found:?}");
    assert!(found.says.contains("vCPU 0's violation (r--) at 0x"), "{found:?}");
    let endless = of(&findings, "endless-wait");
    assert!(
        endless.says.contains(&format!("the answer of step {} should have ended it", found.steps[1])),
        "{endless:?}"
    );
    assert_eq!(endless.who, "vCPU 0");
}

#[test]
fn an_answer_for_another_vcpu_is_named() {
    let findings = found_after(Fault::WrongVcpu, 1, Layout::Flags32);
    let found = of(&findings, "answer-for-nobody");
    assert!(found.says.contains("names vCPU 1 ") && found.says.contains("there is no vCPU 1"), "{found:?}");
    assert!(found.says.contains("what is out is vCPU 0's violation"), "{found:?}");
    assert!(of(&findings, "endless-wait").says.contains("and names vCPU 1"), "{findings:?}");
}

#[test]
fn an_answer_in_another_version_is_named() {
    let findings = found_after(Fault::OtherVersion, 1, Layout::VmEvent7);
    let found = of(&findings, "ignored-answer");
    assert!(found.says.contains("has version 6 where vm_event has 7"), "{found:?}");
    assert!(of(&findings, "endless-wait").says.contains("and is of version 6"), "{findings:?}");
}

#[test]
fn an_answer_of_nonsense_is_named() {
    let findings = found_after(Fault::Malformed, 1, Layout::Flags32);
    assert!(of(&findings, "ignored-answer").says.contains("carries DUMMY"), "{findings:?}");
}

#[test]
fn an_answer_given_twice_is_named() {
    let findings = found_after(Fault::Duplicate, 1, Layout::Flags32);
    assert!(of(&findings, "broken-ring").says.contains("gave more answers than it was asked for"), "{findings:?}");
}

#[test]
fn an_answer_that_was_not_signalled_is_named() {
    let findings = found_after(Fault::Unsignalled, 1, Layout::Flags32);
    let found = of(&findings, "never-signalled");
    assert!(found.says.contains("was on the ring page and not signalled"), "{found:?}");
    assert!(found.says.contains("because its consumer was gone"), "{found:?}");
}

#[test]
fn an_answer_that_was_not_signalled_is_named_while_its_consumer_lives() {
    let mut guest = Guest::of("page_fault");
    let _consumer = guest.serve(Fault::Unsignalled, 1, Layout::Flags32);
    let vcpu = guest.begin();
    let first = guest.frame("WATCHED");
    guest.control(Control::SetAccess { first, count: 1, access: AccessType::N });
    guest.release(vcpu);
    file_holds(&guest.folder.file("said"), "event 1: Unsignalled");
    let findings = guest.explained().findings;
    assert!(of(&findings, "never-signalled").says.contains("because somebody asked for it"), "{findings:?}");
}

#[test]
fn an_event_that_comes_again_since_the_rights_are_as_they_were_is_named() {
    let findings = found_after(Fault::NoRights, 4, Layout::Flags32);
    let found = of(&findings, "same-event");
    assert!(found.says.contains("came again after each of the listener's answers"), "{found:?}");
    assert!(found.says.contains("the frame's rights did not change"), "{found:?}");
    assert!(found.steps.len() == 3 && found.times >= 2, "{found:?}");
}

/// What the rules find where a vCPU makes the same event three times, whatever its listener's answers ask for besides.
fn found_where_it_comes_again(flags: Flags) -> Vec<Finding> {
    let folder = RunFolder::create().unwrap();
    let config = DomainConfig::new(1, vec![(Gfn(0), 16)]);
    let mut domain = Domain::new(config.clone()).unwrap();
    domain.keep_record(true);
    let mut trace = Writer::create(folder.file("trace"), &Header::of("again", config)).unwrap();
    let page = RingPage::heap();
    let mut consumer = Back::init(page.clone(), Ring::Access, Layout::Flags32, 0).unwrap();
    let mut step = |input: Input| {
        let mut effects = Effects::default();
        let outcome = domain.apply(&input, With::page(&page), &mut effects);
        trace.record(Context { time: 0, code: &[], connection: 0 }, &input, &outcome, &effects);
    };
    step(Input::Control(Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 0 }));
    step(Input::Control(Control::SetAccess { first: Gfn(3), count: 2, access: AccessType::N }));
    let touch = |gfn, rip| {
        let source = AccessSource::Instruction;
        let access = Access { gfn: Gfn(gfn), offset: 0, gla: None, rights: Rights::W, source, rip };
        Input::Access { vcpu: VcpuId(0), access }
    };
    for _ in 0..3 {
        step(touch(3, 0x1000));
        let request = consumer.take().unwrap().unwrap();
        consumer.answer(&request.answer().with(flags));
        step(Input::Kick { ring: Ring::Access });
        // The handler of an interrupt that nothing holds off touches memory that is not watched.
        step(touch(5, 0x2000));
    }
    trace.finish().unwrap();
    of_trace(&folder.file("trace")).findings
}

/// The rule named a listener for the interrupts that came between its answers and what they let through.
#[test]
fn an_event_that_comes_again_since_an_interrupt_took_its_grant_is_nobodys_fault() {
    of(&found_where_it_comes_again(Flags::default()), "same-event");
    assert_eq!(found_where_it_comes_again(Flags::EMULATE), []);
}

#[test]
fn calls_that_are_refused_by_the_thousand_within_a_wait_are_named() {
    let findings = found_after(Fault::Nagging, 1, Layout::Flags32);
    let found = of(&findings, "refused-calls");
    assert!(
        found.says.starts_with("1500 calls were refused while vCPU 0 waited for the listener's answer"),
        "{found:?}"
    );
    assert!(found.says.contains("1500 times nominate with ENODEV by "), "{found:?}");
    assert!(found.by.as_ref().is_some_and(|name| name.contains("consumer json")), "{found:?}");
}

#[test]
fn a_monitor_that_a_dead_listener_left_on_is_named() {
    let findings = found_after(Fault::DyingMonitoring, 1, Layout::Flags32);
    let found = of(&findings, "left-monitor");
    assert!(found.says.contains("and left the monitor of cr3 on"), "{found:?}");
    let endless = of(&findings, "endless-wait");
    assert!(endless.says.contains("the listener was gone in step"), "{endless:?}");
}

#[test]
fn an_answer_that_never_came_is_named() {
    let findings = found_after(Fault::Silent, 1, Layout::Flags32);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(of(&findings, "endless-wait").says.contains("waits for the listener's answer on frame "), "{findings:?}");
}

#[test]
fn a_slot_that_is_not_given_back_is_named() {
    let mut guest = Guest::of("cpu_events");
    let mut consumer = guest.serve(Fault::Forgetful, 1, Layout::Flags32);
    let vcpu = guest.begin();
    for (kind, mode) in [(CpuEventKind::Msr, MonitorMode::Async), (CpuEventKind::Int3, MonitorMode::Sync)] {
        guest.control(Control::Monitor { kind, mode, on_change_only: false });
    }
    guest.release(vcpu);
    // The breakpoints come after the registers, and their answers before the next round: the forgotten one is not the last.
    while let (vcpu, 1) = guest.next_checkpoint() {
        guest.release(vcpu);
    }
    let findings = guest.explained().findings;
    consumer.kill();
    let found = of(&findings, "slot-kept");
    assert!(found.says.contains("never gave back the slot of vCPU 0's msr event"), "{found:?}");
    assert!(found.says.ends_with("one slot of 64 is lost"), "{found:?}");
}

/// The pager is this test: it nominates what the guest is about to touch, and evicts nothing.
#[test]
fn a_pager_that_nominates_what_is_touched_at_once_is_named() {
    let mut guest = Guest::of("page_touch");
    let vcpu = guest.begin();
    let mut pager = Channel::enable(&guest.folder.file("socket"), Ring::Paging, RingSettings::default()).unwrap();
    let first = guest.frame("TOUCHED");
    for gfn in (first.0..first.0 + 80).map(Gfn) {
        pager.client.values(&Call::Control(Control::Nominate { gfn })).unwrap();
    }
    guest.release(vcpu);
    for _ in 0..80 {
        let request = loop {
            if let Some(request) = pager.take() {
                break request;
            }
            wait_for("a request", &pager);
            pager.clear_signal();
        };
        assert!(request.flags.contains(Flags::EVICT_FAIL));
        pager.answer(&request.answer());
        pager.kick().unwrap();
    }
    // The guest goes on when its last touch is answered: that answer is taken.
    guest.next_checkpoint();
    let findings = guest.explained().findings;
    let found = of(&findings, "evict-fail-storm");
    assert!(found.says.starts_with("of 80 frames that the pager nominated 80 were touched before"), "{found:?}");
    assert_eq!(findings.len(), 1, "{findings:?}");
}

#[test]
fn no_rule_fires_on_a_trace_without_faults() {
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots/traces")).unwrap() {
        let explained = of_trace(&entry.unwrap().path());
        assert!(explained.ended.is_none() && explained.steps > 0);
        assert_eq!(explained.findings, []);
    }
    for scenario in corpus::all().into_iter().filter(|scenario| scenario.name != "linux") {
        let name = scenario.name.clone();
        let folder = RunFolder::create().unwrap();
        let Ok(mut job) = Job::new(scenario, None) else { continue };
        job.trace = Some(folder.file("trace"));
        match job.run(&mut Silent, None) {
            Ok(_) => {}
            Err(error) if Refusal::of(&error).is_some_and(|it| it.blame == Blame::Machine) => continue,
            Err(error) => panic!("{name}: {error:#}"),
        }
        assert_eq!(of_trace(&folder.file("trace")).findings, [], "{name}");
    }
}

#[test]
fn explain_says_what_is_wrong_with_whom_and_shows_the_steps() {
    let mut guest = Guest::of("page_fault");
    let mut consumer = guest.serve(Fault::NotPaused, 1, Layout::Flags32);
    let vcpu = guest.begin();
    let first = guest.frame("WATCHED");
    guest.control(Control::SetAccess { first, count: 1, access: AccessType::N });
    guest.release(vcpu);
    file_holds(&guest.folder.file("said"), "event 1: NotPaused");
    consumer.kill();
    guest.loses(Ring::Access);
    guest.toolstack.values(&Call::EndTrace).unwrap();
    let explain = |arguments: &[&str]| {
        let trace = guest.folder.file("trace");
        let output = command(&guest.folder).arg("explain").arg(trace).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = explain(&[]);
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("lacks VCPU_PAUSED") && said.contains("[no-vcpu-paused]"), "{said}");
    assert!(
        said.contains("request access[0] vcpu 0") && said.contains("answer access[0] vcpu 0"),
        "the steps:\n{said}"
    );
    assert!(said.ends_with("steps\n") && said.contains("2 things are wrong"), "{said}");
    let page = command(&guest.folder).arg("export").arg(guest.folder.file("trace")).args(["--to", "html"]).output();
    let page = String::from_utf8(page.unwrap().stdout).unwrap();
    let (wrong, picture) = page.split_once("The time line").unwrap();
    assert!(wrong.contains("What is wrong") && wrong.contains("lacks VCPU_PAUSED"), "{wrong}");
    assert!(picture.contains("<rect class=\"endless\"") && picture.contains("never ended"), "{picture}");
    let (code, said) = explain(&["--json"]);
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((code, lines.len()), (Some(5), 3), "{said}");
    assert_eq!((&lines[0]["event"], &lines[0]["rule"]), (&"finding".into(), &"no-vcpu-paused".into()));
    assert!(lines[0]["steps"].as_array().is_some_and(|steps| steps.len() == 2), "{said}");
    assert_eq!((&lines[2]["event"], &lines[2]["findings"]), (&"summary".into(), &2.into()));
}
