//! Whose a breakpoint is: several clients have theirs on one byte and on one frame, and one that is killed leaves the others', and no byte of its own.

use crate::support::remote::Remote;
use crate::support::{command, gates, machine_under, next_request, unless_busy};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::Scenario;
use mem_event::message::{BreakpointReport, Call, Over, Reply};
use mem_event::{Control, Cpu, CpuEventKind, Errno, Event, Gpa, MonitorMode, Request, Ring};
use mem_event_client::{Channel, Client, RingSettings};
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::Duration;

const INT3: u8 = 0xcc;
/// In the loop of the guest `endless`: where it reads its word, and where it writes it.
const READS: u64 = 0x2c;
const WRITES: u64 = 0x33;

struct Endless {
    qemu: Qemu,
    folder: RunFolder,
    job: Job,
}

impl Endless {
    fn new(gate: Gate) -> Endless {
        let mut scenario = Scenario::bare("endless");
        scenario.consumers.listener.get_or_insert_default();
        let (qemu, folder, job) = machine_under(gate, scenario);
        Endless { qemu, folder, job }
    }

    fn client(&self) -> Client {
        Client::connect(&self.folder.file("socket")).unwrap()
    }

    fn listener(&self) -> Channel {
        let enable = || Channel::enable(&self.folder.file("socket"), Ring::Access, RingSettings::default());
        unless_busy(enable).unwrap()
    }

    fn at(&self, offset: u64) -> Gpa {
        Gpa(self.job.symbols().find("endless_loop").unwrap().gpa.0 + offset)
    }
}

fn byte(client: &mut Client, gpa: Gpa) -> u8 {
    client.read(gpa.gfn(), gpa.offset(), 1).unwrap()[0]
}

fn write(client: &mut Client, gpa: Gpa, byte: u8) {
    client.values(&Call::WriteFrame { gfn: gpa.gfn(), offset: gpa.offset(), bytes: vec![byte] }).unwrap();
}

/// Puts a breakpoint there; the byte beneath, and how many others have one there.
fn put(client: &mut Client, gpa: Gpa, stays: bool) -> (u8, u64) {
    let over = client.set_breakpoint(gpa, stays).unwrap();
    assert_eq!(over.over, Over::Brought, "QEMU exports what that takes");
    (over.beneath, over.others)
}

fn answer(channel: &mut Channel, request: &Request) {
    channel.answer(&request.answer());
    channel.kick().unwrap();
}

/// The next breakpoint of a ring; steps that somebody before has left on are answered.
fn next_break(channel: &mut Channel) -> (Request, Gpa) {
    loop {
        let request = next_request(channel);
        match request.event {
            Event::Cpu(Cpu::Int3 { rip, gfn }) => return (request, Gpa(gfn.gpa().0 | rip.0 & 0xfff)),
            _ => answer(channel, &request),
        }
    }
}

#[test]
fn a_killed_attach_leaves_the_breakpoints_of_others_on_its_byte_and_its_frame_and_none_of_its_own() {
    for gate in gates() {
        let mut guest = Endless::new(gate);
        let (reads, writes, adds) = (guest.at(READS), guest.at(WRITES), guest.at(READS + 3));
        let mut other = guest.client();
        let whole = [reads, writes, adds].map(|gpa| byte(&mut other, gpa));
        assert_eq!(put(&mut other, reads, false), (whole[0], 0));
        assert_eq!(put(&mut other, writes, false), (whole[1], 0));

        let mut attach = command(&guest.folder);
        attach
            .arg("attach")
            .arg(guest.folder.file("socket"))
            .arg("--guest")
            .arg(&guest.job.guest.as_ref().unwrap().path);
        attach.args(["--json", "--break", "endless_loop+0x2c", "--break", "endless_loop+0x2f"]).stdout(Stdio::piped());
        let mut attach = attach.spawn().unwrap();
        let mut lines = BufReader::new(attach.stdout.take().unwrap()).lines().map(Result::unwrap);
        lines.next().unwrap();
        guest.qemu.qmp.execute("cont").unwrap();
        // Rounds in which it steps over the other's breakpoint, and tells of its own two.
        let told: Vec<String> = lines.by_ref().filter(|line| line.contains("\"reason\":\"int3\"")).take(40).collect();
        assert!(told.iter().all(|line| !line.contains("endless_loop+0x33")), "{told:?}");
        attach.kill().unwrap();
        attach.wait().unwrap();
        drop(lines);

        // A client that comes now is served when the end of those before it has been.
        let mut later = guest.client();
        let own =
            |gpa, connection, beneath, is_own| BreakpointReport { gpa, connection, beneath, stays: false, is_own };
        let number = Some(other.number());
        let left = [own(reads, number, whole[0], false), own(writes, number, whole[1], false)];
        assert_eq!(later.breakpoints().unwrap(), left, "{gate}");
        assert_eq!(other.breakpoints().unwrap(), left.map(|report| BreakpointReport { is_own: true, ..report }));
        assert_eq!([reads, writes, adds].map(|gpa| byte(&mut later, gpa)), [INT3, INT3, whole[2]], "{gate}");

        // The other has the ring now, and meets its own two, as often as it wants; then the code is whole, and runs.
        let mut ring = guest.listener();
        for kind in [CpuEventKind::Int3, CpuEventKind::SingleStep] {
            let _ =
                ring.client.control(Control::Monitor { kind, mode: MonitorMode::Sync, on_change_only: false }).unwrap();
        }
        let mut met = Vec::new();
        while met.len() < 2 {
            let (request, gpa) = next_break(&mut ring);
            // One that was told to the predecessor may be of a byte that is whole again.
            if other.breakpoints().unwrap().iter().any(|report| report.gpa == gpa) {
                met.push(gpa);
                assert_eq!(other.clear_breakpoint(gpa).unwrap(), 0);
            }
            answer(&mut ring, &request);
        }
        met.sort();
        assert_eq!(met, [reads, writes]);
        assert_eq!([reads, writes, adds].map(|gpa| byte(&mut later, gpa)), whole);
        assert_eq!(later.breakpoints().unwrap(), []);
        let counts = guest.job.symbols().find("COUNTS").unwrap().gpa;
        let before = later.read(counts.gfn(), counts.offset(), 8).unwrap();
        while later.read(counts.gfn(), counts.offset(), 8).unwrap() == before {
            if let Some(request) = ring.take() {
                answer(&mut ring, &request);
            }
        }
    }
}

