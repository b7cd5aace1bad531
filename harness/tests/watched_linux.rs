//! Linux boots and works while all pages of the kernel's text are watched for writes and a thousand others for everything.
//!
//! Where the kernel lies is asked of the kernel: without KASLR it lies where it lay in a boot before, which prints its own line of
//! `/proc/iomem`. The decompressor writes there first; so the watch begins at the first fetch from the first page.

use crate::support::{Random, kernel_maps_write_protected};
use harness::guest::linux::COMMAND_LINE;
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::{Job, run_machine};
use harness::scenario::{Size, Thread, corpus};
use harness::verdict::{Kind, Verdict};
use mem_event::message::Call;
use mem_event::{AccessType, Control, Event, Gfn, Request, Rights, Ring};
use mem_event_client::{Channel, RingSettings};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

/// Random pages that are watched for everything.
const PAGES: usize = 1000;
/// Pages that are open at a time: more than any instruction needs, fewer than the guest uses.
const OPEN: usize = 256;
const MEMORY: u64 = 256 << 20;
/// Only the limit of what can be called a hang.
const SILENCE: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };

/// With how many vCPUs, and how many threads for them.
type Vcpus = (u32, Thread);

fn job(gate: Gate, (vcpus, thread): Vcpus, works: bool) -> Job {
    let mut scenario = corpus::linux();
    (scenario.machine.vcpus, scenario.machine.thread) = (vcpus, thread);
    scenario.machine.memory = Size(MEMORY);
    scenario.consumers.listener.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = gate;
    job.linux_works = works;
    let without = if works { "" } else { harness::guest::linux::WITHOUT_WORK };
    // The last of several counts.
    job.extra = vec!["-append".into(), format!("{COMMAND_LINE} nokaslr {without}").into()];
    job
}

/// The frames that the kernel says hold its code: `  01000000-01e01eb6 : Kernel code`.
fn text_of(console: &str) -> Range<u64> {
    let line = console.lines().find(|line| line.contains("Kernel code")).unwrap_or_else(|| panic!("{console}"));
    let (first, last) = line.split_whitespace().next().unwrap().split_once('-').unwrap();
    let frame = |address: &str| u64::from_str_radix(address, 16).unwrap() >> 12;
    frame(first)..frame(last) + 1
}

/// A listener that opens each page that is asked for, and closes the one that it opened first when too many are open.
struct Listener {
    channel: Channel,
    text: Range<u64>,
    /// What the frames are watched for: the rights that are left.
    watched: HashMap<Gfn, AccessType>,
    open: VecDeque<Gfn>,
    /// Events by what they wanted, on text and elsewhere.
    counts: HashMap<(&'static str, Rights), u64>,
    touched: HashMap<Gfn, u64>,
}

impl Listener {
    fn set(&mut self, first: Gfn, count: u64, access: AccessType) {
        self.channel.client.values(&Call::Control(Control::SetAccess { first, count, access })).unwrap();
    }

    /// The kernel is about to begin: from here on everything is watched.
    fn begin(&mut self) {
        let (first, count) = (Gfn(self.text.start), self.text.end - self.text.start);
        self.set(first, count, AccessType::Rx);
        let text = self.text.clone();
        self.watched.extend(text.map(|gfn| (Gfn(gfn), AccessType::Rx)));
        let mut random = Random(1);
        let text_pages = self.watched.len();
        while self.watched.len() < text_pages + PAGES {
            let gfn = random.below(MEMORY >> 12);
            if !(0xa0..0x100).contains(&gfn) && self.watched.insert(Gfn(gfn), AccessType::N).is_none() {
                self.set(Gfn(gfn), 1, AccessType::N);
            } else if self.text.contains(&gfn) {
                self.watched.insert(Gfn(gfn), AccessType::Rx);
            }
        }
    }

