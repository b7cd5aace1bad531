//! What a consumer writes is what runs: over code that ran before, in a block that a vCPU stands in, in a frame that comes back with
//! another content. And no more is translated anew for it than what was overwritten.

use crate::support::{answer, gates, next_request, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::Scenario;
use mem_event::message::{Call, Notice};
use mem_event::{AccessType, Control, Gfn, PAGE_SIZE, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};

/// A number that the guest's functions did not return before.
const NEW: u64 = 0x2222_2222_2222_2222;
/// `movabs rax, …` has two bytes before its number.
const NUMBER_AT: u16 = 2;
/// Where the number of the third function lies, behind a read of 8 bytes' length.
const THIRDS_NUMBER_AT: u16 = 0x200 + 8 + NUMBER_AT;
/// A frame that nobody touches. While it is watched, memory instructions are checked.
const ASIDE: Gfn = Gfn(0x3000);

/// The guest `overwritten` and who overwrites it.
struct Overwritten {
    qemu: Qemu,
    _folder: RunFolder,
    job: Job,
    toolstack: Client,
    access: Channel,
    paging: Channel,
}

impl Overwritten {
    fn start(gate: Gate) -> Overwritten {
        let mut scenario = Scenario::bare("overwritten");
        scenario.consumers.listener.get_or_insert_default();
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = gate;
        let folder = RunFolder::create().unwrap();
        let mut qemu = job.machine().unwrap().start(&folder).unwrap();
        let socket = folder.file("socket");
        let mut toolstack = Client::connect(&socket).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let [access, paging] =
            [Ring::Access, Ring::Paging].map(|ring| Channel::enable(&socket, ring, RingSettings::default()).unwrap());
        qemu.qmp.execute("cont").unwrap();
        Overwritten { qemu, _folder: folder, job, toolstack, access, paging }
    }

    fn frame(&self, symbol: &str) -> Gfn {
        self.job.symbols().find(symbol).unwrap().gpa.gfn()
    }

    fn write(&mut self, symbol: &str, offset: u16, value: u64) {
        let gfn = self.frame(symbol);
        self.toolstack.values(&Call::WriteFrame { gfn, offset, bytes: value.to_le_bytes().into() }).unwrap();
    }

    /// The guest stands at a checkpoint.
    fn comes_to(&mut self, wanted: u64) {
        loop {
            match self.toolstack.notice().unwrap() {
                Some(Notice::Checkpoint { number, .. }) if number == wanted => return,
                Some(Notice::Checkpoint { .. }) => self.goes_on(),
                _ => wait_for("a checkpoint", &self.toolstack),
            }
        }
    }

    fn goes_on(&mut self) {
        self.toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    }

    /// The guest goes on from a checkpoint to its end, which is a good one; what the plugin says.
    fn ends_well(mut self) -> String {
        self.goes_on();
        self.comes_to(4);
        self.toolstack.send(&Call::Release { vcpu: VcpuId(0) }).unwrap();
        wait_for("the guest's end", &self.qemu);
        self.qemu.wait().unwrap();
        let console = self.qemu.console();
        assert!(console.contains("verdict: success"), "{console}\n{}", self.qemu.errors());
        self.qemu.errors()
    }
}

#[test]
fn code_that_was_overwritten_runs_as_it_was_written_under_both_gates() {
    for gate in gates() {
        let mut guest = Overwritten::start(gate);
        guest.comes_to(1);
        guest.write("CODE", NUMBER_AT, NEW);
        guest.write("DUE", 0, NEW);
        guest.goes_on();
        guest.comes_to(3);
        guest.write("CODE", THIRDS_NUMBER_AT, NEW);
        guest.ends_well();
    }
}

/// A vCPU that was checked before its access stands in the old block, and leaves it.
#[test]
fn the_rest_of_a_block_is_fetched_anew_when_it_was_overwritten_before_the_answer() {
    let mut guest = Overwritten::start(Gate::Callback);
    guest.comes_to(3);
    let data = guest.frame("DATA");
    guest.toolstack.set_access(data, AccessType::N).unwrap();
    guest.goes_on();
    let request = next_request(&mut guest.access);
    guest.write("CODE", THIRDS_NUMBER_AT, NEW);
    guest.write("DUE", 0, NEW);
    guest.toolstack.set_access(data, AccessType::Rwx).unwrap();
    answer(&mut guest.access, &request);
    guest.comes_to(4);
    guest.toolstack.send(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    wait_for("the guest's end", &guest.qemu);
    assert!(guest.qemu.console().contains("verdict: success"), "{}", guest.qemu.console());
}

/// By a call, and handed over in shared memory.
#[test]
fn code_that_comes_back_with_another_content_runs_as_it_came_under_both_gates() {
    for (gate, handed_over) in gates().into_iter().flat_map(|gate| [(gate, false), (gate, true)]) {
        let mut guest = Overwritten::start(gate);
        guest.comes_to(1);
        let gfn = guest.frame("CODE");
        guest.paging.client.control(Control::Nominate { gfn }).unwrap().unwrap();
        let content = guest.paging.client.read(gfn, 0, u16::try_from(PAGE_SIZE).unwrap()).unwrap();
        let mut content: [u8; PAGE_SIZE] = content.try_into().unwrap();
        guest.paging.client.control(Control::Evict { gfn }).unwrap().unwrap();
        for at in [NUMBER_AT, THIRDS_NUMBER_AT].map(usize::from) {
            content[at..at + 8].copy_from_slice(&NEW.to_le_bytes());
        }
        guest.write("DUE", 0, NEW);
        if handed_over {
            guest.paging.load(gfn, &content).unwrap();
            guest.paging.client.info().unwrap();
        } else {
            guest.paging.client.values(&Call::Load { gfn, content: content.into() }).unwrap();
        }
        guest.ends_well();
    }
}

/// The counts that the plugin gives in the end: changes, and blocks that were translated.
fn counts(said: &str) -> [u64; 2] {
    let line = said.lines().find(|line| line.contains("consumers changed bytes")).expect("a count");
    let numbers: Vec<u64> = line.split(' ').filter_map(|word| word.parse().ok()).collect();
    numbers.try_into().unwrap()
}

#[test]
fn a_thousand_overwrites_translate_little_but_what_was_overwritten() {
    const ROUNDS: u64 = 1000;
    let mut guest = Overwritten::start(Gate::Callback);
    guest.comes_to(1);
    guest.toolstack.set_access(ASIDE, AccessType::N).unwrap();
    guest.write("MORE", 0, ROUNDS);
    for round in 0..ROUNDS {
        guest.write("CODE", NUMBER_AT, round);
        guest.write("DUE", 0, round);
        guest.goes_on();
        if round + 1 < ROUNDS {
            guest.comes_to(1);
        }
    }
    guest.comes_to(3);
    guest.write("DUE", 0, 0x1111_1111_1111_1111);
    let [changes, translations] = counts(&guest.ends_well());
    println!("{changes} changes, {translations} translations");
    assert_eq!(changes, 2 * ROUNDS + 2);
    // The overwritten block itself, and whatever the guest runs for the first time. A round runs some thirty blocks.
    assert!((ROUNDS..5 * ROUNDS).contains(&translations), "{translations} translations");
}

/// A pager that brings frames back as they were costs no translation.
#[test]
fn code_that_comes_back_as_it_was_is_not_translated_anew() {
    let mut guest = Overwritten::start(Gate::Callback);
    guest.comes_to(1);
    let gfn = guest.frame("CODE");
    guest.paging.client.control(Control::Nominate { gfn }).unwrap().unwrap();
    let content = guest.paging.client.read(gfn, 0, u16::try_from(PAGE_SIZE).unwrap()).unwrap();
    guest.paging.client.control(Control::Evict { gfn }).unwrap().unwrap();
    guest.paging.client.values(&Call::Load { gfn, content: content.into() }).unwrap();
    let said = guest.ends_well();
    assert!(!said.contains("consumers changed bytes"), "{said}");
}
