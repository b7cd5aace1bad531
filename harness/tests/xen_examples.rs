//! A listener and a pager in C on Xen's own libraries, and the listener in Rust (`xen/examples/`): as they are they pass, and each with one
//! fault in it is found out by `explain`, in its own sentence. They are built where the libraries' headers are.

use crate::support::command;
use crate::support::xen::{Domain, Release, Tool};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::Scenario;
use mem_event::message::{Call, RingState};
use mem_event::{AccessType, Gfn, Ring};
use rustix::process::{Pid, Signal};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A line of a program, and what stands there instead.
type Fault = (&'static str, &'static str);

/// The listener, in each language that it is written in.
const LISTENERS: [&str; 2] = ["listener.c", "rust/listener.rs"];

/// Builds an example, with a fault in it or without; `None` where it cannot be built.
fn built(folder: &RunFolder, path: &str, fault: Option<Fault>) -> Option<PathBuf> {
    if !Path::new("/usr/include/xenctrl.h").is_file() {
        eprintln!("skipped: there are no headers of Xen's libraries; ci/setup installs them (libxen-dev)");
        return None;
    }
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../xen/examples");
    let mut text = std::fs::read_to_string(examples.join(path)).unwrap();
    if let Some((line, instead)) = fault {
        assert_eq!(text.matches(line).count(), 1, "{line}");
        text = text.replace(line, instead);
    }
    let name = Path::new(path);
    let (source, program) = (folder.file(&name.file_name().unwrap().to_string_lossy()), folder.file("program"));
    std::fs::write(&source, text).unwrap();
    let mut compiler = if name.extension().unwrap() == "rs" {
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition", "2024", "-O", "-D", "warnings", "-o"]).arg(&program).arg(&source);
        rustc
    } else {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-Wall", "-Werror", "-o"]).arg(&program).arg("-I").arg(examples).arg(&source);
        cc.args(["-lxenctrl", "-lxenevtchn", "-lxenforeignmemory"]);
        cc
    };
    assert!(compiler.status().unwrap().success(), "{path} does not build");
    Some(program)
}

/// A guest at its first checkpoint, with a trace.
fn guest(name: &str) -> Domain {
    let mut scenario = Scenario::bare(name);
    scenario.consumers.listener.get_or_insert_default();
    scenario.consumers.pager.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    (job.gate, job.trace) = (Gate::Callback, Some("trace".into()));
    job.plugin = vec!["foreign=map".into()];
    let mut domain = Domain::of(job);
    assert_eq!(domain.checkpoint(), 1);
    domain
}

/// A symbol's first frame.
fn frame(domain: &Domain, symbol: &str) -> Gfn {
    domain.job.symbols().find(symbol).unwrap().gpa.gfn()
}

fn listener(domain: &mut Domain, program: PathBuf) -> Tool {
    let watched = frame(domain, "WATCHED");
    let mut tool = domain.tool("listener", &Release::own(program), &["1", &watched.0.to_string(), "1"]);
    domain.until(&mut tool, |toolstack| toolstack.access(watched).unwrap() == AccessType::Rx);
    tool
}

/// The pages of the guest `page_in`.
const PAGES: u64 = 64;

fn pager(domain: &mut Domain, program: PathBuf) -> Tool {
    let (first, file) = (frame(domain, "PAGES"), domain.folder.file("pages"));
    let arguments = ["1", &first.0.to_string(), &PAGES.to_string(), &file.to_string_lossy()];
    let mut tool = domain.tool("pager", &Release::own(program), &arguments);
    domain.until(&mut tool, |toolstack| toolstack.info().unwrap().paged == PAGES);
    tool
}

/// Waits until a program has said this so often, or its guest is at its end.
fn has_said(domain: &mut Domain, tool: &Tool, word: &str, times: usize) {
    let end = Instant::now() + Duration::from_secs(60);
    while tool.text().matches(word).count() < times && !domain.toolstack.has_ended() {
        assert!(Instant::now() < end, "{}", tool.text());
        // It sees the connection's end.
        let _ = domain.toolstack.notice();
        std::thread::yield_now();
    }
}

