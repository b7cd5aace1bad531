//! The sequence of a run as text that a person can read: one line an event with its answer, no clocks, no host addresses.

use super::doing::{self, Doing};
use super::who::Who;
use crate::guest::symbols::Symbols;
use crate::output;
use crate::scenario::At;
pub use mem_event::trace::remark::Point;
use mem_event::{Cpu, Event, Flags, Gfn, Gla, Gpa, Request, Response, Rights, Ring, VcpuId, ViewId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Whether a vCPU that stopped here is where a step of a scenario is.
#[must_use]
pub fn is_at(point: Point, step: &At, symbols: &Symbols) -> bool {
    match (step, point) {
        (At::Number(number), Point::Number(reached)) => *number == reached,
        (At::Place(place), Point::Place(reached)) => place.address(symbols).is_ok_and(|gpa| gpa == reached),
        _ => false,
    }
}

/// The note of an event that is only there for another's sake: a step over a break, a register that tells of a kernel's boot.
pub const BESIDE: &str = "go on";

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A vCPU stopped at a checkpoint.
    Checkpoint {
        /// The vCPU.
        vcpu: VcpuId,
        /// Where.
        at: Point,
        /// What the guest says with it. Not shown, it may be a measurement; but where the third is a symbol's address, the
        /// symbol is: by it a guest names what comes next.
        arguments: [u64; 3],
        /// What was done there.
        done: Vec<Doing>,
    },
    /// A request and its answer.
    Event {
        /// The ring.
        ring: Ring,
        /// The request.
        request: Request,
        /// The instruction's linear address, 0 where it is not known.
        rip: u64,
        /// When it was asked, in nanoseconds since the record's beginning; never shown, since a sequence has no clocks.
        since: u64,
        /// What the consumer did before it answered.
        done: Vec<Doing>,
        /// The answer, if there was one, and how long it took from the request to it.
        answer: Option<(Response, Duration)>,
    },
    /// What a connection did outside of an answer.
    Act {
        /// The connection, by its number in the record.
        connection: u32,
        /// Who that is: the rings that it holds, or its program.
        who: String,
        /// What it did.
        doing: Doing,
        /// How often in a row, to so many frames.
        count: usize,
    },
}

impl Record {
    /// The vCPU that it is about; none for foreign requests and acts.
    #[must_use]
    pub fn vcpu(&self) -> Option<VcpuId> {
        match self {
            Record::Checkpoint { vcpu, .. } => Some(*vcpu),
            Record::Event { request, .. } if request.flags.contains(mem_event::Flags::FOREIGN) => None,
            Record::Event { request, .. } => Some(request.vcpu),
            Record::Act { .. } => None,
        }
    }

    /// Whether it is only there for another event's sake.
    #[must_use]
    pub fn is_beside(&self) -> bool {
        matches!(self, Record::Event { done, .. } if done.iter().any(|doing| *doing == Doing::Note(BESIDE.into())))
    }

    /// Whether the guest's program came to where it is to break.
    #[must_use]
    pub fn is_a_break(&self) -> bool {
        let Record::Event { request, done, answer, .. } = self else { return false };
        let is_let_through = answer.is_some_and(|(it, _)| it.flags.contains(Flags::EMULATE));
        let breaks = match request.event {
            Event::Cpu(Cpu::Int3 { .. }) => true,
            // By its frame.
            Event::Violation { rights, .. } => rights.contains(Rights::X) && is_let_through,
            _ => false,
        };
        breaks && done.iter().any(|doing| doing.who().is_some())
    }