#[test]
fn a_byte_comes_back_with_the_last_whose_it_is_unless_it_stays_or_the_guest_has_overwritten_it() {
    let guest = Endless::new(Gate::Callback);
    let (one, two, mut later) = (guest.at(READS), guest.at(WRITES), guest.client());
    let whole = byte(&mut later, one);
    let (mut first, mut second) = (guest.client(), guest.client());
    assert_eq!(put(&mut first, one, false), (whole, 0));
    assert_eq!(put(&mut second, one, true), (whole, 1));
    assert_eq!(put(&mut first, two, false).1, 0);
    // Whoever has none there cannot clear it, and the frame is nobody's to take.
    let clear = Call::ClearBreakpoint { gfn: one.gfn(), offset: one.offset() };
    let Reply::Refused(Errno::EINVAL, why) = later.call(&clear).unwrap() else { panic!("it is another's") };
    assert!(why.contains("no breakpoint"), "{why}");
    let _pager = Channel::enable(&guest.folder.file("socket"), Ring::Paging, RingSettings::default()).unwrap();
    let nominated = later.control(Control::Nominate { gfn: one.gfn() }).unwrap();
    assert_eq!(nominated.unwrap_err().0, Errno::EBUSY);
    // Stepping over it, its owner writes the byte; another's end puts the breakpoint back for those who are left.
    write(&mut first, one, whole);
    // What the guest, or a debugger, has put there since is nobody's to take back.
    write(&mut first, two, 0x90);
    drop(first);
    let mut after = guest.client();
    assert_eq!((byte(&mut after, one), byte(&mut after, two)), (INT3, 0x90));
    let connection = Some(second.number());
    drop(second);
    let mut after = guest.client();
    let left = after.breakpoints().unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!((left[0].connection, left[0].stays, left[0].beneath), (None, true, whole), "it was {connection:?}'s");
    assert_eq!(byte(&mut after, one), INT3);
    let status =
        command(&guest.folder).arg("status").arg("--release").arg(guest.folder.file("socket")).output().unwrap();
    let said = String::from_utf8_lossy(&status.stdout);
    assert!(said.contains(&format!("released  the breakpoint at {one}")), "{said}");
    assert_eq!(byte(&mut after, one), whole);
    assert_eq!(after.breakpoints().unwrap(), []);
    after.control(Control::Nominate { gfn: one.gfn() }).unwrap().unwrap();
}

#[test]
fn gdb_and_a_consumer_stop_at_one_byte_each_for_itself() {
    let mut scenario = Scenario::bare("endless");
    scenario.consumers.listener.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    let folder = RunFolder::create().unwrap();
    let stub = folder.file("stub");
    job.extra = vec!["-gdb".into(), format!("unix:{},server=on,wait=off", stub.display()).into()];
    let qemu = job.machine().unwrap().start(&folder).unwrap();
    let guest = Endless { qemu, folder, job };
    let (reads, mut ring) = (guest.at(READS), guest.listener());
    ring.client
        .control(Control::Monitor { kind: CpuEventKind::Int3, mode: MonitorMode::Sync, on_change_only: false })
        .unwrap()
        .unwrap();
    let (whole, _) = put(&mut ring.client, reads, false);

    let stream = UnixStream::connect(&stub).unwrap();
    // Only the limit of what can be called a hang.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut gdb = Remote(stream);
    gdb.ask("?");
    assert_eq!(gdb.ask(&format!("Z0,{:x},1", reads.0)), "OK");
    let stopped = gdb.ask("c");
    assert!(stopped.starts_with("T05"), "gdb comes first: {stopped}");
    assert!(!ring.is_pending(), "the instruction has not begun");
    assert_eq!(gdb.ask(&format!("m{:x},1", reads.0)), "cc", "gdb sees what is in memory");
    assert_eq!(gdb.ask(&format!("z0,{:x},1", reads.0)), "OK");
    gdb.send("c");
    let (request, gpa) = next_break(&mut ring);
    assert_eq!(gpa, reads);
    assert_eq!(ring.client.clear_breakpoint(reads).unwrap(), 0);
    answer(&mut ring, &request);
    assert_eq!(byte(&mut ring.client, reads), whole);
}
