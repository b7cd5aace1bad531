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

fn ended_by(tool: Tool, signal: Signal) -> (ExitStatus, String) {
    rustix::process::kill_process(Pid::from_child(&tool.child), signal).unwrap();
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
        let mut pager = pages(&domain, &release, &["--repair-xenpaging"]);
        domain.until(&mut pager, has_pager);
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
        let (status, text) = ended_by(pager, Signal::INT);
        assert_eq!(status.code(), Some(0), "{text}");
        assert!(text.contains("answers on the paging ring were made whole"), "{text}");
        assert_eq!(domain.toolstack.info().unwrap().paged, 0, "{text}");
        assert!(!domain.folder.file("pages").exists());
        assert!(!has_pager(&mut domain.toolstack));
        domain.ends_well();
    }
}

#[test]
fn xenpaging_ends_when_its_domain_does() {
    for release in releases("xenpaging") {
        let mut domain = sweep(false);
        let mut pager = pages(&domain, &release, &["--repair-xenpaging"]);
        domain.until(&mut pager, has_pager);
        drop(domain.toolstack);
        drop(domain.qemu);
        let (_, text) = pager.ended();
        assert!(text.contains("there is no domain 1"), "{text}");
    }
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
        let end = Instant::now() + Duration::from_secs(60);
        let said = "where Xen takes none but 7 and lets the vCPU stand; --repair-xenpaging makes such answers whole";
        while !pager.text().contains(said) {
            assert!(Instant::now() < end, "{}", pager.text());
            std::thread::yield_now();
        }
        domain.until(&mut pager, stands);
        domain.toolstack.values(&mem_event::message::Call::EndTrace).unwrap();
        let output = command(&domain.folder).arg("explain").arg(domain.folder.file("trace")).output().unwrap();
        let explained = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            explained.contains("where vm_event has 7: nothing of it counts but that its slot is free"),
            "{explained}"
        );
        let _ = ended_by(pager, Signal::KILL);
        domain.qemu.kill();
    }
}

#[test]
fn what_was_out_when_xenpaging_was_killed_is_lost_and_explain_says_who_answers_without_it() {
    for release in releases("xenpaging") {
        let mut domain = sweep(true);
        let mut pager = pages(&domain, &release, &["--repair-xenpaging"]);
        domain.until(&mut pager, has_pager);
        aims_at(&domain, &release, 64);
        domain.until(&mut pager, |toolstack| resident(toolstack) <= 64);
        let out = domain.toolstack.info().unwrap().paged;
        let _ = ended_by(pager, Signal::KILL);
        // The successor has the ring; of Xen's it would be told EBUSY. It empties the file, and knows of no frame that is out.
        let mut pager = pages(&domain, &release, &["--repair-xenpaging"]);
        domain.until(&mut pager, has_pager);
        aims_at(&domain, &release, 16384);
        domain.release();
        // A vCPU touches one of these frames. The successor answers that it is there; on Xen the vCPU spins, here it asks again.
        // A vCPU touches one of these frames. The successor answers that it is there; on Xen the vCPU spins, here it asks again.
        let steps = |toolstack: &mut Client| toolstack.note("how far").unwrap();
        let before = steps(&mut domain.toolstack);
        let mut notes = 0;
        domain.until(&mut pager, |toolstack| {
            notes += 1;
            steps(toolstack) > before + notes + 100
        });
        domain.toolstack.values(&mem_event::message::Call::EndTrace).unwrap();
        let output = command(&domain.folder).arg("explain").arg(domain.folder.file("trace")).output().unwrap();
        let explained = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(explained.contains("came again after each of the pager's answers"), "{explained}");
        assert!(explained.contains("the frame was not loaded"), "{explained}");
        assert_eq!(domain.toolstack.info().unwrap().paged, out);
        let _ = ended_by(pager, Signal::KILL);
        domain.qemu.kill();
    }
}

#[test]
fn xenpaging_holds_linux_to_a_quarter_of_its_memory() {
    const MEMORY: u64 = 256 << 20;
    for release in releases("xenpaging") {
        let mut scenario = corpus::linux();
        scenario.machine.memory = Size(MEMORY);
        scenario.consumers.pager.get_or_insert_default();
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = Gate::None;
        job.plugin = vec!["foreign=map".into()];
        let mut domain = Domain::of(job);
        let mut pager = pages(&domain, &release, &["--repair-xenpaging"]);
        domain.until(&mut pager, has_pager);
        let quarter = MEMORY / 4 / 4096;
        aims_at(&domain, &release, quarter);
        let mut paged = 0;
        while !domain.toolstack.has_ended() {
            match domain.toolstack.info() {
                Ok(info) => paged = paged.max(info.paged),
                Err(_) => break,
            }
            // A while, unless the guest ends before.
            let mut waited = [PollFd::new(&domain.toolstack, PollFlags::IN)];
            rustix::event::poll(&mut waited, Some(&Timespec { tv_sec: 0, tv_nsec: 100_000_000 })).unwrap();
            while domain.toolstack.notice().unwrap().is_some() {}
        }
        domain.qemu.wait().unwrap();
        let console = domain.qemu.console();
        assert!(console.contains("12 files, checksums right twice"), "{console}");
        assert!(paged > 1000, "{paged} frames were out at most");
        let (_, text) = pager.ended();
        assert!(text.contains("there is no domain 1"), "{text}");
    }
}
