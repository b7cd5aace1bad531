//! A remark as words: the row of what stands between two steps.

use super::row::Row;
use crate::guest::symbols::Symbols;
use mem_event::Gpa;
use mem_event::message::Call;
use mem_event::trace::remark::{Answer, Asked, Moment, Point};
use mem_event::trace::{Remark, Remarked};

/// The row of a remark; its number is that of the step before it.
#[must_use]
pub fn row(after: u64, remarked: &Remarked, symbols: &Symbols) -> Row {
    let Remarked { time, remark } = remarked;
    let (mut vcpu, mut gfn, mut connection, mut outcome) = (None, None, 0, String::new());
    match remark {
        Remark::Came { connection: number, .. } | Remark::Went { connection: number } => connection = *number,
        Remark::Note { connection: number, .. }
        | Remark::HandedOver { connection: number, .. }
        | Remark::Ordered { connection: number, .. } => connection = *number,
        Remark::Stopped { vcpu: number, .. } | Remark::Registers { vcpu: number, .. } => vcpu = Some(number.0),
        Remark::Released { vcpu: number, connection: by } => {
            (vcpu, connection) = (Some(number.0), by.unwrap_or_default());
        }
        Remark::Content { gfn: frame, .. } => gfn = Some(frame.0),
        Remark::Called { connection: number, call, reply } => {
            (connection, gfn) = (*number, frame(call));
            outcome = answer(reply);
        }
    }
    let place = gfn.and_then(|gfn| symbols.name(Gpa(gfn << 12)));
    Row {
        step: after,
        time: *time,
        kind: remark.kind().to_owned(),
        vcpu,
        ring: None,
        gfn,
        offset: None,
        place,
        rights: None,
        rip: 0,
        at: None,
        code: None,
        outcome,
        effects: Vec::new(),
        connection,
        remark: Some(text(remark, symbols)),
    }
}

fn frame(call: &Asked) -> Option<u64> {
    match call.call()? {
        Call::ReadFrame { gfn, .. } | Call::WriteFrame { gfn, .. } | Call::Load { gfn, .. } => Some(gfn.0),
        _ => None,
    }
}

fn text(remark: &Remark, symbols: &Symbols) -> String {
    match remark {
        Remark::Came { process, user, program, .. } => format!("process {process} of user {user}: {program}"),
        Remark::Went { .. } => String::new(),
        Remark::Stopped { at: Point::Number(number), arguments: [a, b, c], .. } => {
            format!("checkpoint {number} ({a:#x}, {b:#x}, {c:#x})")
        }
        Remark::Stopped { at: Point::Place(gpa), arguments: [a, b, c], .. } => {
            let name = symbols.name(*gpa).unwrap_or_else(|| gpa.to_string());
            format!("place {name} ({a:#x}, {b:#x}, {c:#x})")
        }
        Remark::Released { connection: Some(_), .. } => String::new(),
        Remark::Released { connection: None, .. } => "by nobody".into(),
        Remark::Called { call, .. } => {
            call.call().map_or_else(|| format!("operation {}", call.operation), |known| known.to_string())
        }
        Remark::Content { hash, how, .. } => {
            let how = match how {
                Moment::Evicted => "evicted",
                Moment::Loaded => "loaded",
                Moment::Written => "written",
            };
            format!("{how} {hash:016x}")
        }
        Remark::Note { text, .. } => text.clone(),
        Remark::HandedOver { consumer, .. } => format!("to {consumer}"),
        Remark::Ordered { order, .. } => order.clone(),
        Remark::Registers { registers, .. } => format!("rip {:#x}, cr3 {:#x}", registers.rip, registers.control[2]),
    }
}

/// What a call was answered, in words.
#[must_use]
pub fn answer(reply: &Answer) -> String {
    match reply {
        Answer::Done(values) if values.is_empty() => "done".into(),
        Answer::Done(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("{value:#x}")).collect();
            values.join(" ")
        }
        Answer::Bytes(payload) => format!("{} bytes, {:016x}", payload.length, payload.hash),
        Answer::Refused(errno, why) => format!("{errno:?}: {why}"),
    }
}
