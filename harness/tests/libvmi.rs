//! LibVMI's own examples and tools on its driver for Xen, where a build of it is: `MEM_EVENT_LIBVMI` names the folder of its programs, else they
//! are looked for in PATH. They are skipped elsewhere; nothing of LibVMI is built or carried here.

use crate::support::memory_file;
use crate::support::xen::{Domain, Release, Tool, asks_for};
use goblin::elf::Elf;
use harness::guest::kernel::btf::Btf;
use harness::guest::kernel::flat::Flat;
use harness::guest::kernel::{image, kallsyms};
use harness::guest::linux;
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::corpus;
use mem_event::message::Space;
use mem_event::{AccessType, CpuEventKind, Gfn, Gla, VcpuId};
use mem_event_client::Client;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

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

/// Serves a guest from its first checkpoint to this one.
fn serves(name: &str, end: u64, is_ready: impl Fn(&mut Client) -> bool, words: &str) {
    let Some(release) = program(name) else { return };
    let mut domain = Domain::mapped("cpu_events", 1);
    let mut tool = domain.tool(name, &release, &["guest"]);
    domain.until(&mut tool, is_ready);
    domain.run_to(end);
    assert_ne!(told(tool, words), 0, "{name} told nothing");
    domain.is_left_alone();
    domain.ends_well();
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
        // One that waits for an answer in the midst of its block has none to be read, and is not at the page yet that was closed for it.
        let context = domain.registers(VcpuId(0)).unwrap().ok();
        context.is_some_and(|context| domain.access(Gfn(context.registers.rip >> 12)).unwrap() != AccessType::Rwx)
    };
    serves("mem-event-example", 2, is_closed, "on frame 0x");
}

#[test]
fn its_dump_of_a_domain_is_the_memory_file() {
    let Some(release) = program("vmi-dump-memory") else { return };
    let domain = Domain::mapped("read_write", 1);
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

/// What a LibVMI needs to know of a Linux: each symbol as System.map has it, and where a task has what; from the kernel's image alone.
fn profile(folder: &RunFolder) {
    let image = std::fs::read(linux::kernel().unwrap()).unwrap();
    let elf = image::unpack(&image).unwrap();
    let flat = Flat::of_elf(&Elf::parse(&elf).unwrap(), &elf).unwrap();
    let names = kallsyms::read(&flat).unwrap();
    let mut map = File::create(folder.file("System.map")).unwrap();
    for name in names.iter() {
        writeln!(map, "{:016x} {} {}", name.address, name.kind, name.name).unwrap();
    }
    let (start, end) = (names.address("__start_BTF").unwrap(), names.address("__stop_BTF").unwrap());
    let btf = Btf::read(flat.between(start, end).unwrap()).unwrap();
    let mut settings =
        format!("guest {{\n    ostype = \"Linux\";\n    sysmap = \"{}\";\n", folder.file("System.map").display());
    let members = [
        ("linux_name", "task_struct", "comm"),
        ("linux_tasks", "task_struct", "tasks"),
        ("linux_mm", "task_struct", "mm"),
        ("linux_pid", "task_struct", "pid"),
        ("linux_pgd", "mm_struct", "pgd"),
    ];
    for (name, structure, member) in members {
        settings += &format!("    {name} = {:#x};\n", btf.offset(structure, member).unwrap());
    }
    std::fs::write(folder.file("libvmi.conf"), settings + "}\n").unwrap();
}

/// Linux at its work, and LibVMI's settings for it.
fn linux_at_work() -> Domain {
    let mut scenario = corpus::linux();
    scenario.consumers.listener.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = Gate::Callback;
    job.plugin.push("foreign=map".to_owned());
    let domain = Domain::of(job);
    profile(&domain.folder);
    let end = Instant::now() + Duration::from_secs(120);
    while !domain.qemu.console().contains("filling ") {
        assert!(Instant::now() < end, "Linux does not boot: {}", domain.qemu.console());
        std::thread::yield_now();
    }
    domain
}

#[test]
fn its_memory_example_tells_of_each_instruction_of_a_function_of_the_kernel() {
    /// Where Linux has its text.
    const KERNEL: u64 = 0xffff_ffff_8000_0000;
    let Some(release) = program("mem-event-example") else { return };
    let mut domain = linux_at_work();
    // It closes the page of the instruction pointer, which is to be in the kernel then.
    let (cr3, rip) = loop {
        domain.toolstack.pause().unwrap();
        let registers = domain.toolstack.registers(VcpuId(0)).unwrap().unwrap().registers;
        if registers.rip >= KERNEL {
            break (registers.control[2], registers.rip);
        }
        domain.toolstack.unpause().unwrap();
    };
    let space = Space { vcpu: VcpuId(0), cr3: Some(cr3) };
    let gfn = domain.toolstack.translate(space, Gla(rip)).unwrap().gfn();
    let mut tool = domain.tool("mem-event-example", &release, &["guest"]);
    domain.until(&mut tool, |domain| domain.access(gfn).unwrap() == AccessType::Rw);
    domain.toolstack.unpause().unwrap();
    // It prints some pages of text at a time.
    let output = tool.output.clone();
    domain.until(&mut tool, |_| std::fs::metadata(&output).unwrap().len() > 4096);
    kill_process(Pid::from_child(&tool.child), Signal::INT).unwrap();
    let (status, text) = tool.ended();
    assert_eq!(status.code(), Some(0), "{text}");
    let frame = format!("on frame 0x{:x}, permissions: __X", gfn.0);
    assert!(text.contains(&format!("mem_cb: at 0x{rip:x}, {frame}")), "{text}");
    // It leaves the page as it is just then. The guest goes on: nobody listens, and nobody needs to.
    assert!(domain.goes_to_its_end().contains("checksums right twice"));
}

#[test]
fn its_list_of_processes_has_those_of_linux() {
    let Some(release) = program("vmi-process-list") else { return };
    let domain = linux_at_work();
    let text = domain.ask(&release, &["-n", "guest"]);
    let processes: Vec<(u32, &str)> = text
        .lines()
        .filter_map(|line| {
            let (pid, rest) = line.strip_prefix('[')?.split_once("] ")?;
            Some((pid.trim().parse().ok()?, rest.split(" (struct").next()?))
        })
        .collect();
    for wanted in [(0, "swapper/0"), (1, "init"), (2, "kthreadd")] {
        assert!(processes.contains(&wanted), "{wanted:?}: {text}");
    }
    assert!(domain.goes_to_its_end().contains("checksums right twice"));
}

#[test]
fn its_breakpoint_on_a_function_of_the_kernel_is_stepped_over_each_time_and_taken_away() {
    let Some(release) = program("breakpoint-recoil-example") else { return };
    let mut domain = linux_at_work();
    let mut tool = domain.tool("breakpoint", &release, &["guest", "do_sys_openat2"]);
    let hits = |text: &str| text.lines().filter(|line| line.contains("Breakpoint hit at do_sys_openat2")).count();
    let output = tool.output.clone();
    domain.until(&mut tool, |_| hits(&std::fs::read_to_string(&output).unwrap()) > 20);
    assert!(told(tool, "Breakpoint hit at do_sys_openat2") > 20);
    domain.is_left_alone();
    assert!(domain.goes_to_its_end().contains("checksums right twice"));
}
