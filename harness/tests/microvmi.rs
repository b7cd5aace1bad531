//! Programs in Rust on microvmi, which takes Xen's libraries by the crates xenctrl, xenevtchn and xenforeignmemory, where they are built:
//! `MEM_EVENT_MICROVMI` names the folder of microvmi's own examples. They are skipped elsewhere; microvmi is GPL-3.0 alone, so nothing of it is
//! built or carried here.

use crate::support::xen::{Domain, Release, Tool, asks_for};
use crate::support::{command, memory_file};
use harness::machine::folder::RunFolder;
use mem_event::message::RingState;
use mem_event::{CpuEventKind, Ring, VcpuId};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Read;
use std::path::PathBuf;
use std::process::ExitStatus;

/// One of microvmi's examples, on the libraries of this machine.
fn program(name: &str) -> Option<Release> {
    let Some(folder) = std::env::var_os("MEM_EVENT_MICROVMI").map(PathBuf::from) else {
        eprintln!("skipped: MEM_EVENT_MICROVMI names the folder of microvmi's examples, and is not set");
        return None;
    };
    let program = folder.join(name);
    assert!(program.is_file(), "there is no {}", program.display());
    Some(Release::own(program))
}

/// Its end as a person asks for it, or by itself.
fn ended(tool: Tool) -> (ExitStatus, String) {
    // It fails where the program has ended.
    let _ = kill_process(Pid::from_child(&tool.child), Signal::INT);
    let (status, text) = tool.ended();
    assert!(!text.contains("mem-event xen:"), "a call is missing: {text}");
    (status, text)
}

#[test]
fn its_example_tells_each_write_of_cr3_and_leaves_the_guest_as_it_was() {
    let Some(release) = program("cr-events") else { return };
    let mut domain = Domain::mapped("cpu_events", 1);
    let mut tool = domain.tool("cr-events", &release, &["--vm_name", "guest"]);
    domain.until(&mut tool, asks_for(CpuEventKind::Cr3));
    domain.run_to(7);
    let (status, text) = ended(tool);
    // Its main thread waits in `poll`, which the signal ends with an error that it takes for a failure. It gives its ring back all the same.
    assert!(status.code() == Some(0) || status.code() == Some(101) && text.contains("EINTR"), "{status}: {text}");
    let writes: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.split_once("Cr3:    old value: ")?.1.split_once("    new value: "))
        .collect();
    assert!(writes.len() > 1, "{text}");
    // None is left out: each begins with what the one before has written.
    assert!(writes.windows(2).all(|pair| pair[0].1 == pair[1].0), "{writes:?}");
    domain.is_left_alone();
    domain.ends_well();
}

/// microvmi's driver for Xen cannot reply to an event, so these two examples end at their first one, on Xen too. What they lose is the ring.
fn tells_one(name: &str, kind: CpuEventKind, words: &str) {
    let Some(release) = program(name) else { return };
    let mut domain = Domain::mapped("cpu_events", 1);
    let mut tool = domain.tool(name, &release, &["--vm_name", "guest"]);
    domain.until(&mut tool, asks_for(kind));
    while !tool.text().contains(words) {
        domain.release();
        domain.checkpoint();
    }
    let (status, text) = tool.ended();
    assert!(text.contains("src/api/mod.rs") && text.contains("not implemented"), "{text}");
    assert_eq!(status.code(), Some(101), "{text}");
    assert!(!text.contains("mem-event xen:"), "a call is missing: {text}");
    domain.ends_well();
}

#[test]
fn its_example_tells_a_write_of_a_model_specific_register() {
    tells_one("msr-events", CpuEventKind::Msr, "0xc0000081: new value: ");
}

#[test]
fn its_example_tells_a_breakpoint() {
    tells_one("interrupt-events", CpuEventKind::Int3, "interrupt occurred!");
}

#[test]
fn its_dump_of_a_paused_domain_is_the_memory_file() {
    let Some(release) = program("mem-dump") else { return };
    let domain = Domain::mapped("cpu_events", 1);
    let dump = domain.folder.file("dump");
    domain.ask(&release, &["--vm_name", "guest", "-o", &dump.to_string_lossy()]);
    let (dumped, mut memory) = (std::fs::read(&dump).unwrap(), Vec::new());
    memory_file(domain.qemu.pid()).read_to_end(&mut memory).unwrap();
    // It takes the number of the highest frame for the number of frames.
    assert_eq!(dumped.len() + 4096, memory.len());
    let differs = (0..dumped.len() / 4096).find(|page| {
        let bytes = page * 4096..(page + 1) * 4096;
        dumped[bytes.clone()] != memory[bytes] && !(0xa0..0x100).contains(page)
    });
    assert_eq!(differs, None);
    domain.ends_well();
}

#[test]
fn its_registers_of_each_vcpu_are_the_domains() {
    let Some(release) = program("regs-dump") else { return };
    let mut domain = Domain::mapped("cpu_events", 2);
    let text = domain.ask(&release, &["--vm_name", "guest"]);
    domain.toolstack.pause().unwrap();
    for vcpu in 0..2 {
        let context = domain.toolstack.registers(VcpuId(vcpu)).unwrap().unwrap();
        for (name, value) in [("rip", context.registers.rip), ("cr3", context.registers.control[2])] {
            assert!(text.contains(&format!("{name}: {value:#x},")), "{name} of vCPU {vcpu} is {value:#x}: {text}");
        }
    }
    domain.toolstack.unpause().unwrap();
    domain.is_left_alone();
    domain.ends_well();
}

#[test]
fn its_pause_is_over_when_it_ends() {
    let Some(release) = program("pause") else { return };
    let mut domain = Domain::mapped("cpu_events", 1);
    let text = domain.ask(&release, &["--vm_name", "guest", "1"]);
    assert!(text.contains("resuming VM"), "{text}");
    let rings = domain.toolstack.rings().unwrap();
    assert!(rings.iter().any(|it| it.ring == Ring::Access && it.state == RingState::Absent), "{rings:?}");
    domain.ends_well();
}

#[test]
fn a_scenario_has_it_as_a_consumer_whose_events_are_in_the_sequence() {
    let Some(release) = program("cr-events") else { return };
    let folder = RunFolder::create().unwrap();
    let file = folder.file("mine.toml");
    let text = format!(
        "version = 1\nabout = \"CR3\"\n\n[machine]\nguest = \"cpu_events\"\n\n[[consumers.xen]]\ncommand = \"{} --vm_name guest\"\n",
        release.program.display()
    );
    std::fs::write(&file, text).unwrap();
    let output = command(&folder).arg("run").arg(&file).arg("--sequence").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("VCPU 0 - Cr3: ") && said.contains("cr3 "), "{said}");
}
