//! LibVMI's own examples and tools on its driver for Xen, where a build of it is: `MEM_EVENT_LIBVMI` names the folder of its programs, else they
//! are looked for in PATH. They are skipped elsewhere; nothing of LibVMI is built or carried here.

use crate::support::memory_file;
use crate::support::xen::{Domain, Release, Tool};
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::Scenario;
use mem_event::{AccessType, CpuEventKind, Gfn, MonitorMode, VcpuId};
use mem_event_client::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::path::PathBuf;

/// A program of LibVMI's, on the libraries of this machine.
fn program(name: &str) -> Option<Release> {
    let named = std::env::var_os("MEM_EVENT_LIBVMI").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = named.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join(name));
    let found = found.into_iter().find(|program| program.is_file());
    if found.is_none() {
        eprintln!("skipped: there is no {name} of LibVMI's; MEM_EVENT_LIBVMI names the folder of its programs");
    }
    found.map(Release::own)
}

/// Ends it as a person does: it says what it has left, and how often it told of an event in these words.
fn told(tool: Tool, words: &str) -> usize {
    kill_process(Pid::from_child(&tool.child), Signal::INT).unwrap();
    let (status, text) = tool.ended();
    assert_eq!(status.code(), Some(0), "{text}");
    assert!(!text.contains("mem-event xen:"), "a call is missing: {text}");
    text.lines().filter(|line| line.contains(words)).count()
}

/// A guest at its first checkpoint, whose memory tools map.
fn start(guest: &str) -> Domain {
    let mut scenario = Scenario::bare(guest);
    scenario.consumers.listener.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = Gate::Callback;
    job.plugin.push("foreign=map".to_owned());
    let mut domain = Domain::of(job);
    domain.checkpoint();
    domain
}

/// Serves a guest from its first checkpoint to this one.
fn serves(name: &str, end: u64, is_ready: impl Fn(&mut Client) -> bool, words: &str) {
    let Some(release) = program(name) else { return };
    let mut domain = start("cpu_events");
    let mut tool = domain.tool(name, &release, &["guest"]);
    domain.until(&mut tool, is_ready);
    domain.run_to(end);
    assert_ne!(told(tool, words), 0, "{name} told nothing");
    domain.is_left_alone();
    domain.ends_well();
}

fn asks_for(kind: CpuEventKind) -> impl Fn(&mut Client) -> bool {
    move |domain| {
        domain.monitors().unwrap().iter().any(|monitor| monitor.kind == kind && monitor.mode == MonitorMode::Sync)
    }
}

#[test]
fn its_cr3_example_tells_of_writes() {
    serves("cr3-event-example", 7, asks_for(CpuEventKind::Cr3), "CR3 write happened");
}

#[test]
fn its_msr_example_tells_of_writes() {
    serves("msr-event-example", 7, asks_for(CpuEventKind::Msr), "MSR write happened");
}

#[test]
fn its_interrupt_example_tells_of_breakpoints_that_the_guest_gets() {
    serves("interrupt-event-example", 7, asks_for(CpuEventKind::Int3), "Int 3 happened");
}

#[test]
fn its_single_step_example_tells_of_steps() {
    serves("singlestep-event-example", 2, asks_for(CpuEventKind::SingleStep), "Single-step event");
}

#[test]
fn its_memory_example_steps_over_a_page_that_may_not_be_executed() {
    // It closes the page of the instruction pointer; the guest's addresses are physical ones.
    let is_closed = |domain: &mut Client| {
        let context = domain.registers(VcpuId(0)).unwrap().unwrap();
        domain.access(Gfn(context.registers.rip >> 12)).unwrap() != AccessType::Rwx
    };
    serves("mem-event-example", 2, is_closed, "on frame 0x");
}

#[test]
fn its_dump_of_a_domain_is_the_memory_file() {
    let Some(release) = program("vmi-dump-memory") else { return };
    let domain = start("read_write");
    let dump = domain.folder.file("dump");
    domain.ask(&release, &["guest", &dump.to_string_lossy()]);
    let (dumped, mut memory) = (std::fs::read(&dump).unwrap(), Vec::new());
    memory_file(domain.qemu.pid()).read_to_end(&mut memory).unwrap();
    // Beyond the guest's RAM the dump goes on with what is no memory.
    assert!(dumped.len() >= memory.len(), "{} bytes of {}", dumped.len(), memory.len());
    let differs = (0..memory.len() / 4096).find(|page| {
        let bytes = page * 4096..(page + 1) * 4096;
        dumped[bytes.clone()] != memory[bytes]
    });
    // What a device shows there, and the machine's firmware, is no RAM of the guest's.
    assert!(differs.is_none_or(|page| (0xa0..0x100).contains(&page)), "frame {:#x}", differs.unwrap());
    domain.ends_well();
}
