//! Events as people call them.

use crate::guest::symbols::Symbols;
use crate::trace::row::vcpu_of;
use crate::trace::story::Exchange;
use mem_event::{Event, Gfn, Gpa, Request};

/// A request by who asked and for what.
pub(super) fn event(request: &Request, symbols: &Symbols) -> String {
    let whose = vcpu_of(request).map_or_else(|| "somebody else's".to_owned(), |vcpu| format!("vCPU {vcpu}'s"));
    match request.event {
        Event::Violation { gfn, offset, rights, .. } => {
            format!("{whose} violation ({rights}) at {}", place(gfn, Some(offset), symbols))
        }
        Event::Paging { gfn, .. } => format!("{whose} request for frame {}", place(gfn, None, symbols)),
        Event::Sharing { gfn, .. } => format!("{whose} want of memory for frame {}", place(gfn, None, symbols)),
        Event::Cpu(cpu) => format!("{whose} {} event", cpu.kind().name()),
    }
}

/// The same with the step that made it.
pub(super) fn asked(exchange: &Exchange, symbols: &Symbols) -> String {
    format!("{} (step {})", event(&exchange.request, symbols), exchange.asked.0)
}

/// A frame, with an offset where one counts, and its symbol.
pub(super) fn place(gfn: Gfn, offset: Option<u16>, symbols: &Symbols) -> String {
    let byte = u64::from(offset.unwrap_or(0));
    let name = symbols.name(Gpa(gfn.gpa().0 + byte)).map(|name| format!(" {name}")).unwrap_or_default();
    match offset {
        Some(offset) => format!("{gfn}+{offset:#x}{name}"),
        None => format!("{gfn}{name}"),
    }
}

/// Numbers of steps in a sentence: all, or the first ones and how many there are.
pub(super) fn steps(numbers: &[u64]) -> String {
    const NAMED: usize = 3;
    let named: Vec<String> = numbers.iter().take(NAMED).map(u64::to_string).collect();
    let more = if numbers.len() > NAMED { ", …" } else { "" };
    format!("{}{more}", named.join(", "))
}

/// A thing and how often there is one.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("one {one}") } else { format!("{number} {many}") }
}
