//! QEMU's own stub beside the plugin: a vCPU that an event parked shows the instruction whose access waits.

use crate::support::remote::Remote;
use crate::support::{scenario, wait_for};
use harness::machine::folder::RunFolder;
use harness::run::Job;
use mem_event::message::{Call, Notice};
use mem_event::{AccessType, Control, Event, Ring, VcpuId};
use mem_event_client::channel::{Channel, RingSettings};
use mem_event_client::socket::Client;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

fn connect(socket: &Path) -> Remote<UnixStream> {
    let stream = UnixStream::connect(socket).unwrap();
    // Only the limit of what can be called a hang.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    Remote(stream)
}

/// The instruction pointer among the registers, which come as bytes in hexadecimal: sixteen general ones, then it.
fn rip(registers: &str) -> u64 {
    let bytes: Vec<u8> =
        (0..8).map(|at| u8::from_str_radix(&registers[16 * 16 + 2 * at..16 * 16 + 2 * at + 2], 16).unwrap()).collect();
    u64::from_le_bytes(bytes.try_into().unwrap())
}

#[test]
fn a_vcpu_parked_by_an_event_stands_before_the_instruction_that_waits() {
    let mut job = Job::new(scenario("read_write"), None).unwrap();
    let folder = RunFolder::create().unwrap();
    let stub = folder.file("stub");
    job.extra = vec!["-gdb".into(), format!("unix:{},server=on,wait=off", stub.display()).into()];
    let mut qemu = job.machine().unwrap().start(&folder).unwrap();
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    qemu.qmp.execute("cont").unwrap();
    wait_for("the first checkpoint", &toolstack);
    assert!(matches!(toolstack.notice().unwrap(), Some(Notice::Checkpoint { number: 1, .. })));
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
    let page = job.symbols().find("WATCHED").unwrap().gpa.gfn();
    let set = Control::SetAccess { first: page, count: 1, access: AccessType::N };
    toolstack.values(&Call::Control(set)).unwrap();
    toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    // The descriptor may be signalled before the vCPU has come so far.
    let request = loop {
        wait_for("the first event", &channel);
        if let Some(request) = channel.take() {
            break request;
        }
        std::thread::yield_now();
    };
    assert!(matches!(request.event, Event::Violation { offset: 0x10, .. }));

    let mut remote = connect(&stub);
    let stopped = remote.ask("?");
    assert!(stopped.starts_with('T') || stopped.starts_with('S'), "{stopped}");
    let reads = job.symbols().find("access_read").unwrap().gpa.0;
    assert_eq!(rip(&remote.ask("g")), reads, "it stands before the read, which has not happened");
    let code = remote.ask(&format!("m{reads:x},3"));
    assert_eq!(code, "488b07", "mov rax, [rdi]");
    // It goes on, and still waits for its answer.
    assert_eq!(remote.ask("D"), "OK");
    assert!(!channel.is_pending(), "the event came once");
}
