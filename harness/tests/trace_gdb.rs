//! gdb on a trace: it stops at the events of vCPUs, forwards and back, with the registers that their requests carried.

use crate::support::remote::Remote;
use crate::support::{command, scenario};
use harness::machine::folder::RunFolder;
use harness::run::Job;
use harness::toolstack::log::Silent;
use mem_event::registers::Registers;
use mem_event::trace::{Context, Header, Reader, Record, Remark, Writer};
use mem_event::{DomainConfig, Effect, Effects, Flags, Gfn, Input, Outcome, Ring};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A trace whose requests carry registers.
fn recorded(folder: &RunFolder) -> PathBuf {
    let mut job = Job::new(scenario("layout_vm_event7"), None).unwrap();
    job.trace = Some(folder.file("recorded"));
    job.run(&mut Silent, None).unwrap();
    folder.file("recorded")
}

/// An event as the trace has it.
struct Event {
    thread: u32,
    rip: u64,
    registers: Option<Registers>,
    code: Vec<u8>,
}

fn events_of(trace: &Path) -> Vec<Event> {
    let (mut events, mut latest) = (Vec::new(), None);
    let mut reader = Reader::open(trace).unwrap();
    while let Ok(record) = reader.record() {
        match record {
            Record::Remark(remarked) => {
                if let Remark::Registers { registers, .. } = remarked.remark {
                    latest = Some(*registers);
                }
            }
            Record::Step(step) => {
                let registers = latest.take();
                let made = step.effects.list.iter().find_map(|effect| match effect {
                    Effect::Requested { request, .. } if !request.flags.contains(Flags::FOREIGN) => Some(request.vcpu),
                    _ => None,
                });
                let (Some(vcpu), Input::Access { access, .. }) = (made, &step.input) else { continue };
                let code = step.code.get(1..).unwrap_or_default().to_vec();
                events.push(Event { thread: vcpu.0 + 1, rip: access.rip, registers, code });
            }
        }
    }
    events
}

