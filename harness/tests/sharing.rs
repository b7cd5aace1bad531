//! Frames that show one page, on a real guest: what is read is what a machine without sharing would hold, and what the host gives
//! is what the sharing says.
//!
//! `MEM_EVENT_SHARING_ROUNDS` says how many rounds the random test has, and `MEM_EVENT_SHARING_LIMIT` lets frames be shared until the
//! host allows no more mappings; `ci/soak` does both.

#![allow(clippy::cast_possible_truncation, reason = "numbers of a few pages and words")]

use crate::support::{Random, kernel_maps_write_protected, replays, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::machine::resident;
use harness::run::Job;
use harness::scenario::Scenario;
use harness::verdict::{Kind, Verdict};
use mem_event::message::{Call, Notice, Reply};
use mem_event::{Control, Errno, Gfn, VcpuId};
use mem_event_client::Client;
use std::fs::File;
use std::os::unix::fs::FileExt;

const ROUNDS: u64 = 40;
const PAGES: u64 = 16;
const PAGE: u64 = 4096;
/// The order to reset the machine.
const RESET: u64 = 2;

/// The `orders` guest at its checkpoint.
struct Machine {
    qemu: Qemu,
    folder: RunFolder,
    toolstack: Client,
    pages: Gfn,
    orders: Gfn,
}

/// A read or a write of the guest, as its page of orders has it.
#[derive(Clone, Copy, Debug)]
struct Order {
    offset: u64,
    write: Option<u64>,
}

type Answer = Result<(), (Errno, String)>;

impl Machine {
    fn start(gate: Gate, memory: &str) -> Machine {
        // A reset is one, and not the end.
        let args = "args = [\"-action\", \"reboot=reset\"]";
        let machine = format!("guest = \"orders\"\nmemory = \"{memory}\"\n{args}");
        let text = format!("version = 1\nabout = \"x\"\n[machine]\n{machine}\n");
        let scenario = Scenario::parse(std::path::Path::new("orders.toml"), text).unwrap();
        let folder = RunFolder::create().unwrap();
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = gate;
        job.plugin = vec!["foreign=map".into()];
        job.trace = Some(folder.file("trace"));
        let qemu = job.machine().unwrap().start(&folder).unwrap();
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let frame = |name: &str| job.symbols().find(name).unwrap().gpa.gfn();
        let mut machine = Machine { qemu, folder, toolstack, pages: frame("PAGES"), orders: frame("ORDERS") };
        machine.qemu.qmp.execute("cont").unwrap();
        machine.hear();
        machine
    }

    /// Waits for the next checkpoint.
    fn hear(&mut self) {
        // One that came before the reply to a call is here already.
        while !matches!(self.toolstack.notice().unwrap(), Some(Notice::Checkpoint { .. })) {
            assert!(!self.toolstack.has_ended(), "QEMU has ended: {}", self.qemu.errors());
            wait_for("the checkpoint", &self.toolstack);
        }
    }

    fn page(&self, number: u64) -> Gfn {
        Gfn(self.pages.0 + number)
    }

    /// Lets the guest do these; what its reads found, and 0 for writes.
    fn order(&mut self, orders: &[Order]) -> Vec<u64> {
        let words = |order: &Order| [order.offset | u64::from(order.write.is_some()), order.write.unwrap_or(0)];
        self.hand_over(orders.iter().map(words).collect());
        let bytes = self.toolstack.read(self.orders, 0, 4096).unwrap();
        let words: Vec<u64> = bytes.as_chunks().0.iter().copied().map(u64::from_le_bytes).collect();
        orders.iter().zip(words[2..].chunks(2)).map(|(order, pair)| order.write.map_or(pair[1], |_| 0)).collect()
    }

    /// Lets the guest do what these pairs of words say, and waits for its next checkpoint.
    fn hand_over(&mut self, orders: Vec<[u64; 2]>) {
        let all = [orders.len() as u64, 0].into_iter().chain(orders.into_iter().flatten());
        let bytes = all.flat_map(u64::to_le_bytes).collect();
        self.toolstack.values(&Call::WriteFrame { gfn: self.orders, offset: 0, bytes }).unwrap();
        self.toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
        self.hear();
    }

    fn write(&mut self, page: u64, offset: u64, value: u64) -> Answer {
        let bytes = value.to_le_bytes().to_vec();
        let call = Call::WriteFrame { gfn: self.page(page), offset: offset.try_into().unwrap(), bytes };
        match self.toolstack.call(&call).unwrap() {
            Reply::Refused(errno, why) => Err((errno, why)),
            _ => Ok(()),
        }
    }

    fn share(&mut self, source: Gfn, client: Gfn) -> Answer {
        let source_handle = self.toolstack.control(Control::NominateShare { gfn: source }).unwrap()?;
        let client_handle = self.toolstack.control(Control::NominateShare { gfn: client }).unwrap()?;
        self.toolstack.control(Control::Share { source, source_handle, client, client_handle }).unwrap().map(drop)
    }

    /// Pages that the host gives the guest.
    fn held(&self) -> u64 {
        resident::held(self.qemu.pid()).unwrap() / PAGE
    }

    /// The guest ends with success, and the trace replays.
    fn end(mut self) {
        // QEMU may be gone before it has replied.
        self.toolstack.send(&Call::Release { vcpu: VcpuId(0) }).unwrap();
        wait_for("the guest's end", &self.qemu);
        self.qemu.wait().unwrap();
        let verdict = Verdict::on_console(&self.qemu.console()).expect("a verdict");
        assert_eq!(verdict.kind, Kind::Success, "{verdict} {}", self.qemu.errors());
        replays(&self.folder.file("trace"));
    }
}

/// What the pages hold and who shares with whom, plainly.
struct Model {
    /// `None` where a page was ballooned out and not touched since. The words at two offsets; the others are 0.
    words: Vec<Option<[u64; 2]>>,
    groups: Vec<u64>,
    next: u64,
}

const OFFSETS: [u64; 2] = [0, 0xff8];

impl Model {
    fn new() -> Model {
        Model { words: vec![Some([0; 2]); PAGES as usize], groups: (0..PAGES).collect(), next: PAGES }
    }

    fn touch(&mut self, page: u64, which: usize, write: Option<u64>) -> u64 {
        let words = self.words[page as usize].get_or_insert_default();
        let found = words[which];
        if let Some(value) = write {
            words[which] = value;
            self.leave(page);
        }
        found
    }

    fn leave(&mut self, page: u64) {
        self.groups[page as usize] = self.next;
        self.next += 1;
    }

    fn balloon(&mut self, page: u64) {
        self.words[page as usize] = None;
        self.leave(page);
    }

    fn share(&mut self, source: u64, client: u64) -> Result<(), Errno> {
        let [from, to] = [source, client].map(|page| self.words[page as usize]);
        let (group, own) = (self.groups[source as usize], self.groups[client as usize]);
        if from.is_none() || from != to || group == own {
            return Err(Errno::EINVAL);
        }
        if self.groups.iter().filter(|other| **other == own).count() > 1 {
            return Err(Errno::EBUSY);
        }
        self.groups[client as usize] = group;
        Ok(())
    }

    /// Pages of the host behind these.
    fn held(&self) -> u64 {
        let groups = self.groups.iter().zip(&self.words).filter(|(_, words)| words.is_some());
        groups.map(|(group, _)| group).collect::<std::collections::BTreeSet<_>>().len() as u64
    }
}

/// Shares, ballooning and a mapper's writes between the guest's own reads and writes, all at random.
fn random_sequences_hold_what_the_model_holds(gate: Gate, seed: u64) {
    let rounds = std::env::var("MEM_EVENT_SHARING_ROUNDS").map_or(ROUNDS, |text| text.parse().unwrap());
    let mut random = Random(seed);
    let mut machine = Machine::start(gate, "64M");
    let mut model = Model::new();
    let (mut shared, mut base) = (0, None);
    for round in 0..rounds {
        for _ in 0..random.below(12) {
            shared += u64::from(disturb(&mut machine, &mut model, &mut random));
        }
        let orders: Vec<(u64, usize, Option<u64>)> = (0..1 + random.below(20))
            .map(|_| {
                let write = (random.below(3) == 0).then(|| random.below(2));
                (random.below(PAGES), random.below(2) as usize, write)
            })
            .collect();
        let told = |(page, which, write): &(u64, usize, Option<u64>)| Order {
            offset: page * PAGE + OFFSETS[*which],
            write: *write,
        };
        let found = machine.order(&orders.iter().map(told).collect::<Vec<_>>());
        for ((page, which, write), found) in orders.into_iter().zip(found) {
            let due = model.touch(page, which, write);
            assert!(
                write.is_some() || found == due,
                "seed {seed}, round {round}: page {page} read as {found:#x}, not {due:#x}"
            );
        }
        compare(&mut machine, &model, &format!("seed {seed}, round {round}"));
        // What the guest needs for itself it has touched in the first round.
        let others = machine.held() - model.held();
        assert_eq!(*base.get_or_insert(others), others, "seed {seed}, round {round}: pages of the host");
    }
    assert!(shared > rounds / 2, "only {shared} frames were shared in {rounds} rounds");
    machine.end();
}

/// One thing that a toolstack or a mapper does; whether frames were shared.
fn disturb(machine: &mut Machine, model: &mut Model, random: &mut Random) -> bool {
    let (one, other, which) = (random.below(PAGES), random.below(PAGES), random.below(2) as usize);
    match random.below(12) {
        0 => {
            let dropped = machine.toolstack.control(Control::Drop { gfn: machine.page(one) }).unwrap();
            assert_eq!(dropped.is_ok(), model.words[one as usize].is_some(), "{dropped:?}");
            model.balloon(one);
            false
        }
        1 | 2 => {
            let value = random.below(2);
            let written = machine.write(one, OFFSETS[which], value);
            assert_eq!(written.is_ok(), model.words[one as usize].is_some(), "{written:?}");
            if written.is_ok() {
                model.touch(one, which, Some(value));
            }
            false
        }
        _ => {
            let answer = machine.share(machine.page(one), machine.page(other));
            let due = model.share(one, other);
            assert_eq!(
                answer.as_ref().map_err(|(errno, _)| *errno),
                due.as_ref().map_err(|errno| *errno),
                "{answer:?}"
            );
            answer.is_ok()
        }
    }
}

fn compare(machine: &mut Machine, model: &Model, when: &str) {
    for (number, words) in (0..).zip(&model.words) {
        let call = Call::ReadFrame { gfn: machine.page(number), offset: 0, len: 4096 };
        match (machine.toolstack.call(&call).unwrap(), words) {
            (Reply::Refused(errno, _), None) => assert_eq!(errno, Errno::ENOENT),
            (Reply::Bytes(bytes), Some(words)) => {
                let mut due = vec![0; 4096];
                for (offset, word) in OFFSETS.iter().zip(words) {
                    due[*offset as usize..][..8].copy_from_slice(&word.to_le_bytes());
                }
                assert!(bytes == due, "{when}: page {number} does not hold {words:x?}");
            }
            (reply, words) => panic!("{when}: page {number}: {reply:?} where {words:x?} is due"),
        }
    }
}

#[test]
fn random_sequences_under_the_callback() {
    if kernel_maps_write_protected() {
        (0..2).for_each(|seed| random_sequences_hold_what_the_model_holds(Gate::Callback, seed));
    }
}

#[test]
fn random_sequences_under_the_hosts_mmu() {
    if kernel_maps_write_protected() {
        (2..4).for_each(|seed| random_sequences_hold_what_the_model_holds(Gate::Mmu, seed));
    }
}

#[test]
fn a_share_gives_one_page_to_the_host_and_a_write_takes_one() {
    if !kernel_maps_write_protected() {
        return;
    }
    let mut machine = Machine::start(Gate::Callback, "64M");
    machine.order(&[Order { offset: 0, write: None }]);
    let before = machine.held();
    for (number, client) in (1..).zip([3, 5, 7]) {
        machine.share(machine.page(1), machine.page(client)).unwrap();
        assert_eq!(machine.held(), before - number);
    }
    let read = |page| Order { offset: page * PAGE, write: None };
    let write = |page, value| Order { offset: page * PAGE, write: Some(value) };
    machine.order(&[read(1), read(3), read(5), read(7)]);
    assert_eq!(machine.held(), before - 3, "reads take none");
    machine.order(&[write(1, 1)]);
    assert_eq!(machine.held(), before - 2, "whose page it was has it to itself, and another keeps theirs");
    machine.order(&[write(7, 7)]);
    assert_eq!(machine.held(), before - 1);
    assert_eq!(machine.order(&[read(1), read(3), read(5), read(7)]), [1, 0, 0, 7]);
    machine.order(&[write(3, 3)]);
    assert_eq!(machine.held(), before);
    machine.order(&[write(5, 5)]);
    assert_eq!(machine.held(), before, "the last one needs none");
    assert_eq!(machine.order(&[read(1), read(3), read(5), read(7)]), [1, 3, 5, 7]);
    machine.end();
}

fn a_mapping_gives_a_shared_frame_a_page_of_its_own(gate: Gate) {
    let mut machine = Machine::start(gate, "64M");
    for client in [3, 5, 7] {
        machine.share(machine.page(1), machine.page(client)).unwrap();
    }
    let memory = File::from(machine.toolstack.memory(false).unwrap().unwrap());
    // One that borrows the page, and the one whose page it is.
    for (page, value) in [(3, 33_u64), (1, 11)] {
        let gfn = machine.page(page);
        let (offset, beyond) = machine.toolstack.map(gfn, true).unwrap().unwrap();
        assert!(!beyond);
        assert_eq!(machine.toolstack.control(Control::NominateShare { gfn }).unwrap().unwrap_err().0, Errno::EBUSY);
        memory.write_all_at(&value.to_le_bytes(), offset).unwrap();
        machine.toolstack.control(Control::Unpin { gfn }).unwrap().unwrap();
    }
    let read = |page| Order { offset: page * PAGE, write: None };
    assert_eq!(machine.order(&[read(1), read(3), read(5), read(7)]), [11, 33, 0, 0]);
    // These two share still, and what is written by one's mapping is not the other's.
    let (offset, _) = machine.toolstack.map(machine.page(5), true).unwrap().unwrap();
    machine.order(&[Order { offset: 7 * PAGE, write: Some(77) }]);
    memory.write_all_at(&55_u64.to_le_bytes(), offset).unwrap();
    assert_eq!(machine.order(&[read(5), read(7)]), [55, 77]);
    machine.toolstack.control(Control::Unpin { gfn: machine.page(5) }).unwrap().unwrap();
    machine.end();
}

#[test]
fn a_mapping_gives_a_shared_frame_a_page_of_its_own_under_the_callback() {
    a_mapping_gives_a_shared_frame_a_page_of_its_own(Gate::Callback);
}

#[test]
fn a_mapping_gives_a_shared_frame_a_page_of_its_own_under_the_hosts_mmu() {
    if kernel_maps_write_protected() {
        a_mapping_gives_a_shared_frame_a_page_of_its_own(Gate::Mmu);
    }
}

#[test]
fn a_mapping_of_a_shared_frame_that_no_page_is_left_for_is_refused_and_holds_nothing() {
    let mut machine = Machine::start(Gate::Callback, "64M");
    machine.share(machine.page(1), machine.page(3)).unwrap();
    machine.toolstack.control(Control::SetBudget { frames: 0 }).unwrap().unwrap();
    let gfn = machine.page(3);
    assert_eq!(machine.toolstack.map(gfn, true).unwrap().unwrap_err().0, Errno::ENOMEM);
    assert_eq!(machine.toolstack.control(Control::Unpin { gfn }).unwrap().unwrap_err().0, Errno::EINVAL);
    machine.toolstack.control(Control::SetBudget { frames: u64::MAX }).unwrap().unwrap();
    machine.toolstack.map(gfn, true).unwrap().unwrap();
    machine.end();
}

#[test]
fn a_reset_while_frames_are_shared_finds_a_guest_that_works() {
    if !kernel_maps_write_protected() {
        return;
    }
    let mut machine = Machine::start(Gate::Callback, "64M");
    (1..PAGES).for_each(|client| machine.share(machine.page(0), machine.page(client)).unwrap());
    machine.hand_over(vec![[RESET, 0]]);
    let orders: Vec<_> = (0..PAGES).map(|page| Order { offset: page * PAGE, write: Some(page) }).collect();
    machine.order(&orders);
    let orders: Vec<_> = (0..PAGES).map(|page| Order { offset: page * PAGE, write: None }).collect();
    assert_eq!(machine.order(&orders), (0..PAGES).collect::<Vec<_>>());
    (1..PAGES).for_each(|client| {
        assert_eq!(machine.share(machine.page(0), machine.page(client)).unwrap_err().0, Errno::EINVAL)
    });
    machine.end();
}

#[test]
fn the_power_goes_off_while_frames_are_shared() {
    if !kernel_maps_write_protected() {
        return;
    }
    let mut machine = Machine::start(Gate::Callback, "64M");
    (1..PAGES).for_each(|client| machine.share(machine.page(0), machine.page(client)).unwrap());
    machine.qemu.qmp.execute("quit").unwrap();
    wait_for("QEMU's end", &machine.qemu);
    machine.qemu.wait().unwrap();
    replays(&machine.folder.file("trace"));
}

/// Every second frame of a big guest shows the first one's page.
#[test]
fn where_the_host_allows_no_more_mappings_a_share_is_refused_and_all_goes_on() {
    if std::env::var_os("MEM_EVENT_SHARING_LIMIT").is_none() {
        println!("not run: MEM_EVENT_SHARING_LIMIT is not set");
        return;
    }
    let mut machine = Machine::start(Gate::Callback, "1G");
    let (first, mut shared) = (0x1000, 0);
    let why = loop {
        match machine.share(Gfn(first), Gfn(first + 2 + 2 * shared)) {
            Ok(()) => shared += 1,
            Err(refused) => break refused,
        }
    };
    println!("{shared} frames shared, then: {}", why.1);
    assert_eq!(why.0, Errno::ENOMEM);
    assert!(why.1.contains("vm.max_map_count"), "{}", why.1);
    let maps = || std::fs::read_to_string(format!("/proc/{}/maps", machine.qemu.pid())).unwrap().lines().count();
    println!("{} mappings", maps());
    for number in 0..shared {
        let gfn = Gfn(first + 2 + 2 * number);
        machine.toolstack.values(&Call::WriteFrame { gfn, offset: 8, bytes: vec![7; 8] }).unwrap();
    }
    println!("{} mappings when all have parted", maps());
    assert!(maps() < 2048, "neighbours are one mapping again");
    machine.end();
}
