//! Debian's `xenpaging`, unmodified, and the `xenstore-*` tools that give it its target.

use crate::support::command;
use crate::support::xen::{Domain, Release, Tool, releases};
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::{Scenario, Size, corpus};
use mem_event::Ring;
use mem_event::message::RingState;
use mem_event_client::Client;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Signal};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// Frames that the guest may hold.
const TARGET: u64 = 1024;
/// The node that xenpaging watches.
const NODE: &str = "/local/domain/1/memory/target-tot_pages";

/// A guest of 64 MiB that writes to 16 MiB and reads them again.
fn sweep(trace: bool) -> Domain {
    let mut scenario = Scenario::bare("sweep");
    scenario.machine.memory = Size(64 << 20);
    scenario.consumers.pager.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = Gate::None;
    job.plugin = vec!["foreign=map".into()];
    job.trace = trace.then(|| "trace".into());
    let mut domain = Domain::of(job);
    assert_eq!(domain.checkpoint(), 1);
    domain
}

fn pages(domain: &Domain, release: &Release, options: &[&str]) -> Tool {
    let file = domain.folder.file("pages");
    domain.tool_with("xenpaging", release, options, &["-d", "1", "-f", &file.to_string_lossy(), "-r", "256"])
}

fn has_pager(toolstack: &mut Client) -> bool {
    let rings = toolstack.rings().unwrap();
    rings.iter().any(|ring| ring.ring == Ring::Paging && ring.state == RingState::Live)
}

fn aims_at(domain: &Domain, release: &Release, frames: u64) {
    domain.ask(&release.tool("xenstore-write"), &[NODE, &(frames * 4).to_string()]);
}

fn resident(toolstack: &mut Client) -> u64 {
    toolstack.info().unwrap().resident
}

fn send(tool: &Tool, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(&tool.child), signal).unwrap();
}

fn ended_by(tool: Tool, signal: Signal) -> (ExitStatus, String) {
    send(&tool, signal);
    tool.ended()
}

/// A vCPU waits for an answer.
fn stands(toolstack: &mut Client) -> bool {
    let vcpus = toolstack.vcpus().unwrap();
    vcpus.iter().any(|vcpu| format!("{:?}", vcpu.state).starts_with("Answer"))
}

#[test]
fn xenpaging_holds_a_guest_to_the_target_that_xenstore_write_gives_it() {
    for release in releases("xenpaging") {
        let mut domain = sweep(false);
        let mut pager = begins(&mut domain, &release);
        aims_at(&domain, &release, TARGET);
        assert_eq!(domain.ask(&release.tool("xenstore-read"), &[NODE]).trim(), (TARGET * 4).to_string());
        // It writes to four times as much.
        domain.run_to(3);
        domain.until(&mut pager, |toolstack| resident(toolstack) <= TARGET);
        assert!(domain.toolstack.info().unwrap().paged >= 3 * TARGET);
        // More room: all of it comes back.
        aims_at(&domain, &release, 16384);
        domain.until(&mut pager, |toolstack| toolstack.info().unwrap().paged == 0);
        aims_at(&domain, &release, TARGET);
        domain.until(&mut pager, |toolstack| resident(toolstack) <= TARGET);
        send(&pager, Signal::INT);
        let text = ended_with_everything_back(&mut domain, pager);
        assert!(text.contains("answers on the paging ring were made whole"), "{text}");
        // The target that stands in the xenstore is its successor's.
        let mut pager = begins(&mut domain, &release);
        domain.until(&mut pager, |toolstack| resident(toolstack) <= TARGET);
        send(&pager, Signal::TERM);
        ended_with_everything_back(&mut domain, pager);
        domain.ends_well();
    }
}

#[test]
fn xenpaging_ends_when_its_domain_does() {
    for release in releases("xenpaging") {
        let mut domain = sweep(false);
        let pager = begins(&mut domain, &release);
        drop(domain.toolstack);
        drop(domain.qemu);
        let (_, text) = pager.ended();
        assert!(text.contains("there is no domain 1"), "{text}");
    }
}

