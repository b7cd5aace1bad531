//! Linux boots while its vCPUs, that wait in the kernel for answers, leave their blocks again and again, and the monitor stops the machine meanwhile.

use crate::support::{Random, kernel_maps_write_protected};
use harness::machine::qemu::Gate;
use harness::machine::qmp::Qmp;
use harness::run::Job;
use harness::scenario::corpus;
use mem_event::{AccessType, Gfn, Ring};
use mem_event_client::{Channel, Client, RingSettings};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Frames that are watched for reads and writes, and the first that may be.
const FRAMES: usize = 400;
const FIRST: u64 = 16 << 8;
/// Longer than a vCPU stays in its block where it may leave.
const HOLD: Duration = Duration::from_millis(7);
/// Between two stops of the machine.
const BETWEEN: Duration = Duration::from_millis(50);
/// Only the limit of what can be called a hang.
const SILENCE: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };

#[test]
fn linux_boots_while_its_vcpus_leave_the_kernel_and_the_monitor_stops_it() {
    if !kernel_maps_write_protected() {
        return;
    }
    for vcpus in [1, 4] {
        let mut scenario = corpus::linux();
        scenario.machine.vcpus = vcpus;
        scenario.consumers.listener.get_or_insert_default();
        let end = scenario.machine.memory.0 >> 12;
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = Gate::Mmu;
        job.linux_works = false;
        let folder = harness::machine::folder::RunFolder::create().unwrap();
        let mut qemu = job.machine().unwrap().start(&folder).unwrap();
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
        let mut random = Random(u64::from(vcpus));
        for _ in 0..FRAMES {
            toolstack.set_access(Gfn(FIRST + random.below(end - FIRST)), AccessType::X).unwrap();
        }
        qemu.qmp.execute("cont").unwrap();
        let pid = Pid::from_raw(i32::try_from(qemu.pid()).unwrap()).unwrap();
        let ended = rustix::process::pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let (events, stops) = std::thread::scope(|scope| {
            // A thread of its own: what cannot leave has `stop` wait for the answer.
            let stops = scope.spawn(|| stop_and_continue(&mut qemu.qmp, &ended));
            let events = answer_late(&mut channel, &mut toolstack, &ended);
            (events, stops.join().unwrap())
        });
        let said = qemu.errors();
        assert!(qemu.console().contains("verdict: success: booted"), "{vcpus} vCPUs: {}\n{said}", qemu.console());
        let line =
            said.lines().find(|line| line.contains("times to leave the kernel")).unwrap_or_else(|| panic!("{said}"));
        let times: u64 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
        eprintln!("{vcpus} vCPUs: {events} events, {stops} stops; {line}");
        assert!(events > 20 && stops > 5 && times > 20, "{events} events, {stops} stops; {line}");
    }
}

/// Gives each page that is touched all rights, some time later; how many there were until QEMU ended.
fn answer_late(channel: &mut Channel, toolstack: &mut Client, ended: &OwnedFd) -> u64 {
    let mut events = 0;
    loop {
        let mut ready = [PollFd::new(&*channel, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        assert_ne!(poll(&mut ready, Some(&SILENCE)), Ok(0), "the guest stands after {events} events");
        if !ready[1].revents().is_empty() {
            return events;
        }
        channel.clear_signal();
        while let Some(request) = channel.take() {
            events += 1;
            harness::poll::readable(ended, Instant::now() + HOLD).unwrap();
            if toolstack.set_access(request.frame().unwrap(), AccessType::Rwx).is_err() {
                return events;
            }
            channel.answer(&request.answer());
            let _ = channel.kick();
        }
    }
}

/// Stops the machine and has it go on until it ends; how often.
fn stop_and_continue(monitor: &mut Qmp, ended: &OwnedFd) -> u64 {
    let mut stops = 0;
    while !harness::poll::readable(ended, Instant::now() + BETWEEN).unwrap() {
        if monitor.execute("stop").is_err() || monitor.execute("cont").is_err() {
            break;
        }
        stops += 1;
    }
    stops
}