    fn serve(&mut self, request: &Request) {
        let Event::Violation { gfn, rights, .. } = request.event else { panic!("{request:?} is no violation") };
        if self.watched.is_empty() {
            assert_eq!((gfn, rights), (Gfn(self.text.start), Rights::X), "the kernel's first fetch");
            self.begin();
        } else {
            let what = if self.text.contains(&gfn.0) { "text" } else { "others" };
            *self.counts.entry((what, rights)).or_default() += 1;
            *self.touched.entry(gfn).or_default() += 1;
            self.set(gfn, 1, AccessType::Rwx);
            self.open.push_back(gfn);
            if self.open.len() > OPEN {
                let closed = self.open.pop_front().unwrap();
                let access = self.watched[&closed];
                if !self.open.contains(&closed) {
                    self.set(closed, 1, access);
                }
            }
        }
        self.channel.answer(&request.answer());
        self.channel.kick().unwrap();
    }
}

fn linux_works_while_it_is_watched(gate: Gate, vcpus: Vcpus) {
    let before = job(gate, vcpus, false).machine_without_plugin().unwrap();
    let (_, console) = run_machine(&before, Duration::from_secs(120)).unwrap();
    let text = text_of(&console);
    let job = job(gate, vcpus, true);
    let folder = RunFolder::create().unwrap();
    let mut qemu = job.machine().unwrap().start(&folder).unwrap();
    let mut listener = Listener {
        channel: Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap(),
        text: text.clone(),
        watched: HashMap::new(),
        open: VecDeque::new(),
        counts: HashMap::new(),
        touched: HashMap::new(),
    };
    listener.set(Gfn(text.start), 1, AccessType::Rw);
    let begun = std::time::Instant::now();
    qemu.qmp.execute("cont").unwrap();
    loop {
        while let Some(request) = listener.channel.take() {
            listener.serve(&request);
        }
        let mut waited = [PollFd::new(&listener.channel, PollFlags::IN), PollFd::new(&qemu, PollFlags::IN)];
        let ready = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, Some(&SILENCE))).unwrap();
        assert!(ready > 0, "neither an event nor the end comes; the console:\n{}", qemu.console());
        let ended = !waited[1].revents().is_empty();
        listener.channel.clear_signal();
        if ended {
            break;
        }
    }
    let took = begun.elapsed();
    qemu.wait().unwrap();
    let console = qemu.console();
    let verdict = Verdict::on_console(&console).unwrap_or_else(|| panic!("no verdict: {console}"));
    assert_eq!(verdict.kind, Kind::Success, "{verdict}");
    assert!(verdict.reason.contains("checksums right twice"), "{verdict}");
    assert_eq!(text_of(&console), text, "the kernel lay where it was watched");
    println!(
        "{gate}, {vcpus:?}: {} text frames, {:?}, {} frames touched, {took:?}",
        text.end - text.start,
        listener.counts,
        listener.touched.len()
    );
    let on_text = |(gfn, _): &(&Gfn, &u64)| text.contains(&gfn.0);
    // The kernel patches its text, and no access of it wants anything else.
    assert!(listener.touched.iter().filter(on_text).count() > 10, "{:?}", listener.counts);
    assert!(listener.counts.keys().all(|(what, rights)| *what != "text" || rights.contains(Rights::W)));
    assert!(listener.touched.iter().filter(|touched| !on_text(touched)).count() > PAGES / 10, "{:?}", listener.counts);
}

#[test]
fn linux_works_while_its_text_and_a_thousand_pages_are_watched_by_the_callback() {
    linux_works_while_it_is_watched(Gate::Callback, (1, Thread::Multi));
}

#[test]
fn linux_works_on_two_vcpus_of_one_thread_while_it_is_watched_by_the_callback() {
    linux_works_while_it_is_watched(Gate::Callback, (2, Thread::Single));
}

#[test]
fn linux_works_on_two_vcpus_of_one_thread_while_it_is_watched_by_the_hosts_mmu() {
    if kernel_maps_write_protected() {
        linux_works_while_it_is_watched(Gate::Mmu, (2, Thread::Single));
    }
}

#[test]
fn linux_works_while_its_text_and_a_thousand_pages_are_watched_by_the_hosts_mmu() {
    if kernel_maps_write_protected() {
        linux_works_while_it_is_watched(Gate::Mmu, (1, Thread::Multi));
    }
}
