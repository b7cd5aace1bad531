//! What a client does to vCPUs themselves: it pauses them, reads and sets their registers, and looks at memory as they do.

use crate::support::{answer, gates, machine_under, next_checkpoint, next_request, wait_for};
use harness::guest::symbols::Symbols;
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::{Scenario, Thread};
use mem_event::message::{Call, Space, VcpuState};
use mem_event::registers::Context;
use mem_event::{AccessType, Control, Errno, Gfn, Gla, Layout, Ring, TrapKind, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use std::time::{Duration, Instant};

/// Long enough for a million rounds of a loop.
const HOLD: Duration = Duration::from_millis(30);
const VCPUS: u32 = 2;
/// CF, PF, AF, ZF, SF, DF and OF.
const COMPUTED: u64 = 0xcd5;

fn own(vcpu: u32) -> Space {
    Space { vcpu: VcpuId(vcpu), cr3: None }
}

fn connect(folder: &RunFolder) -> Client {
    Client::connect(&folder.file("socket")).unwrap()
}

fn counts(toolstack: &mut Client, address: u64) -> [u64; 2] {
    let bytes = toolstack.read_linear(own(0), Gla(address), 16).unwrap();
    let (words, _) = bytes.as_chunks();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

fn hold(qemu: &harness::machine::process::Qemu) {
    harness::poll::readable(qemu, Instant::now() + HOLD).unwrap();
}

fn address(symbols: &Symbols, name: &str) -> u64 {
    symbols.find(name).unwrap().gpa.0
}

#[test]
fn a_paused_domain_does_nothing_and_goes_on_with_the_registers_that_were_set() {
    gates().into_iter().for_each(|gate| paused_and_set(gate, Thread::Multi));
}

/// Whose vCPUs QEMU does not tell of when they go on.
#[test]
fn a_paused_domain_of_one_thread_does_nothing_whatever_the_monitor_starts() {
    gates().into_iter().for_each(|gate| paused_and_set(gate, Thread::Single));
}

/// A guest all of whose vCPUs are in their loops, and where each counts.
fn looping(gate: Gate, (vcpus, thread): (u32, Thread)) -> (Qemu, RunFolder, Job, Client, u64) {
    let mut scenario = Scenario::bare("endless");
    (scenario.machine.vcpus, scenario.machine.thread) = (vcpus, thread);
    let (mut qemu, folder, job) = machine_under(gate, scenario);
    let mut toolstack = connect(&folder);
    toolstack.values(&Call::Subscribe).unwrap();
    qemu.qmp.execute("cont").unwrap();
    let begun = next_checkpoint(&mut toolstack);
    let words = begun.arguments[0];
    toolstack.values(&Call::Release { vcpu: begun.vcpu }).unwrap();
    while counts(&mut toolstack, words).contains(&0) {
        hold(&qemu);
    }
    (qemu, folder, job, toolstack, words)
}

fn paused_and_set(gate: Gate, thread: Thread) {
    let (mut qemu, folder, job, mut toolstack, words) = looping(gate, (VCPUS, thread));
    let (errno, why) = toolstack.registers(VcpuId(1)).unwrap().unwrap_err();
    assert_eq!(errno, Errno::EAGAIN, "{why}");
    for _ in 0..50 {
        toolstack.pause().unwrap();
        let before = counts(&mut toolstack, words);
        hold(&qemu);
        assert_eq!(counts(&mut toolstack, words), before, "{gate}: it is paused");
        toolstack.unpause().unwrap();
        while counts(&mut toolstack, words).iter().zip(before).any(|(now, before)| *now == before) {
            hold(&qemu);
        }
    }
    pauses_are_counted(gate, &mut qemu, &folder, (&mut toolstack, words));
    all_are_put_elsewhere(gate, &job.symbols(), (&mut toolstack, words));
    toolstack.unpause().unwrap();
    let mut seen = Vec::new();
    for _ in 0..VCPUS {
        let stop = next_checkpoint(&mut toolstack);
        let [vcpu, found, flags] = stop.arguments;
        assert_eq!((stop.number, found, flags & COMPUTED), (2, 0x1234_0000 + vcpu, 0x8d5 & COMPUTED), "{gate}");
        seen.push(vcpu);
        toolstack.values(&Call::Release { vcpu: stop.vcpu }).unwrap();
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1]);
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{gate}: {}", qemu.console());
}

fn pauses_are_counted(
    gate: Gate,
    qemu: &mut harness::machine::process::Qemu,
    folder: &RunFolder,
    (toolstack, words): (&mut Client, u64),
) {
    // Counted, over connections, and taken back with them; QEMU's own stop and start between.
    toolstack.pause().unwrap();
    let mut other = connect(folder);
    other.pause().unwrap();
    other.pause().unwrap();
    toolstack.unpause().unwrap();
    let before = counts(toolstack, words);
    qemu.qmp.execute("stop").unwrap();
    qemu.qmp.execute("cont").unwrap();
    hold(qemu);
    assert_eq!(
        counts(toolstack, words),
        before,
        "{gate}: another connection pauses it, whatever QEMU's monitor starts"
    );
    let all = toolstack.vcpus().unwrap();
    assert!(all.iter().all(|vcpu| vcpu.state == VcpuState::Paused), "{all:?}");
    drop(other);
    while counts(toolstack, words).iter().zip(before).any(|(now, before)| *now == before) {
        hold(qemu);
    }
    assert!(toolstack.unpause().is_err(), "{gate}: nothing is left to take back");
}

fn all_are_put_elsewhere(gate: Gate, symbols: &Symbols, (toolstack, words): (&mut Client, u64)) {
    toolstack.pause().unwrap();
    let (inside, out) = (address(symbols, "endless_loop"), address(symbols, "endless_out"));
    for vcpu in (0..VCPUS).map(VcpuId) {
        let found = toolstack.registers(vcpu).unwrap().unwrap();
        let registers = &found.registers;
        assert!((inside..out).contains(&registers.rip), "{gate}: RIP {:#x}", registers.rip);
        let known = [0x8888_8888_8888_8888, 0x9999_9999_9999_9999, 0xaaaa_aaaa_aaaa_aaaa, 0xbbbb_bbbb_bbbb_bbbb];
        assert_eq!(registers.general[8..12], known, "{gate}: R8 to R11");
        assert_eq!(registers.general[7], words + 8 * u64::from(vcpu.0), "{gate}: RDI");
        assert_eq!(registers.efer & 0x500, 0x500, "{gate}: EFER says long mode");
        assert!(found.tsc != 0 && found.idtr_base != 0 && registers.gdtr_base != 0, "{gate}: {found:?}");
        let space = Space { vcpu, cr3: Some(registers.control[2]) };
        assert_eq!(toolstack.translate(space, Gla(out)).unwrap(), symbols.find("endless_out").unwrap().gpa);
        assert!(toolstack.translate(own(vcpu.0), Gla(0x4000_0000_0000)).is_err(), "{gate}: nothing is mapped there");
        refused(toolstack, vcpu, &found);
        let mut new = found;
        new.registers.rip = out;
        new.registers.general[8] = 0x1234_0000 + u64::from(vcpu.0);
        new.registers.rflags = found.registers.rflags & !COMPUTED | 0x8d5 & COMPUTED;
        new.registers.lstar = 0xffff_8000_0000_1000;
        new.cstar = 0x77;
        new.registers.debug[0] = 0xffff_0ff1;
        toolstack.set_registers(vcpu, &new).unwrap();
        let is = toolstack.registers(vcpu).unwrap().unwrap();
        assert_eq!(Context { tsc: 0, ..is }, Context { tsc: 0, ..new }, "{gate}");
    }
}

/// What cannot be set is refused by name, and nothing of it is set.
fn refused(toolstack: &mut Client, vcpu: VcpuId, found: &Context) {
    let mut wrong = *found;
    wrong.registers.rip = 0;
    wrong.registers.segments[0].selector = 0x33;
    let why = toolstack.set_registers(vcpu, &wrong).unwrap_err().to_string();
    assert!(why.contains("a segment register cannot be set"), "{why}");
    let is = toolstack.registers(vcpu).unwrap().unwrap();
    assert_eq!(is.registers, found.registers);
}

#[test]
fn of_a_vcpu_that_waits_all_registers_are_known_and_those_that_are_set_count_when_it_goes_on() {
    gates().into_iter().for_each(waits_and_is_set);
}

fn waits_and_is_set(gate: Gate) {
    let mut scenario = Scenario::bare("registers");
    scenario.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine_under(gate, scenario);
    let mut toolstack = connect(&folder);
    toolstack.values(&Call::Subscribe).unwrap();
    let settings = RingSettings { layout: Layout::VmEvent7, ..RingSettings::default() };
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, settings).unwrap();
    qemu.qmp.execute("cont").unwrap();
    for round in 0..3 {
        let stop = next_checkpoint(&mut toolstack);
        let [page, touch, flags] = stop.arguments;
        assert_eq!(stop.number, 1);
        let at_checkpoint = toolstack.registers(VcpuId(0)).unwrap().unwrap();
        assert!(at_checkpoint.registers.rip != touch);
        toolstack.set_access(Gfn(page >> 12), AccessType::N).unwrap();
        toolstack.values(&Call::Release { vcpu: stop.vcpu }).unwrap();
        let request = next_request(&mut channel);
        let found = toolstack.registers(VcpuId(0)).unwrap().unwrap();
        assert_eq!((found.registers.rip, found.registers.rflags & COMPUTED), (touch, flags), "{gate}: round {round}");
        assert_eq!(found.registers.general[8], 0x8888_8888_8888_8888, "{gate}: round {round}");
        // The instruction is done for it: it goes on behind it, and has not touched the page.
        let next = touch + if round == 2 { 2 } else { 3 };
        let mut new = found;
        new.registers.rip = next;
        toolstack.set_registers(VcpuId(0), &new).unwrap();
        let is = toolstack.registers(VcpuId(0)).unwrap().unwrap();
        assert_eq!(is.registers.rip, next, "{gate}: what it goes on with");
        if round == 2 {
            toolstack.write_linear(own(0), Gla(page), &1u32.to_le_bytes()).unwrap();
            toolstack.set_access(Gfn(page >> 12), AccessType::Rwx).unwrap();
        }
        answer(&mut channel, &request);
    }
    wait_for("the guest's end", &qemu);
    assert!(channel.take().is_none(), "{gate}: no access was made");
    assert!(
        qemu.console().contains("verdict: success"),
        "{gate}: {} {:?}",
        qemu.console(),
        job.symbols().find("WATCHED")
    );
}

