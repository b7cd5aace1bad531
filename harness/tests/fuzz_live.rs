//! A live QEMU whose clients and consumers send and write what they like: calls on the control socket, words on the ring page. The
//! plugin answers each, or refuses; it never panics, and QEMU never dies of it. A guest whose memory was written, or whose rings are
//! nobody's, may come to grief: then there is another.
//!
//! The fuzzer, and the variables that make it run for long or on one input, are `fuzz/`'s.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use mem_event::message::{Call, HEADER, Notice, Reply};
use mem_event::page::{Index, RingPage};
use mem_event::{AccessType, Control, Layout, PAGE_SIZE, Ring};
use mem_event_client::Client;
use mem_event_fuzz::Target;
use rustix::fd::OwnedFd;
use rustix::net::{RecvFlags, SendFlags};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::Ordering;
use support::storm::Storm;
use support::wait_for;

/// Inputs that one guest sees.
const LIFE: u32 = 2_000;
/// The variable by which the second process knows that it is that.
const SCRIBBLER: &str = "MEM_EVENT_SCRIBBLER";

/// A live guest; the next one where it has ended.
struct Live {
    storm: Option<Storm>,
    inputs: u32,
}

impl Live {
    fn new() -> Live {
        Live { storm: None, inputs: 0 }
    }

    /// The guest, and whether it is new.
    fn storm(&mut self) -> (&mut Storm, bool) {
        let is_new = self.storm.is_none();
        (self.storm.get_or_insert_with(Storm::endless), is_new)
    }

    /// After an input: the service answers, or QEMU has come to its own end. False: the next input meets another guest.
    fn goes_on(&mut self) -> bool {
        let Some(mut storm) = self.storm.take() else { return false };
        self.inputs += 1;
        let answers = storm.toolstack.info().is_ok();
        if !answers {
            wait_for("QEMU's end", &storm.qemu);
            let status = storm.qemu.wait().unwrap();
            assert_eq!(status.signal(), None, "QEMU died: {}", storm.qemu.errors());
        }
        let said = storm.qemu.errors();
        assert!(!said.contains("panicked"), "{said}");
        if answers && !self.inputs.is_multiple_of(LIFE) {
            self.storm = Some(storm);
        }
        self.storm.is_some()
    }
}

/// Bytes of a call in an input.
const CALL: usize = 8;

/// A packet from eight bytes: an operation, five arguments that are small for the most part, what is odd about it, whose it is.
fn packet(of: &[u8; CALL]) -> Vec<u8> {
    let [operation, first, second, third, fourth, fifth, odd, _] = *of;
    let operation = u16::from(operation) % 40;
    let payload = match (operation, odd >> 6) {
        (7, 0..3) => PAGE_SIZE,
        (6, 0..3) => usize::from(fifth) + 1,
        (_, 3) => usize::from(fifth) * 17,
        _ => 0,
    };
    let mut packet = Call::Info.encode(1);
    packet[6..8].copy_from_slice(&operation.to_le_bytes());
    // Frame numbers reach over the guest's 16384 frames, most of them in its first megabytes.
    let frame = u64::from(first) << (odd & 6) | u64::from(second) & 1;
    let arguments = [frame, u64::from(second), u64::from(third), u64::from(fourth), u64::from(fifth)];
    for (number, argument) in arguments.into_iter().enumerate() {
        let is_odd = odd & 0x38 == 0x38 && odd & 7 == u8::try_from(number).unwrap();
        let argument = if is_odd { argument.wrapping_neg() } else { argument };
        // What a crash of the domain is asked for by ends each guest soon: seldom is enough.
        let argument = if operation == 19 && number == 1 && odd != 1 { argument & 2 } else { argument };
        packet[16 + 8 * number..24 + 8 * number].copy_from_slice(&argument.to_le_bytes());
    }
    // A ring's number, where one is due.
    if (16..20).contains(&operation) && odd & 0x38 != 0x38 {
        packet[16..24].copy_from_slice(&(u64::from(first) % 4).to_le_bytes());
    }
    packet[56..60].copy_from_slice(&u32::try_from(payload).unwrap().to_le_bytes());
    packet.resize(HEADER + payload, fourth);
    if odd == 0xff {
        packet.truncate(usize::from(first) + 1);
    }
    packet
}

/// Sends a packet and waits for its reply; `None` where the connection ended.
fn exchange(client: &OwnedFd, packet: &[u8]) -> Option<Reply> {
    rustix::net::send(client, packet, SendFlags::NOSIGNAL).ok()?;
    loop {
        wait_for("a reply, or the end", client);
        let mut bytes = vec![0; HEADER + PAGE_SIZE];
        let length = rustix::net::recv(client, &mut bytes[..], RecvFlags::empty()).map_or(0, |(length, _)| length);
        match &bytes[..length] {
            [] => return None,
            notice if Notice::is_notice(notice) => {}
            reply => return Some(Reply::decode(reply).unwrap().1),
        }
    }
}