    /// The line.
    #[must_use]
    pub fn line(&self, symbols: &Symbols) -> String {
        match self {
            Record::Checkpoint { vcpu, at, arguments, done } => {
                let done = if done.is_empty() { "nothing".into() } else { words(done, None, symbols).join(", ") };
                let what = match at {
                    Point::Number(number) => {
                        let about = whole_symbol(arguments[2], symbols).map(|name| format!(" {name}"));
                        format!("checkpoint {number}{}", about.unwrap_or_default())
                    }
                    Point::Place(gpa) => format!("place {}", symbols.name(*gpa).unwrap_or_else(|| gpa.to_string())),
                };
                format!("{what}  vcpu {vcpu}  -> {done}")
            }
            Record::Event { ring, request, rip, done, answer, .. } => {
                let done = words(done, request.frame(), symbols);
                format!(
                    "{} -> {}",
                    asked_at(*ring, request, *rip, symbols),
                    answered(request, done, answer.map(|(it, _)| it))
                )
            }
            Record::Act { who, doing, count, .. } => format!("{who}  {}", doing.words_of_many(*count, symbols)),
        }
    }

    /// The line as JSON.
    #[must_use]
    pub fn json(&self, symbols: &Symbols) -> String {
        let line = match self {
            Record::Checkpoint { vcpu, at: Point::Number(number), arguments, done } => {
                let (about, done) = (whole_symbol(arguments[2], symbols), words(done, None, symbols));
                serde_json::json!({ "event": "checkpoint", "vcpu": vcpu.0, "number": number, "about": about, "done": done })
            }
            Record::Checkpoint { vcpu, at: Point::Place(gpa), done, .. } => {
                let (symbol, done) = (symbols.name(*gpa), words(done, None, symbols));
                serde_json::json!({ "event": "place", "vcpu": vcpu.0, "gpa": gpa.to_string(), "symbol": symbol, "done": done })
            }
            Record::Act { connection, who, doing, count } => {
                let doing = doing.words_of_many(*count, symbols);
                serde_json::json!({ "event": "act", "connection": connection, "who": who, "done": [doing] })
            }
            Record::Event { ring, request, rip, done, answer, .. } => {
                let who = done.iter().find_map(Doing::who);
                let event = JsonEvent {
                    event: ring.to_string(),
                    reason: request.event.reason().name(),
                    vcpu: request.vcpu.0,
                    gfn: format!("{:#x}", request.event.subject()),
                    symbol: place(request, symbols),
                    offset: offset(&request.event),
                    gla: second(&request.event).map(|value| format!("{value:#x}")),
                    rights: request.event.rights().to_string(),
                    p2mt: request.event.p2mt().name(),
                    rip: (*rip != 0).then(|| format!("{rip:#x}")),
                    at: symbols.linear().name(Gla(*rip)),
                    by: who,
                    flags: request.flags.to_string(),
                    view: view_of(request.flags, request.view),
                    done: words(done, request.frame(), symbols),
                    answer: answer.map(|(response, _)| response.flags.to_string()),
                    answer_view: answer.and_then(|(response, _)| view_of(response.flags, response.view)),
                    wait_us: answer.map(|(_, wait)| u64::try_from(wait.as_micros()).unwrap_or(u64::MAX)),
                };
                serde_json::to_value(event).unwrap_or_default()
            }
        };
        output::json(&line).unwrap_or_default()
    }
}

#[derive(Serialize)]
struct JsonEvent {
    event: String,
    reason: &'static str,
    vcpu: u32,
    gfn: String,
    symbol: Option<String>,
    offset: u16,
    gla: Option<String>,
    rights: String,
    p2mt: &'static str,
    rip: Option<String>,
    at: Option<String>,
    by: Option<Who>,
    flags: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    view: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer_view: Option<u16>,
    done: Vec<String>,
    answer: Option<String>,
    wait_us: Option<u64>,
}

fn place(request: &Request, symbols: &Symbols) -> Option<String> {
    symbols.name(Gpa(request.frame()?.gpa().0 + u64::from(offset(&request.event))))
}

/// The offset in the frame.
fn offset(event: &Event) -> u16 {
    match event {
        Event::Violation { offset, .. } => *offset,
        Event::Cpu(Cpu::Int3 { rip, .. } | Cpu::Debug { rip, .. } | Cpu::SingleStep { rip, .. }) => Gpa(rip.0).offset(),
        Event::Paging { .. } | Event::Sharing { .. } | Event::Cpu(_) => 0,
    }
}

