//! What gdb asks, and what it is answered.

use super::events::{Event, Events};
use super::packet::{LONGEST, Packets, hex};
use mem_event::registers::Registers;
use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::io::{self, Read, Seek, Write};

/// What gdb must know of the machine; the rest of its registers are those of every such machine.
const TARGET: &str = "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\"><architecture>i386:x86-64</architecture></target>";
/// `EFAULT`: what is asked for is not in the trace.
const NOT_THERE: &str = "E0e";

/// gdb at one event of a trace.
pub struct Session<R: Read + Seek> {
    events: Events<R>,
    /// The event that gdb stands at.
    at: usize,
    /// The thread that registers are of, and the one that steps: a vCPU's number and 1, or 0 for any.
    shown: u64,
    stepping: u64,
    breakpoints: BTreeSet<u64>,
}

/// What follows a packet.
enum Next {
    Answer(String),
    /// gdb goes, and the answer is its last.
    Leave(String),
}

/// Forwards, or back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    On,
    Back,
}

impl<R: Read + Seek> Session<R> {
    /// At the first event of some, of which there is at least one.
    pub fn new(events: Events<R>) -> Session<R> {
        Session { events, at: 0, shown: 0, stepping: 0, breakpoints: BTreeSet::new() }
    }

    /// Answers until gdb goes.
    ///
    /// # Errors
    /// The stream's.
    pub fn serve(mut self, stream: impl Read + Write) -> io::Result<()> {
        let mut packets = Packets::new(stream);
        while let Some(packet) = packets.receive()? {
            match self.answer(&packet) {
                Next::Answer(text) => packets.send(&text)?,
                Next::Leave(text) => return packets.send(&text),
            }
        }
        Ok(())
    }

    fn event(&self) -> Event {
        self.events.list[self.at]
    }

    fn answer(&mut self, packet: &str) -> Next {
        let (head, rest) = packet.split_at(packet.chars().next().map_or(0, char::len_utf8));
        let answer = match head {
            "?" => self.stands(""),
            "g" => self.registers(),
            "m" => self.memory(rest),
            "c" => self.goes(Way::On),
            "s" => self.steps(Way::On),
            "b" if rest == "c" => self.goes(Way::Back),
            "b" if rest == "s" => self.steps(Way::Back),
            "H" => self.chooses(rest),
            "T" => match thread(rest) {
                Some(number) if self.last_of(number).is_some() => "OK".into(),
                _ => NOT_THERE.into(),
            },
            "Z" | "z" => self.sets(head == "Z", rest),
            "q" => self.tells(rest),
            // A trace is what it is.
            "G" | "M" | "X" | "P" => NOT_THERE.into(),
            "D" => return Next::Leave("OK".into()),
            "k" => return Next::Leave(String::new()),
            _ => String::new(),
        };
        Next::Answer(answer)
    }

    /// Where gdb stands, and why not further.
    fn stands(&self, why: &str) -> String {
        format!("T05{why}thread:{:x};", self.event().vcpu.0 + 1)
    }

    fn goes(&mut self, way: Way) -> String {
        let wanted = self.breakpoints.clone();
        self.moves(way, |event| wanted.is_empty() || wanted.contains(&event.rip))
    }

    /// To the next event of the vCPU that gdb has chosen.
    fn steps(&mut self, way: Way) -> String {
        let thread = if self.stepping == 0 { u64::from(self.event().vcpu.0) + 1 } else { self.stepping };
        self.moves(way, |event| u64::from(event.vcpu.0) + 1 == thread)
    }

    fn moves(&mut self, way: Way, stops: impl Fn(&Event) -> bool) -> String {
        let list = &self.events.list;
        let found = match way {
            Way::On => (self.at + 1..list.len()).find(|at| stops(&list[*at])),
            Way::Back => (0..self.at).rev().find(|at| stops(&list[*at])),
        };
        self.shown = 0;
        if let Some(at) = found {
            self.at = at;
            return self.stands("");
        }
        self.at = if way == Way::On { list.len() - 1 } else { 0 };
        self.stands(if way == Way::On { "replaylog:end;" } else { "replaylog:begin;" })
    }

    /// The last event of a thread up to here, of 0 the one that gdb stands at.
    fn last_of(&self, thread: u64) -> Option<Event> {
        if thread == 0 {
            return Some(self.event());
        }
        let so_far = self.events.list[..=self.at].iter().rev();
        so_far.copied().find(|event| u64::from(event.vcpu.0) + 1 == thread)
    }

