//! Linux boots while its vCPUs, that wait in the kernel for answers, leave their blocks again and again, and the monitor stops the machine meanwhile,
//! saves and loads its state, and resets it.
//!
//! `MEM_EVENT_TOUCHES` says how many touches are held back while the pages stay closed, so that each of these is let through alone (`ci/leaves-linux`).

use crate::support::domain::how_often;
use crate::support::{Random, kernel_maps_write_protected};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::machine::qmp::Qmp;
use harness::run::Job;
use harness::scenario::{Thread, corpus};
use mem_event::{AccessType, Flags, Gfn, Request, Ring};
use mem_event_client::{Channel, Client, RingSettings};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};
use serde_json::json;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Frames that are watched for reads and writes, and the first that may be.
const FRAMES: usize = 400;
const FIRST: u64 = 16 << 8;
/// Longer than a vCPU stays in its block where it may leave.
const HOLD: Duration = Duration::from_millis(7);
/// Between two stops of the machine.
const BETWEEN: Duration = Duration::from_millis(50);
/// Of the stops, the first after which the state is saved and loaded, and the machine is reset; again after so many more.
const SAVED: u64 = 4;
const RESET: u64 = 8;
const AGAIN: u64 = 500;
/// Only the limit of what can be called a hang.
const SILENCE: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };

#[test]
fn linux_boots_while_its_vcpus_leave_the_kernel_and_the_monitor_stops_it() {
    if !kernel_maps_write_protected() {
        return;
    }
    for (vcpus, thread) in [(1, Thread::Multi), (4, Thread::Multi), (4, Thread::Single)] {
        let mut scenario = corpus::linux();
        scenario.machine.vcpus = vcpus;
        scenario.machine.thread = thread;
        scenario.consumers.listener.get_or_insert_default();
        let end = scenario.machine.memory.0 >> 12;
        scenario.machine.args = ["-action", "reboot=reset"].map(str::to_owned).to_vec();
        let own = RunFolder::create().unwrap();
        // A drive of no device, on which QEMU makes a temporary image that takes snapshots.
        File::create(own.file("state")).unwrap().set_len(1 << 20).unwrap();
        let drive = format!("if=none,id=state,format=raw,snapshot=on,file={}", own.file("state").display());
        scenario.machine.args.extend(["-drive".to_owned(), drive]);
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = Gate::Mmu;
        job.linux_works = false;
        let folder = RunFolder::create().unwrap();
        let mut qemu = job.machine().unwrap().start(&folder).unwrap();
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
        let mut random = Random(u64::from(vcpus));
        let frames: Vec<Gfn> = (0..FRAMES).map(|_| Gfn(FIRST + random.below(end - FIRST))).collect();
        for gfn in &frames {
            toolstack.set_access(*gfn, AccessType::X).unwrap();
        }
        let mut other = Client::connect(&folder.file("socket")).unwrap();
        qemu.qmp.execute("cont").unwrap();
        let pid = Pid::from_raw(i32::try_from(qemu.pid()).unwrap()).unwrap();
        let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let (events, stops) = std::thread::scope(|scope| {
            // A thread of its own: what cannot leave has `stop` wait for the answer.
            let close = || frames.iter().try_for_each(|gfn| other.set_access(*gfn, AccessType::X));
            let is_whole = vcpus > 1;
            let (monitor, ended) = (&mut qemu.qmp, &ended);
            let stops = scope.spawn(move || stop_and_continue(monitor, ended, is_whole, close));
            let events = answer_late(&mut channel, &mut toolstack, ended);
            (events, stops.join().unwrap())
        });
        let said = qemu.errors();
        let console = qemu.console();
        assert!(console.contains("verdict: success: booted"), "{vcpus} vCPUs, {thread:?}: {console}\n{said}");
        let line =
            said.lines().find(|line| line.contains("times to leave the kernel")).unwrap_or_else(|| panic!("{said}"));
        let times: u64 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        eprintln!("{vcpus} vCPUs, {thread:?}: {events} events, {stops} stops; {line}");
        let held = how_often("MEM_EVENT_TOUCHES", 20);
        assert!(events > held && stops > 5 && times > held / 2, "{events} events, {stops} stops; {line}");
    }
}

/// Answers each touch some time later: lets it through alone, and from so many on gives its page all rights; how many there were until QEMU ended.
fn answer_late(channel: &mut Channel, toolstack: &mut Client, ended: &OwnedFd) -> u64 {
    let alone = how_often("MEM_EVENT_TOUCHES", 20);
    let mut events = 0;
    loop {
        let mut ready = [PollFd::new(&*channel, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        assert_ne!(poll(&mut ready, Some(&SILENCE)), Ok(0), "the guest stands after {events} events");
        if !ready[1].revents().is_empty() {
            return events;
        }
        channel.clear_signal();
        harness::poll::readable(ended, Instant::now() + HOLD).unwrap();
        while let Some(request) = channel.take() {
            events += 1;
            let answer = if events <= alone && !request.flags.contains(Flags::FOREIGN) {
                request.answer().with(Flags::EMULATE)
            } else if opens(toolstack, &request) {
                request.answer()
            } else {
                return events;
            };
            channel.answer(&answer);
            let _ = channel.kick();
        }
    }
}

/// Whether QEMU is still there.
fn opens(toolstack: &mut Client, request: &Request) -> bool {
    toolstack.set_access(request.frame().unwrap(), AccessType::Rwx).is_ok()
}

/// Stops the machine and has it go on until it ends; how often. Now and then its state is saved and loaded, for which QEMU itself reads all pages, so
/// that they are closed anew; or it is reset.
fn stop_and_continue(
    monitor: &mut Qmp,
    ended: &OwnedFd,
    is_whole: bool,
    mut close: impl FnMut() -> anyhow::Result<()>,
) -> u64 {
    let mut stops = 0;
    while !harness::poll::readable(ended, Instant::now() + BETWEEN).unwrap() {
        let mut execute = |command: &str| monitor.execute(command).is_ok();
        if !execute("stop") || !execute("cont") {
            break;
        }
        stops += 1;
        let mut asks = |line: &str| {
            let said = monitor.execute_with("human-monitor-command", &json!({ "command-line": line }));
            said.is_ok_and(|said| said.as_str() == Some(""))
        };
        if is_whole && stops % AGAIN == SAVED && !(asks("savevm one") && asks("loadvm one") && close().is_ok()) {
            break;
        }
        if is_whole && stops % AGAIN == RESET && monitor.execute("system_reset").is_err() {
            break;
        }
    }
    stops
}