fn in_words(reply: Option<&Reply>) -> String {
    match reply {
        None => "ended".into(),
        Some(Reply::Done(values)) => format!("done{}", if values[0] == 0 { "" } else { "+" }),
        Some(Reply::Bytes(_)) => "bytes".into(),
        Some(Reply::Refused(errno, why)) => format!("{errno} {}", why.split(' ').take(3).collect::<Vec<_>>().join(" ")),
    }
}

#[test]
fn the_control_socket_of_a_live_domain_answers_or_refuses_every_call() {
    // Each operation once; rings that begin and end; a page that leaves and comes back; watching; what is torn.
    let mut seeds: Vec<Vec<u8>> = (0..40).map(|operation| vec![operation, 1, 1, 1, 0, 0, 0, 0]).collect();
    seeds.push(vec![
        16, 1, 1, 0, 0, 0, 0, 0, 28, 9, 0, 0, 0, 0, 0, 1, 24, 80, 0, 0, 0, 0, 6, 0, 25, 80, 0, 0, 0, 0, 6, 1,
    ]);
    seeds.push(vec![
        16, 1, 1, 0, 0, 0, 0, 0, 24, 80, 0, 0, 0, 0, 6, 0, 25, 80, 0, 0, 0, 0, 6, 1, 7, 80, 0, 0, 0, 0, 6, 0,
    ]);
    seeds.push(vec![
        20, 80, 16, 0, 0, 0, 6, 0, 21, 80, 0, 0, 0, 0, 6, 1, 17, 2, 0, 0, 0, 0, 0, 1, 16, 2, 1, 4, 0, 0, 0, 2,
    ]);
    seeds
        .push(vec![29, 1, 2, 0, 0, 0, 0, 0, 30, 1, 1, 0, 0, 0, 0, 1, 31, 9, 0, 0, 0, 0, 6, 1, 32, 9, 0, 0, 0, 0, 6, 1]);
    seeds.push(vec![3, 0, 0, 0, 0, 0, 0xff, 2, 1, 0, 0, 0, 0, 200, 0xc0, 2]);
    let mut live = Live::new();
    let mut clients: [Option<OwnedFd>; 3] = [None, None, None];
    let mut target = Target::new("control socket", seeds, 2_000);
    target.longest = 32 * CALL;
    target.run(|bytes| {
        let (storm, is_new) = live.storm();
        if is_new {
            clients = [None, None, None];
        }
        let socket = storm.socket();
        let mut words = Vec::new();
        for of in bytes.as_chunks::<CALL>().0 {
            let place = &mut clients[usize::from(of[7]) % 3];
            // Somebody who is refused at the door meets a QEMU that ends.
            let Some(client) = place.take().or_else(|| Client::connect(&socket).ok().map(Client::into_socket)) else {
                break;
            };
            let reply = exchange(&client, &packet(of));
            words.push(in_words(reply.as_ref()));
            *place = reply.map(|_| client);
        }
        storm.answer_pending(8);
        live.goes_on();
        words.join(", ")
    });
}

/// The second process: it maps the page that it is told of, and writes what it is told, again and again while the guest runs.
#[test]
fn scribbler() {
    if std::env::var_os(SCRIBBLER).is_none() {
        return;
    }
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let mut page = None;
    for line in std::io::stdin().lines().map_while(Result::ok) {
        match line.split_once(' ') {
            Some(("page", path)) => {
                let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
                page = Some(RingPage::map(&file).unwrap());
            }
            Some(("write", hex)) => {
                let numbers: Vec<u8> = hex.split('.').filter_map(|number| number.parse().ok()).collect();
                let page = page.as_ref().expect("a page");
                (0..20).for_each(|_| numbers.as_chunks::<4>().0.iter().for_each(|four| scribble(page, *four)));
            }
            _ => {}
        }
        eprintln!("done");
    }
}

/// One write: an index, a word of a slot, something that is nearly a response, responses shown.
fn scribble(page: &RingPage, [what, at, low, high]: [u8; 4]) {
    let value = u32::from(low) | u32::from(high) << 8;
    match what {
        0..8 => page.write_header(usize::from(at) % 16, value << (what * 2)),
        8..64 => {
            let answered = page.load(Index::RspProd, Ordering::Relaxed);
            page.store(Index::RspProd, answered.wrapping_add(u32::from(low & 3)), Ordering::Release);
        }
        64..112 => page.store(Index::RspProd, page.load(Index::ReqProd, Ordering::Acquire), Ordering::Release),
        112..160 => page.write_word(usize::from(at), u64::from(value) << (what & 48)),
        _ => {
            // Flags and vCPU, the frame, the rest.
            let slot = 5 * (usize::from(at) % 4);
            page.write_word(slot, u64::from(low & 31) | u64::from(high % 12) << 32);
            page.write_word(slot + 1, u64::from(value));
            page.write_word(slot + 4, u64::from(low) << 32 | 1 << 48);
        }
    }
}