/// What an event says besides its frame or its register's value: a linear address, an old value, a register's number, a subleaf, a displacement,
/// CR2 of a page fault.
fn second(event: &Event) -> Option<u64> {
    match event {
        Event::Paging { .. } | Event::Sharing { .. } | Event::Cpu(Cpu::GuestRequest | Cpu::Io { .. }) => None,
        Event::Violation { gla, .. } => gla.map(|gla| gla.0),
        Event::Cpu(Cpu::Cr0 { old, .. } | Cpu::Cr3 { old, .. } | Cpu::Cr4 { old, .. } | Cpu::Xcr0 { old, .. }) => {
            Some(*old)
        }
        Event::Cpu(Cpu::Msr { msr, .. }) => Some(u64::from(*msr)),
        Event::Cpu(Cpu::Int3 { rip, .. } | Cpu::Debug { rip, .. } | Cpu::SingleStep { rip, .. }) => Some(rip.0),
        Event::Cpu(Cpu::Cpuid { subleaf, .. }) => Some(u64::from(*subleaf)),
        Event::Cpu(Cpu::Descriptor { qualification, .. }) => Some(*qualification),
        Event::Cpu(Cpu::Interrupt { cr2, .. }) => Some(*cr2),
    }
}

/// The symbol that begins at an address.
fn whole_symbol(address: u64, symbols: &Symbols) -> Option<String> {
    symbols.name(Gpa(address)).filter(|name| !name.contains('+'))
}

/// What a CPU event says.
fn cpu_event(cpu: Cpu, symbols: &Symbols) -> String {
    let register = |name, new, old| {
        let value = |value| whole_symbol(value, symbols).unwrap_or_else(|| format!("{value:#x}"));
        format!("{name} {} was {}", value(new), value(old))
    };
    let at = |what: &str, gfn: Gfn, rip: Gla| {
        let place = symbols.name(Gpa(gfn.gpa().0 + u64::from(Gpa(rip.0).offset())));
        format!("{what} at {rip}{}", place.map(|name| format!(" {name}")).unwrap_or_default())
    };
    match cpu {
        Cpu::Cr0 { new, old } => register("cr0", new, old),
        Cpu::Cr3 { new, old } => register("cr3", new, old),
        Cpu::Cr4 { new, old } => register("cr4", new, old),
        Cpu::Xcr0 { new, old } => register("xcr0", new, old),
        Cpu::Msr { msr, new, .. } => format!("msr {msr:#x} {new:#x}"),
        Cpu::Int3 { rip, gfn } => at("int3", gfn, rip),
        Cpu::SingleStep { rip, gfn } => at("step", gfn, rip),
        Cpu::Debug { rip, gfn, length: 1.., .. } => at("int1", gfn, rip),
        Cpu::Debug { rip, gfn, causes, .. } => at(&format!("debug exception {causes:#x}"), gfn, rip),
        Cpu::Cpuid { leaf, subleaf, .. } => format!("cpuid {leaf:#x} subleaf {subleaf:#x}"),
        Cpu::Descriptor { table, is_write, .. } => format!("{table} {}", if is_write { "loaded" } else { "stored" }),
        Cpu::GuestRequest => "guest request".to_owned(),
        Cpu::Io { port, bytes, is_read, is_string } => {
            let (done, string) = (if is_read { "in" } else { "out" }, if is_string { " string" } else { "" });
            format!("{done}{string} port {port:#x} of {bytes}")
        }
        Cpu::Interrupt { vector, kind, error, cr2 } => {
            let also = |name, value: u64| if value == 0 { String::new() } else { format!(" {name} {value:#x}") };
            format!("vector {vector} {kind}{}{}", also("error", error.into()), also("cr2", cr2))
        }
    }
}

