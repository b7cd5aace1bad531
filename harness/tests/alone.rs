//! Instructions that are let through alone, counted: by the guest, which knows what became of them, by the listener, by the plugin.

use crate::support::domain::how_often;
use crate::support::{
    Random, checkpoint, gates, kernel_maps_write_protected, machine_under, replays, scenario, wait_for,
};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::{Job, Outcome};
use harness::scenario::{MemoryAct, Name, Number, Rule, Scenario, Size, Then, Time, corpus};
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use mem_event::message::Call;
use mem_event::trace::Reader;
use mem_event::{AccessType, Flags, Input, Ring};
use mem_event_client::{Channel, Client, RingSettings};
use std::time::Duration;

/// What each vCPU of `alone_crowd` adds, to its own page and to the common one.
const ADDITIONS: u64 = 2 * 100;
const MEMORY: u64 = 128 << 20;
/// Only the limit of what can be called a hang, for a thousand frames as well (`ci/alone-linux`).
const DEADLINE: Duration = Duration::from_secs(3600);

/// A run, and how many instructions the engine heard of that had been let through.
fn run(scenario: Scenario, gate: Gate) -> (Outcome, u64) {
    let folder = RunFolder::create().unwrap();
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = gate;
    job.trace = Some(folder.file("trace"));
    let outcome = job.run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.kind, Kind::Success, "{gate:?}: {}\n{}", outcome.verdict, outcome.said);
    let steps = Reader::open(folder.file("trace")).unwrap().map_while(Result::ok);
    let emulated = steps.filter(|step| matches!(step.input, Input::Emulated { .. })).count();
    assert!(replays(&folder.file("trace")) > emulated as u64);
    (outcome, emulated as u64)
}

/// The numbers of the line in which the plugin says what came of the turns: all, those in which an instruction ran, nothing did, the vCPU was
/// elsewhere, a frame was out; and how often a page was open instead.
fn turns(outcome: &Outcome) -> [u64; 6] {
    let line = outcome.said.lines().find(|line| line.starts_with("mem-event: alone: ")).unwrap();
    eprintln!("{line}");
    let numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    numbers.collect::<Vec<_>>().try_into().unwrap()
}

/// Each turn came to one end, and each instruction that ran, or had a page opened, was told to the engine once.
fn add_up(outcome: &Outcome, emulated: u64) {
    let [turns, ran, kept, elsewhere, unready, open] = turns(outcome);
    assert_eq!(ran + kept + elsewhere + unready, turns, "{}", outcome.said);
    assert_eq!(ran + open, emulated, "{}", outcome.said);
}

#[test]
fn of_a_crowd_no_addition_is_lost_and_each_makes_its_event() {
    for gate in gates() {
        for vcpus in [1, 4, 8] {
            let mut scenario = scenario("alone_crowd");
            scenario.machine.vcpus = vcpus;
            let (outcome, emulated) = run(scenario, gate);
            let due = ADDITIONS * u64::from(vcpus);
            assert_eq!((outcome.counts.access, emulated), (due, due), "{gate:?}, {vcpus} vCPUs: {}", outcome.said);
            add_up(&outcome, emulated);
        }
    }
}

/// Whatever is due before an instruction, after it and while it waits.
#[test]
fn under_a_storm_of_interrupts_each_access_is_done_once_by_one_answer() {
    for gate in gates() {
        let (outcome, emulated) = run(scenario("alone_storm"), gate);
        let line = outcome.console.lines().find(|line| line.contains(" accesses, ")).unwrap();
        eprintln!("{gate}: {line}");
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [done, .., nmis] = numbers[..] else { panic!("{line}") };
        assert_eq!(emulated, done, "{gate}: {}", outcome.said);
        // One whose vCPU takes an NMI after the answer asks again when it is back; the first answer lets nothing through.
        let again = outcome.counts.access - done;
        assert!(again <= nmis, "{gate}: {again} asked again, {nmis} NMIs: {}", outcome.said);
        add_up(&outcome, emulated);
    }
}