/// The other process, and what one tells it.
struct Scribbler {
    child: Child,
    orders: ChildStdin,
    done: BufReader<std::process::ChildStderr>,
}

impl Scribbler {
    fn start() -> Scribbler {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "scribbler", "--nocapture"]).env(SCRIBBLER, "1");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (orders, done) = (child.stdin.take().unwrap(), BufReader::new(child.stderr.take().unwrap()));
        Scribbler { child, orders, done }
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    fn is_done(&mut self) {
        let mut line = String::new();
        self.done.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }
}

impl Drop for Scribbler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A ring of the live domain, and the descriptors that came with it.
struct Held {
    _client: Client,
    page: OwnedFd,
    signal: OwnedFd,
}

/// Ends the ring that is there and begins one of our own; `None` where QEMU is ending.
fn take_ring(storm: &mut Storm) -> Option<Held> {
    // Without a ring nobody would stop the guest.
    storm.qemu.qmp.execute("stop").ok()?;
    // There is none where it ended with its consumer.
    let _ = storm.toolstack.control(Control::Disable { ring: Ring::Access, drain: true }).ok()?;
    let mut client = Client::connect(&storm.socket()).ok()?;
    let enable = Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 4 };
    let [page, _, signal] = client.enable(enable).ok()?;
    storm.set(AccessType::N);
    storm.qemu.qmp.execute("cont").ok()?;
    Some(Held { _client: client, page, signal })
}

#[test]
fn the_ring_page_of_a_live_domain_may_hold_anything() {
    let seeds = vec![
        vec![200, 0, 1, 0, 64, 0, 0, 0, 200, 1, 1, 1, 64, 0, 0, 0],
        vec![8, 0, 1, 0, 112, 3, 9, 0, 64, 0, 0, 0],
        vec![0, 3, 1, 0, 0, 4, 1, 0, 3, 2, 255, 255],
        vec![200, 2, 17, 3, 8, 0, 3, 0, 200, 3, 255, 11, 64, 0, 0, 0],
    ];
    let (mut live, mut scribbler) = (Live::new(), Scribbler::start());
    let (mut held, mut breaks) = (None::<Held>, 0);
    let mut target = Target::new("ring page", seeds, 150);
    target.longest = 64 * 4;
    target.run(|bytes| {
        let (storm, is_new) = live.storm();
        if is_new {
            (held, breaks) = (None, 0);
        }
        if held.is_none() {
            held = take_ring(storm);
            if let Some(held) = &held {
                scribbler.tell(&format!("page /proc/{}/fd/{}", std::process::id(), held.page.as_raw_fd()));
                scribbler.is_done();
            }
        }
        let Some(ring) = &held else {
            return format!("no ring{}", if live.goes_on() { "" } else { "; another guest" });
        };
        let page = RingPage::map(&ring.page).unwrap();
        let before = page.load(Index::ReqProd, Ordering::Acquire);
        let numbers: Vec<String> = bytes.iter().map(u8::to_string).collect();
        scribbler.tell(&format!("write {}", numbers.join(".")));
        // Signalled while it writes, and once after.
        (0..8).for_each(|_| _ = rustix::io::write(&ring.signal, &1u64.to_ne_bytes()));
        scribbler.is_done();
        let _ = rustix::io::write(&ring.signal, &1u64.to_ne_bytes());
        let events = page.load(Index::ReqProd, Ordering::Acquire).wrapping_sub(before).min(40);
        // Takes what the signals did not bring about yet, so that it is this input's.
        let resumed = storm.toolstack.values(&Call::Control(Control::Resume { ring: Ring::Access }));
        let reports = storm.toolstack.vcpus().unwrap_or_default();
        let vcpus: Vec<_> = reports.iter().map(|report| report.standing).collect();
        let broken = storm.qemu.errors().matches("the access ring is broken").count();
        let how = if resumed.is_err() {
            "gone"
        } else if broken > breaks {
            "broken"
        } else {
            "stands"
        };
        breaks = broken;
        if how != "stands" {
            held = None;
        }
        let goes_on = live.goes_on();
        format!("{how} {goes_on} {} {vcpus:?}", ".".repeat(usize::try_from(events).unwrap_or(0)))
    });
}