/// The name of the instruction that made an access, where it is the kernel's. What breaks or steps is named by its own address.
fn instruction(request: &Request, rip: u64, symbols: &Symbols) -> Option<String> {
    let is_named = matches!(request.event, Event::Cpu(Cpu::Int3 { .. } | Cpu::Debug { .. } | Cpu::SingleStep { .. }));
    symbols.linear().name(Gla(rip)).filter(|_| !is_named)
}

/// The part of an event's line that the request makes, and the kernel's function that made it, where its name is known.
#[must_use]
pub fn asked_at(ring: Ring, request: &Request, rip: u64, symbols: &Symbols) -> String {
    let at = instruction(request, rip, symbols).map(|name| format!("  at {name}")).unwrap_or_default();
    asked(ring, request, symbols) + &at
}

/// The view that a request's vCPU goes by, or an answer's is to go by, if that is told.
fn view_of(flags: Flags, view: ViewId) -> Option<u16> {
    flags.contains(Flags::ALTERNATE_P2M).then_some(view.0)
}

fn with_flags(mut line: String, request: &Request) -> String {
    let (flags, view) = (request.flags.without(Flags::ALTERNATE_P2M), view_of(request.flags, request.view));
    if let Some(view) = view {
        let _ = write!(line, "  view {view}");
    }
    if flags != Flags::NONE {
        let _ = write!(line, "  {flags}");
    }
    line
}

/// The part of an event's line that the request makes.
#[must_use]
pub fn asked(ring: Ring, request: &Request, symbols: &Symbols) -> String {
    let gfn = match request.event {
        Event::Cpu(cpu) => {
            let event = cpu_event(cpu, symbols);
            return with_flags(format!("{ring}  vcpu {}  {event}", request.vcpu), request);
        }
        Event::Paging { gfn, .. } | Event::Sharing { gfn, .. } | Event::Violation { gfn, .. } => gfn,
    };
    let mut line = format!("{ring}  vcpu {}  gfn {gfn}", request.vcpu);
    let mut add = |text: std::fmt::Arguments<'_>| {
        let _ = line.write_fmt(text);
    };
    if let Some(symbol) = place(request, symbols) {
        add(format_args!(" {symbol}"));
    }
    match request.event {
        Event::Violation { offset, gla, rights, .. } => {
            add(format_args!("  offset {offset:#x}"));
            match gla {
                Some(gla) => add(format_args!("  gla {gla}")),
                None => add(format_args!("  no gla")),
            }
            add(format_args!("  {rights}"));
        }
        other => add(format_args!("  {}", other.p2mt())),
    }
    with_flags(line, request)
}

/// What was done for an event about this frame, in words; page-ins of other frames are counted.
fn words(done: &[Doing], about: Option<Gfn>, symbols: &Symbols) -> Vec<String> {
    let is_ahead = |doing: &&Doing| about.is_some() && doing.loaded().is_some_and(|gfn| Some(gfn) != about);
    let ahead = done.iter().filter(is_ahead).count();
    let others: Vec<&Doing> = done.iter().filter(|doing| !is_ahead(doing)).collect();
    // The same refusal in a row is said once.
    let rows = others.chunk_by(|one, next| one.is_refused() && one == next);
    let others = rows.map(|row| doing::times(row[0].words(about, symbols), row.len()));
    others.chain((ahead > 0).then(|| format!("prefetch {ahead}"))).collect()
}

fn answered(request: &Request, mut parts: Vec<String>, response: Option<Response>) -> String {
    let Some(response) = response else {
        parts.push("no answer".into());
        return parts.join(", ");
    };
    let steps = response.flags.contains(Flags::FAST_SINGLESTEP);
    if let Some(view) = view_of(response.flags, response.view) {
        parts.push(format!("view {view}"));
    }
    if steps {
        parts.push(format!("step into view {}", response.subject()));
    }
    let plain = |flags: Flags| flags.without(Flags::ALTERNATE_P2M).without(Flags::FAST_SINGLESTEP);
    if plain(response.flags) == plain(request.flags) {
        parts.push("answer".into());
    } else {
        parts.push(format!("answer {}", plain(response.flags)));
    }
    if response.vcpu != request.vcpu.0 || !steps && response.subject() != request.event.subject() {
        parts.push(format!("(vcpu {} gfn {:#x})", response.vcpu, response.subject()));
    }
    parts.join(", ")
}