#[test]
fn a_vcpu_that_is_only_paused_gets_what_is_injected_and_a_halted_one_is_woken_by_it() {
    gates().into_iter().for_each(paused_and_injected);
}

/// What the handler of the guest `endless` has noted: how often it ran, vector, error code, CR2, address.
fn met(toolstack: &mut Client, symbols: &Symbols) -> [u64; 5] {
    let gpa = symbols.find("MET").unwrap().gpa;
    let bytes = toolstack.read(gpa.gfn(), gpa.offset(), 40).unwrap();
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|word| u64::from_le_bytes(words[word]))
}

fn paused_and_injected(gate: Gate) {
    const SLEEPER: VcpuId = VcpuId(2);
    let (qemu, _folder, job, mut toolstack, words) = looping(gate, (3, Thread::Multi));
    let symbols = job.symbols();
    let inject = |vcpu, vector, error, cr2| Control::Inject { vcpu, vector, kind: TrapKind::Exception, error, cr2 };
    let fault = inject(VcpuId(1), 14, 2, 0xdead_1231_0000);
    assert_eq!(toolstack.control(fault.clone()).unwrap().unwrap_err().0, Errno::EAGAIN, "{gate}: it runs");
    let (inside, out) = (address(&symbols, "endless_loop"), address(&symbols, "endless_out"));
    for round in 1..=20 {
        toolstack.pause().unwrap();
        toolstack.control(fault.clone()).unwrap().unwrap();
        let (errno, why) = toolstack.control(fault.clone()).unwrap().unwrap_err();
        assert_eq!(errno, Errno::EBUSY, "{gate}: one is due already: {why}");
        let at = toolstack.registers(VcpuId(1)).unwrap().unwrap().registers.rip;
        toolstack.unpause().unwrap();
        while met(&mut toolstack, &symbols)[0] < round {
            hold(&qemu);
        }
        assert_eq!(met(&mut toolstack, &symbols), [round, 14, 2, 0xdead_1231_0000, at], "{gate}: before what was next");
        assert!((inside..out).contains(&at), "{gate}");
    }
    // One that sleeps.
    let slept = |toolstack: &mut Client| toolstack.read_linear(own(0), Gla(words + 16), 8).unwrap();
    let before = slept(&mut toolstack);
    hold(&qemu);
    toolstack.pause().unwrap();
    assert_eq!(slept(&mut toolstack), before, "{gate}: nothing woke it");
    toolstack.control(inject(SLEEPER, 6, u32::MAX, 0)).unwrap().unwrap();
    toolstack.unpause().unwrap();
    while slept(&mut toolstack) == before {
        hold(&qemu);
    }
    assert_eq!(met(&mut toolstack, &symbols)[..2], [21, 6], "{gate}");
}