/// The command, which has said where it listens.
fn served(folder: &RunFolder, trace: &Path) -> (Child, String) {
    let mut replay = command(folder);
    replay.arg("replay").arg(trace).args(["--gdb", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut child = replay.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().rsplit(' ').next().unwrap().to_owned();
    (child, address)
}

fn connect(address: &str) -> Remote<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    // Only the limit of what can be called a hang.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    Remote(stream)
}

impl Remote<TcpStream> {
    /// The reply, right behind the acknowledgement.
    fn reply(&mut self, packet: &str) -> String {
        self.send(packet);
        assert_eq!(self.byte(), b'+');
        assert_eq!(self.byte(), b'$');
        self.rest()
    }
}

fn word(file: &str, at: usize) -> Option<u64> {
    u64::from_str_radix(&file[16 * at..16 * at + 16], 16).ok().map(u64::swap_bytes)
}

#[test]
fn a_debugger_goes_over_the_events_forwards_and_back() {
    let folder = RunFolder::create().unwrap();
    let trace = recorded(&folder);
    let events = events_of(&trace);
    assert!(events.iter().any(|event| event.code.len() > 2));
    assert!(events.len() > 2 && events.iter().any(|event| event.registers.is_some()), "{} events", events.len());
    let (mut child, address) = served(&folder, &trace);
    let mut remote = connect(&address);
    assert!(remote.reply("qSupported:multiprocess+").contains("ReverseContinue+"));
    assert!(remote.reply("qXfer:features:read:target.xml:0,ffb").contains("i386:x86-64"));
    let mut stopped = remote.reply("?");
    for event in &events {
        assert_eq!(stopped, format!("T05thread:{:x};", event.thread));
        let file = remote.reply("g");
        assert_eq!(word(&file, 16), Some(event.rip));
        assert_eq!(word(&file, 0), event.registers.map(|registers| registers.general[0]));
        assert_eq!(word(&file, 7), event.registers.map(|registers| registers.general[4]), "RSP");
        if let [first, second, ..] = event.code.as_slice() {
            assert_eq!(remote.reply(&format!("m{:x},2", event.rip)), format!("{first:02x}{second:02x}"));
        }
        stopped = remote.reply("c");
    }
    let last = events.last().unwrap();
    assert_eq!(stopped, format!("T05replaylog:end;thread:{:x};", last.thread));
    for event in events.iter().rev().skip(1) {
        assert_eq!(remote.reply("bc"), format!("T05thread:{:x};", event.thread));
        assert_eq!(word(&remote.reply("g"), 16), Some(event.rip));
    }
    assert!(remote.reply("bs").starts_with("T05replaylog:begin;"));

    // A breakpoint is passed over until an event comes to it.
    let other = events.iter().find(|event| event.rip != events[0].rip).unwrap();
    assert_eq!(remote.reply(&format!("Z0,{:x},1", other.rip)), "OK");
    assert_eq!(remote.reply("c"), format!("T05thread:{:x};", other.thread));
    assert_eq!(word(&remote.reply("g"), 16), Some(other.rip));
    assert_eq!(remote.reply("D"), "OK");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_the_trace_does_not_hold_is_an_error_and_nonsense_harms_nothing() {
    let folder = RunFolder::create().unwrap();
    let trace = recorded(&folder);
    let (mut child, address) = served(&folder, &trace);
    let mut remote = connect(&address);
    for refused in ["m10,8", "G00", "M10,1:00", "T99", "Hg99", "mzz,1", "m0"] {
        assert!(remote.reply(refused).starts_with('E'), "{refused}");
    }
    for unknown in ["vCont?", "!", "", "Z7,10,1", "qNothing", "Q"] {
        assert_eq!(remote.reply(unknown), "", "{unknown}");
    }
    remote.0.write_all(b"$?#00").unwrap();
    assert_eq!(remote.byte(), b'-', "a sum that is wrong");
    assert!(remote.reply("?").starts_with("T05"));
    remote.0.write_all(&[b"$".as_slice(), &vec![b'x'; 1 << 15]].concat()).unwrap();
    let mut rest = Vec::new();
    // The connection ends, by a reset where bytes are left.
    let _ = remote.0.read_to_end(&mut rest);
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn a_trace_without_an_event_and_an_address_that_is_taken_are_refused() {
    let folder = RunFolder::create().unwrap();
    let header = Header::of("quiet", DomainConfig::new(1, vec![(Gfn(0), 16)]));
    let mut writer = Writer::create(folder.file("quiet"), &header).unwrap();
    writer.record(Context::default(), &Input::Kick { ring: Ring::Access }, &Outcome::Proceed, &Effects::default());
    writer.finish().unwrap();
    let refuses = |trace: &Path, address: &str, why: &str| {
        let output = command(&folder).arg("replay").arg(trace).args(["--gdb", address]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(why), "{said}");
    };
    refuses(&folder.file("quiet"), "127.0.0.1:0", "no event of a vCPU");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    refuses(&recorded(&folder), &address, &format!("cannot listen at {address}"));
}

#[test]
fn gdb_itself_shows_registers_and_goes_back() {
    if Command::new("gdb").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: needs gdb");
        return;
    }
    let folder = RunFolder::create().unwrap();
    let trace = recorded(&folder);
    let events = events_of(&trace);
    let (mut child, address) = served(&folder, &trace);
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-ex", &format!("target remote {address}")]).stdin(Stdio::null());
    for order in ["continue", "reverse-continue", "print/x $rip", "print/x $rsp", "x/i $rip", "info threads", "detach"]
    {
        gdb.args(["-ex", order]);
    }
    let output = gdb.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&format!("$1 = {:#x}", events[0].rip)), "{text}");
    let stack = events[0].registers.map(|registers| registers.general[4]).unwrap();
    assert!(text.contains(&format!("$2 = {stack:#x}")), "{text}");
    assert!(text.contains("=> ") && text.contains("vCPU 0, step "), "{text}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