/// The whole sequence. With several vCPUs each has a part of its own, since their order among each other is chance. So is that of what
/// connections do outside of answers, and that has parts of its own even with one vCPU.
#[must_use]
pub fn text(records: &[Record], vcpus: u32, symbols: &Symbols) -> String {
    let is_act = |record: &&Record| matches!(record, Record::Act { .. }) || record.is_beside();
    if vcpus == 1 {
        let events = records.iter().filter(|record| !is_act(record));
        return events.map(|record| record.line(symbols) + "\n").collect::<String>() + &acts(records, symbols);
    }
    let foreign = records.iter().filter(|record| record.vcpu().is_none() && !is_act(record));
    let mut parts = Vec::new();
    for vcpu in (0..vcpus).map(VcpuId) {
        let own: Vec<&Record> =
            records.iter().filter(|record| record.vcpu() == Some(vcpu) && !is_act(record)).collect();
        parts.push((format!("vcpu {vcpu}:"), own));
    }
    parts.push(("foreign:".into(), foreign.collect()));
    let mut text = String::new();
    for (title, own) in parts.into_iter().filter(|(_, own)| !own.is_empty()) {
        let _ = writeln!(text, "{title}");
        for record in own {
            let _ = writeln!(text, "  {}", record.line(symbols));
        }
    }
    text + &acts(records, symbols)
}

/// What connections did outside of answers, each by itself.
fn acts(records: &[Record], symbols: &Symbols) -> String {
    let mut parts: BTreeMap<u32, (&str, String)> = BTreeMap::new();
    for record in records {
        let Record::Act { connection, who, doing, count } = record else { continue };
        let (_, text) = parts.entry(*connection).or_insert_with(|| (who, String::new()));
        let _ = writeln!(text, "  {}", doing.words_of_many(*count, symbols));
    }
    parts.into_values().map(|(who, text)| format!("{who}:\n{text}")).collect()
}

#[cfg(test)]
mod tests {
    use super::{Record, text};
    use crate::guest::symbols::Symbols;
    use crate::toolstack::doing::Doing;
    use mem_event::{AccessType, Control, Event, Flags, Gfn, Gla, Request, Rights, Ring, VcpuId, ViewId};
    use std::time::Duration;

    fn read(vcpu: u32) -> Record {
        let (gfn, gla) = (Gfn(0x200), Some(Gla(0x20_0010)));
        let request = Request {
            flags: Flags::VCPU_PAUSED,
            vcpu: VcpuId(vcpu),
            event: Event::Violation { gfn, offset: 0x10, gla, rights: Rights::R, in_gpt: false },
            view: ViewId::HOST,
        };
        let answer = Some((request.answer(), Duration::ZERO));
        let set = Control::SetAccess { first: gfn, count: 1, access: AccessType::Rwx };
        Record::Event { ring: Ring::Access, request, rip: 0, since: 0, done: vec![Doing::Operation(set, None)], answer }
    }

    #[test]
    fn an_event_is_one_line() {
        let symbols = Symbols::from_list(&[("WATCHED", 0x20_0000, 0x1000)]);
        let line =
            "access  vcpu 0  gfn 0x200 WATCHED+0x10  offset 0x10  gla 0x200010  r--  VCPU_PAUSED -> set rwx, answer\n";
        assert_eq!(text(&[read(0)], 1, &symbols), line);
    }

    #[test]
    fn each_of_several_vcpus_has_its_own_part() {
        let all = text(&[read(1), read(0), read(1)], 2, &Symbols::default());
        let starts: Vec<&str> = all.lines().map(|line| &line[..6]).collect();
        assert_eq!(starts, ["vcpu 0", "  acce", "vcpu 1", "  acce", "  acce"]);
    }
}
