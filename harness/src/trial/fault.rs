//! What is wrong with a consumer whatever was recorded, in sentences.

use super::exchange::{Exchange, of_vcpu};
use crate::guest::symbols::Symbols;
use crate::toolstack::transcript;
use mem_event::{Flags, Gfn, Gpa, Ring};
use std::time::Duration;

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An answer to no request that is out.
    ForNone {
        /// The ring.
        ring: Ring,
        /// Whom it names.
        vcpu: u32,
        /// What it names.
        subject: u64,
        /// The step that took it.
        step: u64,
        /// The request that was answered before, if it is an answer to that.
        again: Option<Exchange>,
    },
    /// The vCPU of a request goes on waiting after its answer.
    LeavesWaiting {
        /// The request.
        exchange: Exchange,
        /// The step that took the answer.
        step: u64,
        /// The answer's flags.
        flags: Flags,
    },
    /// An answer of another version of the interface.
    Version {
        /// The request whose slot it took.
        exchange: Exchange,
        /// The step.
        step: u64,
        /// The version.
        version: u32,
    },
    /// A page-in is answered and the frame has no content.
    NotLoaded {
        /// The request.
        exchange: Exchange,
        /// The step.
        step: u64,
    },
    /// A load of another content than was evicted.
    WrongContent {
        /// The frame.
        gfn: Gfn,
        /// The load's step.
        step: u64,
        /// The eviction's step.
        evicted: u64,
        /// The first byte that differs.
        offset: usize,
        /// Whose content it is, and how many evictions of it are newer.
        is_of: Option<(Gfn, u64)>,
    },
    /// More answers than requests.
    TooMany {
        /// The ring.
        ring: Ring,
        /// How many more.
        more: u32,
        /// The step that took the last one that was due.
        step: u64,
        /// The request that was answered last.
        last: Option<Exchange>,
    },
    /// The ring's indices cannot be.
    Broken {
        /// The ring.
        ring: Ring,
        /// Why.
        why: String,
        /// The step.
        step: u64,
    },
    /// The domain crashed.
    Crashed {
        /// Why.
        why: String,
        /// The step.
        step: u64,
    },
    /// No answer came.
    Lost {
        /// The request.
        exchange: Exchange,
        /// For so long.
        waited: Duration,
    },
    /// A vCPU waits for something that only the consumer can bring about.
    Stuck {
        /// The vCPU.
        vcpu: u32,
        /// What for, in words.
        reason: String,
        /// For so long.
        waited: Duration,
    },
    /// The same request comes again and again.
    Repeats {
        /// The request.
        exchange: Exchange,
        /// How often it was answered.
        times: u64,
    },
    /// An order is refused, or has no reply.
    Order {
        /// The order.
        order: String,
        /// The reply, or for how long there was none.
        said: Result<String, Duration>,
    },
    /// The process ended before its domain did, or not in order.
    Ended {
        /// How, in words.
        how: String,
    },
}