/// What `explain` says of the trace so far.
fn explained(domain: &mut Domain) -> String {
    domain.toolstack.values(&mem_event::message::Call::EndTrace).unwrap();
    let output = command(&domain.folder).arg("explain").arg(domain.folder.file("trace")).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A vCPU stands for an answer without its version; the tool's errors and `explain` name that.
fn is_told_of_the_version(domain: &mut Domain, pager: &mut Tool) {
    let said = "where Xen takes none but 7 and lets the vCPU stand; --repair-xenpaging makes such answers whole";
    let errors = pager.errors.clone();
    domain.until(pager, |_| std::fs::read_to_string(&errors).unwrap().contains(said));
    domain.until(pager, stands);
    let explained = explained(domain);
    assert!(explained.contains("where vm_event has 7: nothing of it counts but that its slot is free"), "{explained}");
}

#[test]
fn without_the_repair_a_vcpu_stands_and_the_cause_is_named() {
    for release in releases("xenpaging") {
        let mut domain = sweep(true);
        let mut pager = pages(&domain, &release, &[]);
        domain.until(&mut pager, has_pager);
        aims_at(&domain, &release, 64);
        domain.until(&mut pager, |toolstack| resident(toolstack) <= 64);
        domain.release();
        is_told_of_the_version(&mut domain, &mut pager);
        let _ = ended_by(pager, Signal::KILL);
        domain.qemu.kill();
    }
}

#[test]
fn what_was_out_when_xenpaging_was_killed_is_lost_and_explain_says_who_answers_without_it() {
    for release in releases("xenpaging") {
        let mut domain = sweep(true);
        let mut pager = begins(&mut domain, &release);
        aims_at(&domain, &release, 64);
        domain.until(&mut pager, |toolstack| resident(toolstack) <= 64);
        let out = domain.toolstack.info().unwrap().paged;
        let _ = ended_by(pager, Signal::KILL);
        // The successor has the ring; of Xen's it would be told EBUSY. It empties the file, and knows of no frame that is out.
        let mut pager = begins(&mut domain, &release);
        aims_at(&domain, &release, 16384);
        domain.release();
        // A vCPU touches one of these frames. The successor answers that it is there; on Xen the vCPU spins, here it asks again.
        let steps = |toolstack: &mut Client| toolstack.note("how far").unwrap();
        let before = steps(&mut domain.toolstack);
        let mut notes = 0;
        domain.until(&mut pager, |toolstack| {
            notes += 1;
            steps(toolstack) > before + notes + 100
        });
        let explained = explained(&mut domain);
        assert!(explained.contains("came again after each of the pager's answers"), "{explained}");
        assert!(explained.contains("the frame was not loaded"), "{explained}");
        assert_eq!(domain.toolstack.info().unwrap().paged, out);
        let _ = ended_by(pager, Signal::KILL);
        domain.qemu.kill();
    }
}

/// What the Linux has.
const MEMORY: u64 = 256 << 20;
/// A quarter of it, in frames.
const QUARTER: u64 = MEMORY / 4 / 4096;

/// Linux before its first instruction.
fn linux(trace: bool) -> Domain {
    let mut scenario = corpus::linux();
    scenario.machine.memory = Size(MEMORY);
    scenario.consumers.pager.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = Gate::None;
    job.plugin = vec!["foreign=map".into()];
    job.trace = trace.then(|| "trace".into());
    Domain::of(job)
}

/// Goes on until the console says something; how many frames were out at most meanwhile.
fn most_out_until(domain: &mut Domain, pager: &mut Tool, said: &str) -> u64 {
    let end = Instant::now() + Duration::from_secs(120);
    let mut most = 0;
    while !domain.qemu.console().contains(said) {
        assert!(pager.child.try_wait().unwrap().is_none(), "xenpaging has ended: {}", pager.text());
        assert!(Instant::now() < end, "Linux does not come to {said:?}: {}", domain.qemu.console());
        match domain.toolstack.info() {
            Ok(info) => most = most.max(info.paged),
            Err(error) => panic!("{error}: {} {}", domain.qemu.console(), domain.qemu.errors()),
        }
        // A while, unless the guest ends before.
        let mut waited = [PollFd::new(&domain.toolstack, PollFlags::IN)];
        rustix::event::poll(&mut waited, Some(&Timespec { tv_sec: 0, tv_nsec: 20_000_000 })).unwrap();
        while domain.toolstack.notice().unwrap().is_some() {}
    }
    most
}

/// xenpaging was asked to end: everything is back then, its file is gone, and the ring is free.
fn ended_with_everything_back(domain: &mut Domain, pager: Tool) -> String {
    let (status, text) = pager.ended();
    assert_eq!(status.code(), Some(0), "{text}");
    assert_eq!(domain.toolstack.info().unwrap().paged, 0, "{text}");
    assert!(!domain.folder.file("pages").exists());
    assert!(!has_pager(&mut domain.toolstack));
    text
}

fn begins(domain: &mut Domain, release: &Release) -> Tool {
    let mut pager = pages(domain, release, &["--repair-xenpaging"]);
    domain.until(&mut pager, has_pager);
    pager
}

#[test]
fn xenpaging_that_is_killed_and_started_again_holds_linux_to_a_quarter_of_its_memory() {
    for release in releases("xenpaging") {
        let mut domain = linux(false);
        let mut pager = begins(&mut domain, &release);
        aims_at(&domain, &release, QUARTER);
        assert!(most_out_until(&mut domain, &mut pager, "verifying forwards") > 1000);
        // Frames come back in the midst of Linux's work, which is not to be at its end before this test is.
        let out = domain.toolstack.info().unwrap().paged;
        aims_at(&domain, &release, 0);
        domain.until(&mut pager, |toolstack| toolstack.info().unwrap().paged < out - 500);
        domain.toolstack.pause().unwrap();
        domain.until(&mut pager, |toolstack| toolstack.info().unwrap().paged == 0);
        // Killed while nothing is out it takes nothing with it, and its successor has the ring.
        let _ = ended_by(pager, Signal::KILL);
        let mut pager = begins(&mut domain, &release);
        aims_at(&domain, &release, QUARTER);
        domain.until(&mut pager, |toolstack| resident(toolstack) <= QUARTER);
        domain.toolstack.unpause().unwrap();
        assert!(most_out_until(&mut domain, &mut pager, "verifying backwards") > 1000);
        domain.toolstack.pause().unwrap();
        send(&pager, Signal::INT);
        ended_with_everything_back(&mut domain, pager);
        domain.toolstack.unpause().unwrap();
        let console = domain.goes_to_its_end();
        assert!(console.contains("12 files, checksums right twice"), "{console}");
    }
}

#[test]
fn without_the_repair_linux_stands_at_its_first_page_in_and_explain_says_why() {
    for release in releases("xenpaging") {
        let mut domain = linux(true);
        let mut pager = pages(&domain, &release, &[]);
        domain.until(&mut pager, has_pager);
        most_out_until(&mut domain, &mut pager, "filling ");
        aims_at(&domain, &release, QUARTER);
        is_told_of_the_version(&mut domain, &mut pager);
        let _ = ended_by(pager, Signal::KILL);
        domain.qemu.kill();
    }
}
