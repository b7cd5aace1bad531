//! A page fault that is injected into a program of Linux's ends that program alone, by SIGSEGV, as if the program had touched the address.

use crate::support::{kernel_maps_write_protected, wait_for};
use harness::guest::linux::COMMAND_LINE;
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::corpus;
use mem_event::{Control, TrapKind, VcpuId};
use mem_event_client::Client;
use std::time::{Duration, Instant};

/// The address that nobody has.
const NOBODYS: u64 = 0x1234_5678_9000;
/// A read by a program of what is not there.
const READ_BY_USER: u32 = 4;
/// The privilege of programs, in CS.
const USER: u16 = 3;
/// Only the limit of what can be called a hang.
const HANG: Duration = Duration::from_secs(180);

fn ends_one_program(gate: Gate) {
    let mut linux = corpus::linux();
    linux.consumers.listener.get_or_insert_default();
    let mut job = Job::new(linux, None).unwrap();
    job.gate = gate;
    // The last of several counts. So does what it says of a program that ends by a signal.
    let line = format!("{COMMAND_LINE} mem_event.work=child loglevel=7 print-fatal-signals=1");
    job.extra = vec!["-append".into(), line.into()];
    let folder = RunFolder::create().unwrap();
    let mut qemu = job.machine().unwrap().start(&folder).unwrap();
    let mut client = Client::connect(&folder.file("socket")).unwrap();
    qemu.qmp.execute("cont").unwrap();
    let until = Instant::now() + HANG;
    while !qemu.console().contains("a child runs") {
        assert!(Instant::now() < until, "{}", qemu.console());
        harness::poll::readable(&qemu, Instant::now() + Duration::from_millis(20)).unwrap();
    }
    // It computes all the time, but for its timer's interrupts.
    let at = loop {
        assert!(Instant::now() < until, "{}", qemu.console());
        client.pause().unwrap();
        let registers = client.registers(VcpuId(0)).unwrap().unwrap().registers;
        if registers.segments[0].selector & USER == USER {
            break registers.rip;
        }
        client.unpause().unwrap();
    };
    let kind = TrapKind::Exception;
    let fault = Control::Inject { vcpu: VcpuId(0), vector: 14, kind, error: READ_BY_USER, cr2: NOBODYS };
    client.control(fault).unwrap().unwrap();
    client.unpause().unwrap();
    wait_for("the guest's end", &qemu);
    let console = qemu.console();
    // 128 and the number of SIGSEGV.
    assert!(console.contains("the child ended with status 139"), "{gate}: {console}");
    assert!(console.contains("verdict: success: outlived its child"), "{gate}: {console}");
    let told = format!("segfault at {NOBODYS:x} ip {at:016x}");
    assert!(console.contains(&told), "{gate}: {told}: {console}");
}

#[test]
fn a_page_fault_that_is_injected_into_a_program_ends_that_program_alone() {
    ends_one_program(Gate::Callback);
    if kernel_maps_write_protected() {
        ends_one_program(Gate::Mmu);
    }
}