/// Ends a program at once, and waits until the plugin has seen that: what it answered is taken by then.
fn kill(domain: &mut Domain, tool: Tool, ring: Ring) {
    rustix::process::kill_process(Pid::from_child(&tool.child), Signal::KILL).unwrap();
    let _ = tool.ended();
    let end = Instant::now() + Duration::from_secs(60);
    while !domain.toolstack.has_ended() {
        let Ok(rings) = domain.toolstack.rings() else { return };
        if rings.iter().any(|it| it.ring == ring && matches!(it.state, RingState::Lost | RingState::Broken)) {
            return;
        }
        assert!(Instant::now() < end, "the {ring} ring keeps its consumer: {rings:?}");
        std::thread::yield_now();
    }
}

/// What `explain` says of the trace so far.
fn explained(domain: &mut Domain) -> String {
    // Where the guest has ended the trace has its end.
    let _ = domain.toolstack.values(&Call::EndTrace);
    let output = command(&domain.folder).arg("explain").arg(domain.folder.file("trace")).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Ends a program as a person does.
fn interrupted(tool: Tool) -> String {
    rustix::process::kill_process(Pid::from_child(&tool.child), Signal::INT).unwrap();
    let (status, text) = tool.ended();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(!text.contains("mem-event xen:"), "a call is missing: {text}");
    text
}

#[test]
fn the_listener_tells_a_write_and_nothing_is_wrong_with_it() {
    for language in LISTENERS {
        let folder = RunFolder::create().unwrap();
        let Some(program) = built(&folder, language, None) else { return };
        let mut domain = guest("read_write");
        let tool = listener(&mut domain, program);
        domain.run_to(2);
        let text = interrupted(tool);
        assert_eq!(text.matches("vCPU 0 writes at 0x").count(), 1, "{language}: {text}");
        domain.is_left_alone();
        let said = explained(&mut domain);
        assert!(said.contains("nothing is wrong"), "{language}: {said}");
        domain.ends_well();
    }
}

#[test]
fn the_pager_brings_each_frame_back_as_it_was_and_nothing_is_wrong_with_it() {
    let folder = RunFolder::create().unwrap();
    let Some(program) = built(&folder, "pager.c", None) else { return };
    let mut domain = guest("page_in");
    let tool = pager(&mut domain, program);
    domain.run_to(2);
    let text = interrupted(tool);
    assert_eq!(text.matches("is back").count(), usize::try_from(PAGES).unwrap(), "{text}");
    domain.is_left_alone();
    let said = explained(&mut domain);
    assert!(said.contains("nothing is wrong"), "{said}");
    domain.ends_well();
}

#[test]
fn the_pager_brings_back_at_its_end_what_nobody_touched() {
    let folder = RunFolder::create().unwrap();
    let Some(program) = built(&folder, "pager.c", None) else { return };
    let mut domain = guest("page_in");
    let text = interrupted(pager(&mut domain, program));
    assert!(text.contains("64 frames are out") && !text.contains("is back"), "{text}");
    assert_eq!(domain.toolstack.info().unwrap().paged, 0);
    domain.ends_well();
}

/// A listener with a fault is found out in each language: `explain` says this after so many events.
fn listener_is_found_out(faults: [Fault; 2], events: usize, rule: &str, sentence: &str) {
    for (language, fault) in LISTENERS.into_iter().zip(faults) {
        let folder = RunFolder::create().unwrap();
        let Some(program) = built(&folder, language, Some(fault)) else { return };
        let mut domain = guest("read_write");
        let tool = listener(&mut domain, program);
        domain.release();
        has_said(&mut domain, &tool, "writes at", events);
        // Where no listener is required its end ends each wait.
        let waits = rule == "endless-wait";
        let before = waits.then(|| explained(&mut domain));
        kill(&mut domain, tool, Ring::Access);
        let said = before.unwrap_or_else(|| explained(&mut domain));
        assert!(said.contains(&format!("[{rule}]")) && said.contains(sentence), "{language}: {said}");
    }
}

#[test]
fn a_listener_whose_answer_wakes_nobody_is_found_out() {
    let faults = [
        ("response.flags = request->flags & VM_EVENT_FLAG_VCPU_PAUSED;", "response.flags = 0;"),
        ("flags: request.flags & ffi::VCPU_PAUSED", "flags: request.flags & !ffi::VCPU_PAUSED"),
    ];
    listener_is_found_out(faults, 1, "no-vcpu-paused", "lacks VCPU_PAUSED");
}

#[test]
fn a_listener_that_forgets_the_version_is_found_out() {
    let faults = [
        ("response.version = VM_EVENT_INTERFACE_VERSION;", ""),
        ("version: ffi::VERSION,", "version: ffi::VERSION - ffi::VERSION,"),
    ];
    listener_is_found_out(faults, 1, "ignored-answer", "has version 0 where vm_event has 7");
}

#[test]
fn a_listener_that_answers_for_another_vcpu_is_found_out() {
    let faults = [
        ("response.vcpu_id = request->vcpu_id;", "response.vcpu_id = request->vcpu_id + 1;"),
        ("version: ffi::VERSION,", "version: ffi::VERSION, vcpu: request.vcpu + 1,"),
    ];
    listener_is_found_out(faults, 1, "answer-for-nobody", "there is no vCPU 1");
}

#[test]
fn a_listener_that_leaves_the_page_closed_is_found_out() {
    let faults = [
        ("if (xc_set_mem_access(xch, domain, XENMEM_access_rwx, gfn, 1))", "if (gfn == ~0ULL)"),
        ("self.set_access(ffi::ACCESS_RWX, request.gfn, 1)?;", ""),
    ];
    listener_is_found_out(faults, 4, "same-event", "the frame's rights did not change");
}

#[test]
fn a_listener_that_never_notifies_is_found_out() {
    let faults = [
        (
            "        answer(ring, &request);\n        xenevtchn_notify(ring->channel, ring->port);",
            "        answer(ring, &request);",
        ),
        ("ring.notify()?;", "if STOPPED.load(Ordering::Relaxed) { ring.notify()?; }"),
    ];
    listener_is_found_out(faults, 1, "endless-wait", "waits for the listener's answer");
}

/// A pager with a fault is found out.
fn pager_is_found_out(fault: Fault, rule: &str, sentence: &str) {
    let folder = RunFolder::create().unwrap();
    let Some(program) = built(&folder, "pager.c", Some(fault)) else { return };
    let mut domain = guest("page_in");
    let tool = pager(&mut domain, program);
    domain.release();
    has_said(&mut domain, &tool, "is back", 1);
    kill(&mut domain, tool, Ring::Paging);
    let said = explained(&mut domain);
    assert!(said.contains(&format!("[{rule}]")) && said.contains(sentence), "{said}");
}

#[test]
fn a_pager_that_mixes_frames_up_is_found_out() {
    let fault = (
        "if (pread(file, content, XC_PAGE_SIZE, place(gfn))",
        "if (pread(file, content, XC_PAGE_SIZE, place(first + count - 1))",
    );
    pager_is_found_out(fault, "changed-contents", "came back with another content");
}

#[test]
fn a_pager_that_forgets_the_version_is_found_out() {
    let fault = ("response.version = VM_EVENT_INTERFACE_VERSION;", "");
    pager_is_found_out(fault, "ignored-answer", "has version 0 where vm_event has 7");
}

#[test]
fn a_pager_that_answers_for_another_vcpu_is_found_out() {
    let fault = ("response.vcpu_id = request->vcpu_id;", "response.vcpu_id = request->vcpu_id + 1;");
    pager_is_found_out(fault, "answer-for-nobody", "there is no vCPU 1");
}

#[test]
fn a_pager_that_never_notifies_is_found_out() {
    let fault = (
        "        answer(ring, &request);\n        xenevtchn_notify(ring->channel, ring->port);",
        "        answer(ring, &request);",
    );
    pager_is_found_out(fault, "endless-wait", "waits for the pager's answer");
}