    fn chooses(&mut self, rest: &str) -> String {
        let (for_registers, number) = match rest.strip_prefix('g') {
            Some(number) => (true, number),
            None => (false, rest.strip_prefix('c').unwrap_or_default()),
        };
        let number = if number == "-1" { Some(0) } else { thread(number) };
        let Some(number) = number.filter(|number| self.last_of(*number).is_some()) else { return NOT_THERE.into() };
        if for_registers {
            self.shown = number;
        } else {
            self.stepping = number;
        }
        "OK".into()
    }

    fn registers(&mut self) -> String {
        let Some(event) = self.last_of(self.shown) else { return NOT_THERE.into() };
        match self.events.registers(event) {
            Some(registers) => file(&registers),
            // All that is known is where the vCPU was.
            None => format!("{}{}{}", "x".repeat(16 * 16), word(event.rip), "x".repeat(7 * 8)),
        }
    }

    fn memory(&self, rest: &str) -> String {
        let numbers = rest.split_once(',').and_then(|(address, length)| {
            Some((u64::from_str_radix(address, 16).ok()?, usize::from_str_radix(length, 16).ok()?))
        });
        let Some((address, length)) = numbers else { return "E16".into() };
        match self.events.memory(address, length) {
            [] => NOT_THERE.into(),
            bytes => hex(bytes),
        }
    }

    /// Breakpoints of either kind are places that events are compared with.
    fn sets(&mut self, on: bool, rest: &str) -> String {
        let mut parts = rest.split(',');
        let (kind, address) = (parts.next(), parts.next().and_then(|address| u64::from_str_radix(address, 16).ok()));
        let (Some("0" | "1"), Some(address)) = (kind, address) else { return String::new() };
        if on {
            self.breakpoints.insert(address);
        } else {
            self.breakpoints.remove(&address);
        }
        "OK".into()
    }

    fn tells(&mut self, rest: &str) -> String {
        if rest.starts_with("Supported") {
            return format!("PacketSize={LONGEST:x};ReverseStep+;ReverseContinue+;qXfer:features:read+");
        }
        if let Some(part) = rest.strip_prefix("Xfer:features:read:target.xml:") {
            return part_of(TARGET, part);
        }
        if let Some(number) = rest.strip_prefix("ThreadExtraInfo,") {
            let event = thread(number).and_then(|number| self.last_of(number));
            return event.map_or_else(|| NOT_THERE.into(), |event| hex(self.events.about(event).as_bytes()));
        }
        match rest {
            "C" => format!("QC{:x}", self.event().vcpu.0 + 1),
            "fThreadInfo" => {
                let so_far: BTreeSet<u32> = self.events.list[..=self.at].iter().map(|it| it.vcpu.0 + 1).collect();
                let numbers: Vec<String> = so_far.into_iter().map(|number| format!("{number:x}")).collect();
                format!("m{}", numbers.join(","))
            }
            "sThreadInfo" => "l".into(),
            // It was there before gdb came, so gdb leaves it and does not end it.
            "Attached" => "1".into(),
            _ => String::new(),
        }
    }
}

impl<R: Read + Seek> fmt::Debug for Session<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("events", &self.events).field("at", &self.at).finish_non_exhaustive()
    }
}

fn thread(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

/// `OFFSET,LENGTH` of a text: `m` and a part, or `l` and the last one.
fn part_of(text: &str, part: &str) -> String {
    let numbers = part.split_once(',').and_then(|(offset, length)| {
        Some((usize::from_str_radix(offset, 16).ok()?, usize::from_str_radix(length, 16).ok()?))
    });
    let Some((offset, length)) = numbers else { return "E16".into() };
    let rest = text.get(offset..).unwrap_or_default();
    let taken = rest.get(..length).unwrap_or(rest);
    format!("{}{taken}", if taken.len() < rest.len() { 'm' } else { 'l' })
}

fn word(value: u64) -> String {
    hex(&value.to_le_bytes())
}

/// The general registers in gdb's order, RIP, EFLAGS, and six selectors.
fn file(registers: &Registers) -> String {
    let Registers { general, rflags, rip, segments, .. } = registers;
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, upper @ ..] = *general;
    let mut text: String = [rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp].into_iter().chain(upper).map(word).collect();
    text += &word(*rip);
    let [cs, ss, ds, es, fs, gs] = segments.map(|segment| u32::from(segment.selector));
    let flags = u32::try_from(rflags & 0xffff_ffff).unwrap_or(0);
    for small in [flags, cs, ss, ds, es, fs, gs] {
        // A text takes what is written.
        let _ = write!(text, "{}", hex(&small.to_le_bytes()));
    }
    text
}
