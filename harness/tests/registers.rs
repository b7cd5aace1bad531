//! Where registers are read: in place if that proves itself, else through the plugin API; and what happens where it turns out wrong.

use crate::support::{kernel_maps_write_protected, next_checkpoint, next_request, run, scenario};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::{Job, Outcome};
use harness::toolstack::log::Silent;
use harness::toolstack::transcript;
use harness::verdict::Kind;
use mem_event::message::Call;
use mem_event::{AccessType, Control, Event, Gfn, Gla, Layout, Request, Rights, Ring, VcpuId};
use mem_event_client::channel::{Channel, RingSettings};
use mem_event_client::socket::Client;

/// A scenario with these arguments for the plugin.
fn with(name: &str, gate: Gate, arguments: &[&str]) -> (Outcome, String) {
    let mut job = Job::new(scenario(name), None).unwrap();
    job.gate = gate;
    job.plugin = arguments.iter().map(ToString::to_string).collect();
    let outcome = job.run(&mut Silent, None).unwrap();
    let sequence = transcript::text(&outcome.records, job.scenario.machine.vcpus, &job.symbols());
    (outcome, sequence)
}

/// Without what is known in place alone: what a model-specific register holds, and so whether it changes and whether it is refused.
fn without_model_specific(sequence: &str) -> String {
    sequence.lines().filter(|line| !line.contains("  msr 0x")).map(|line| format!("{line}\n")).collect()
}

/// A run that ended because of the registers; the sentence.
fn crash(gate: Gate, arguments: &[&str]) -> String {
    let (outcome, _) = with("read_write", gate, arguments);
    assert_eq!(outcome.verdict.kind, Kind::Crash, "{}", outcome.verdict);
    outcome.verdict.reason
}

#[test]
fn registers_in_place_and_by_the_api_give_the_same_sequences_of_flat_64_bit_code() {
    for name in ["read_write", "page_cross", "self_modify", "cpu_events"] {
        let (_, in_place) = run(scenario(name));
        for source in ["registers=direct", "registers=api"] {
            let (outcome, sequence) = with(name, Gate::Callback, &[source]);
            assert_eq!(outcome.verdict.kind, Kind::Success, "{name} {source}: {}", outcome.verdict);
            let [left, right] = [&in_place, &sequence].map(|sequence| without_model_specific(sequence));
            assert_eq!(left, right, "{name}: left by default, right {source}");
        }
    }
}

#[test]
fn what_the_api_cannot_check_is_stopped_by_the_hosts_mmu_without_a_linear_address() {
    let (_, in_place) = run(scenario("modes"));
    let (outcome, by_api) = with("modes", Gate::Callback, &["registers=api"]);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    assert!(by_api.contains("no gla"), "16- and 32-bit code: {by_api}");
    let watched = |sequence: &str| -> std::collections::BTreeSet<String> {
        let frames = sequence.lines().filter_map(|line| line.split("gfn ").nth(1)?.split(' ').next());
        frames.map(str::to_owned).collect()
    };
    assert_eq!(watched(&in_place), watched(&by_api), "no watched frame is touched unseen");
}

#[test]
fn a_view_that_does_not_prove_itself_gives_way_to_the_api() {
    let (_, in_place) = run(scenario("read_write"));
    let (outcome, sequence) = with("read_write", Gate::Callback, &["registers=auto", "falsify=proof"]);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    assert_eq!(in_place, sequence);
    let line = outcome.said.lines().find(|line| line.contains("cannot be read in place here")).unwrap();
    assert!(line.contains("only flat 64-bit code is checked"), "{line}");
}

#[test]
fn where_nothing_is_watched_checkpoints_are_told_apart_by_the_api_as_well() {
    let (_, in_place) = run(scenario("foreign_comes_back"));
    for gate in [Gate::Callback, Gate::Mmu] {
        let (outcome, sequence) = with("foreign_comes_back", gate, &["registers=auto", "falsify=proof"]);
        assert_eq!(outcome.verdict.kind, Kind::Success, "{gate:?}: {}", outcome.verdict);
        assert_eq!(in_place, sequence, "{gate:?}");
    }
}

#[test]
fn a_view_that_must_prove_itself_and_does_not_ends_the_run() {
    let why = crash(Gate::Callback, &["registers=direct", "falsify=proof"]);
    assert!(why.contains("registers=direct") && why.contains("rax: 0x1 in place, 0x0 by the API, rip 0x"), "{why}");
    assert!(why.contains("take registers=auto or registers=api"), "{why}");
}

#[test]
fn a_sample_that_differs_ends_the_run_with_what_differed() {
    for source in ["registers=auto", "registers=direct"] {
        let why = crash(Gate::Callback, &[source, "falsify=sample"]);
        for part in ["have become wrong (rax: 0x", " in place, 0x", " by the API, rip 0x", "the run ends"] {
            assert!(why.contains(part), "{source}: no {part:?} in {why}");
        }
    }
}

#[test]
fn the_mmu_gate_compares_samples_too_and_needs_the_view() {
    if !kernel_maps_write_protected() {
        return;
    }
    let why = crash(Gate::Mmu, &["falsify=sample"]);
    assert!(why.contains("have become wrong"), "{why}");
    let why = crash(Gate::Mmu, &["falsify=proof"]);
    assert!(why.contains("gate=mmu needs; take gate=callback"), "{why}");
}