impl Fault {
    /// What kind of fault it is: two of one kind show the same.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::ForNone { .. } | Fault::TooMany { .. } => "answer for none",
            Fault::LeavesWaiting { .. } => "vCPU left waiting",
            Fault::Version { .. } => "version",
            Fault::NotLoaded { .. } => "no content",
            Fault::WrongContent { .. } => "wrong content",
            Fault::Broken { .. } => "broken ring",
            Fault::Crashed { .. } => "crash",
            Fault::Lost { .. } => "lost answer",
            Fault::Stuck { .. } => "stuck vCPU",
            Fault::Repeats { .. } => "repeated request",
            Fault::Order { .. } => "order",
            Fault::Ended { .. } => "end",
        }
    }

    /// The sentence.
    #[must_use]
    pub fn sentence(&self, symbols: &Symbols) -> String {
        let of = |exchange: &Exchange| asked(exchange, symbols);
        match self {
            Fault::ForNone { ring, vcpu, subject, step, again } => {
                for_none(*ring, *vcpu, *subject, *step, again.as_ref(), symbols)
            }
            Fault::LeavesWaiting { exchange, step, flags } => {
                let why = if flags.contains(Flags::DUMMY) {
                    "its flag DUMMY gives the slot back and does nothing else"
                } else {
                    "it has no flag VCPU_PAUSED, so nobody is woken"
                };
                let who = exchange.request.vcpu;
                format!("the answer of step {step} leaves vCPU {who} waiting: {why}. It was asked: {}", of(exchange))
            }
            Fault::Version { exchange, step, version } => {
                format!(
                    "the answer of step {step} has version {version} of the interface and is ignored. It was asked: {}",
                    of(exchange)
                )
            }
            Fault::NotLoaded { exchange, step } => {
                format!(
                    "the answer of step {step} is to a frame without content: load it before the answer. It was asked: {}",
                    of(exchange)
                )
            }
            Fault::WrongContent { gfn, step, evicted, offset, is_of } => {
                let (whose, gfn) = (owner(*gfn, *is_of, symbols), frame(*gfn, symbols));
                format!(
                    "step {step} loads {gfn} with another content than was evicted in step {evicted}; they differ from byte {offset:#x} on{whose}"
                )
            }
            Fault::TooMany { ring, more, step, last } => {
                let last = last.as_ref().map(|last| format!("; the last request that it answered: {}", of(last)));
                let (s, last) = (if *more == 1 { "" } else { "s" }, last.unwrap_or_default());
                format!(
                    "after step {step} the {ring} ring has {more} answer{s} more than requests: whom it names waits for none{last}"
                )
            }
            Fault::Broken { ring, why, step } => format!("the consumer broke the {ring} ring in step {step}: {why}"),
            Fault::Crashed { why, step } => format!("the domain crashed in step {step}: {why}"),
            Fault::Lost { exchange, waited } => {
                let step = exchange.asked;
                format!("no answer came within {waited:?} to the request of step {step}: {}", of(exchange))
            }
            Fault::Stuck { vcpu, reason, waited } => format!("vCPU {vcpu} waits for a {reason}, for {waited:?} by now"),
            Fault::Repeats { exchange, times } => {
                format!(
                    "the same request was answered {times} times and comes again, as nothing changed that forbids the access: {}",
                    of(exchange)
                )
            }
            Fault::Order { order, said } => about_order(order, said),
            Fault::Ended { how } => how.clone(),
        }
    }
}

/// Whose content a frame came back with, as far as it is known.
fn owner(gfn: Gfn, is_of: Option<(Gfn, u64)>, symbols: &Symbols) -> String {
    match is_of {
        Some((of, 0)) if of == gfn => " by the newest content of itself".to_owned(),
        Some((of, newer)) if of == gfn => format!(": it is an older content of it, {newer} evictions ago"),
        Some((of, _)) => format!(": it is the content of {}", frame(of, symbols)),
        None => String::new(),
    }
}

fn about_order(order: &str, said: &Result<String, Duration>) -> String {
    match said {
        Ok(said) => format!("to the order `{order}` the pager replies {said:?}, which is no number of frames"),
        Err(waited) => {
            format!("no reply came within {waited:?} to the order `{order}`; a pager replies to each (docs/pagers.md)")
        }
    }
}

fn for_none(ring: Ring, vcpu: u32, subject: u64, step: u64, again: Option<&Exchange>, symbols: &Symbols) -> String {
    match again {
        Some(Exchange { request, answer: Some(answer), .. }) => {
            let whom = of_vcpu(request).map_or_else(|| "the device".to_owned(), |vcpu| format!("vCPU {vcpu}"));
            let (first, asked) = (answer.step, transcript::asked(ring, request, symbols));
            format!(
                "the answer of step {step} to {whom} is the second one, it waits for none; the first was taken in step {first}: {asked}"
            )
        }
        _ => format!(
            "the answer of step {step} on the {ring} ring is for vCPU {vcpu}, {subject:#x}, which waits for none"
        ),
    }
}

/// A request in words.
#[must_use]
pub fn asked(exchange: &Exchange, symbols: &Symbols) -> String {
    transcript::asked(exchange.ring, &exchange.request, symbols)
}

/// A frame with its symbol.
#[must_use]
pub fn frame(gfn: Gfn, symbols: &Symbols) -> String {
    let name = symbols.name(Gpa(gfn.gpa().0)).map(|name| format!(" ({name})"));
    format!("frame {gfn}{}", name.unwrap_or_default())
}