/// `MEM_EVENT_READINGS` says how often each vCPU reads (`ci/soak`: a million times).
#[test]
fn what_one_vcpu_reads_instead_of_what_memory_holds_the_other_never_reads() {
    let readings = how_often("MEM_EVENT_READINGS", 500);
    for gate in gates() {
        let mut scenario = scenario("alone");
        scenario.deadline = Time(DEADLINE);
        let write = MemoryAct::Write { at: "READINGS".into(), value: Number(readings), refused: None };
        scenario.steps[0].acts.push(write.into());
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = gate;
        let outcome = job.run(&mut Silent, None).unwrap();
        assert_eq!(outcome.verdict.kind, Kind::Success, "{gate}: {}\n{}", outcome.verdict, outcome.console);
        let due = format!("{readings} of {readings} readings were told, 0 of another vCPU's wrong, 0x1111 was kept");
        assert!(outcome.console.contains(&due), "{gate}: {}", outcome.console);
        assert!(outcome.counts.access >= 2 * readings, "{gate}: {}", outcome.counts.access);
        eprintln!("{gate}: {readings} readings of each vCPU in {:.1} s", outcome.took.as_secs_f64());
    }
}

/// QEMU does what is queued for a vCPU while the machine is stopped, too.
#[test]
fn of_a_machine_that_is_stopped_no_instruction_runs() {
    const STOPS: u32 = 30;
    for gate in gates() {
        let mut scenario = scenario("alone_crowd");
        scenario.machine.vcpus = 2;
        let (mut qemu, folder, job) = machine_under(gate, scenario);
        let common = job.symbols().find("COMMON").unwrap().gpa.gfn();
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
        qemu.qmp.execute("cont").unwrap();
        let vcpu = checkpoint(&mut toolstack, 1);
        toolstack.set_access(common, AccessType::N).unwrap();
        toolstack.values(&Call::Release { vcpu }).unwrap();
        let listener = std::thread::spawn(move || {
            // Until the guest is through, and its last checkpoints are let go by nobody: then there is nothing to answer.
            while channel.wait().unwrap_or(false) {
                while let Some(request) = channel.take() {
                    channel.answer(&request.answer().with(Flags::EMULATE));
                    channel.kick().unwrap();
                }
            }
        });
        let (mut seen, mut stops) = (Vec::new(), 0);
        // On a busy machine the guest may not run at once when it may.
        while stops < STOPS || seen.len() < 2 && stops < 100 * STOPS {
            stops += 1;
            qemu.qmp.execute("stop").unwrap();
            let held = toolstack.read(common, 0, 8).unwrap();
            for _ in 0..20 {
                assert_eq!(toolstack.read(common, 0, 8).unwrap(), held, "{gate:?}");
                std::thread::yield_now();
            }
            if seen.last() != Some(&held) {
                seen.push(held);
            }
            qemu.qmp.execute("cont").unwrap();
        }
        assert!(seen.len() > 1, "{gate:?}: the guest ran between the stops");
        qemu.qmp.execute("quit").unwrap();
        wait_for("the end", &qemu);
        listener.join().unwrap();
    }
}

/// Some frames anywhere above the firmware's, page tables and stacks among them as it comes, have no right to be read or written from the
/// first instruction on, and each access to them is let through alone.
#[test]
fn linux_does_its_work_through_pages_that_it_may_never_touch() {
    if !kernel_maps_write_protected() {
        return;
    }
    let mut random = Random(1);
    let mut scenario = corpus::linux();
    scenario.machine.memory = Size(MEMORY);
    scenario.machine.vcpus = u32::try_from(how_often("MEM_EVENT_VCPUS", 2)).unwrap();
    scenario.deadline = Time(DEADLINE);
    let emulate = Rule { then: Then::Emulate, ..Rule::default() };
    scenario.consumers.listener.get_or_insert_default().rules.push(emulate);
    let frames = (0..how_often("MEM_EVENT_FRAMES", 12)).map(|_| 0x1000 + random.below((MEMORY >> 12) - 0x1000));
    let watch = |gfn: u64| {
        MemoryAct::SetAccess {
            frames: format!("{gfn:#x}").as_str().into(),
            access: Name(AccessType::X),
            view: None,
            refused: None,
        }
        .into()
    };
    scenario.start = frames.map(watch).collect();
    let (outcome, emulated) = run(scenario, Gate::Mmu);
    eprintln!("{emulated} instructions were let through alone in {:.1} s", outcome.took.as_secs_f64());
    assert!(emulated > 100, "{}", outcome.said);
    add_up(&outcome, emulated);
}