#[test]
fn the_mmu_gate_is_refused_where_only_the_api_may_be_asked() {
    let mut job = Job::new(scenario("read_write"), None).unwrap();
    job.gate = Gate::Mmu;
    job.plugin = vec!["registers=api".into()];
    let refused = job.run(&mut Silent, None).expect_err("no start").to_string();
    assert!(refused.contains("which registers=api rules out; take gate=callback"), "{refused}");
}

/// CF, PF, AF, ZF, SF, DF and OF.
const COMPUTED: u64 = 0xcd5;

#[test]
fn a_request_of_vm_event_carries_exact_registers_and_flags() {
    let gates = [Gate::Callback, Gate::Callback, Gate::Mmu];
    let is_there = |gate| gate != Gate::Mmu || kernel_maps_write_protected();
    for (gate, source) in gates
        .into_iter()
        .zip(["registers=direct", "registers=api", "registers=auto"])
        .filter(|(gate, _)| is_there(*gate))
    {
        let mut bare = harness::scenario::Scenario::bare("registers");
        bare.consumers.listener = Some(Default::default());
        let mut job = Job::new(bare, None).unwrap();
        job.gate = gate;
        job.plugin = vec![source.into()];
        let folder = RunFolder::create().unwrap();
        let mut qemu = job.machine().unwrap().start(&folder).unwrap();
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let settings = RingSettings { layout: Layout::VmEvent7, slots: 0 };
        let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, settings).unwrap();
        qemu.qmp.execute("cont").unwrap();
        for _ in 0..3 {
            let [page, touch, flags] = next_checkpoint(&mut toolstack).arguments;
            let set = |access| Call::Control(Control::SetAccess { first: Gfn(page >> 12), count: 1, access });
            toolstack.values(&set(AccessType::N)).unwrap();
            toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
            let request = next_request(&mut channel);
            let registers = channel.registers().expect("registers");
            // The first case reads, the others write.
            assert_eq!(asked(&request).0, Some(Gla(page)));
            assert_eq!(registers.rip, touch, "{source}: rip");
            assert_eq!(registers.general[7], page, "{source}: rdi");
            let known = [0x8888_8888_8888_8888, 0x9999_9999_9999_9999, 0xaaaa_aaaa_aaaa_aaaa, 0xbbbb_bbbb_bbbb_bbbb];
            assert_eq!(registers.general[8..12], known, "{source}: r8 to r11");
            assert_eq!(registers.rflags & 2, 2, "{source}: the bit that is always set");
            let [cs, ss, ..] = registers.segments;
            assert_eq!((cs.selector & 3, registers.control[0] & 0x8000_0001), (0, 0x8000_0001), "{source}: cs, cr0");
            assert_eq!(registers.efer & 0x500, 0x500, "{source}: efer says long mode");
            if source != "registers=api" {
                assert_eq!(registers.rflags & COMPUTED, flags, "flags at {touch:#x}: {:#x}", registers.rflags);
                assert_eq!((cs.rights & 0x20f, ss.rights & 0x13), (0x20b, 0x13), "64-bit code, writable data");
                assert!(registers.gdtr_limit > 0, "a descriptor table");
            }
            toolstack.values(&set(AccessType::Rwx)).unwrap();
            channel.answer(&request.answer());
            channel.kick().unwrap();
        }
        crate::support::wait_for("the end", &qemu);
        assert!(qemu.console().contains("verdict: success"), "{source}: {}", qemu.console());
    }
}

/// Linear address and rights of a violation.
fn asked(request: &Request) -> (Option<Gla>, Rights) {
    match request.event {
        Event::Violation { gla, rights, .. } => (gla, rights),
        other => panic!("{other:?} is no violation"),
    }
}

#[test]
fn code_whose_right_to_run_is_taken_while_it_waits_is_stopped_before_it_goes_on() {
    let mut bare = harness::scenario::Scenario::bare("registers");
    bare.consumers.listener = Some(Default::default());
    let (mut qemu, folder, _job) = crate::support::machine(bare);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
    qemu.qmp.execute("cont").unwrap();
    let [page, touch, _] = next_checkpoint(&mut toolstack).arguments;
    let set = |toolstack: &mut Client, address: u64, access| {
        let control = Control::SetAccess { first: Gfn(address >> 12), count: 1, access };
        toolstack.values(&Call::Control(control)).unwrap();
    };
    set(&mut toolstack, page, AccessType::N);
    // Armed for fetches from here on, so that nothing is translated anew while the vCPU waits.
    set(&mut toolstack, touch + 0x20_0000, AccessType::Rw);
    toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    let data = next_request(&mut channel);
    assert_eq!(asked(&data), (Some(Gla(page)), Rights::R));
    set(&mut toolstack, touch, AccessType::Rw);
    set(&mut toolstack, page, AccessType::Rwx);
    channel.answer(&data.answer());
    channel.kick().unwrap();
    let fetch = next_request(&mut channel);
    assert_eq!(asked(&fetch), (Some(Gla(touch)), Rights::X));
}
