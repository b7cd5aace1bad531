//! Chrome's JSON trace events, which ui.perfetto.dev opens.
//!
//! Process 1 has a track for each vCPU with its waits as slices; process 2 one for each slot of each ring, with a slice from request to
//! answer taken, named by the event's kind. An arrow leads from the wait to the slot's slice and on to its end. Counters: free slots, vCPUs asleep,
//! frames that the domain holds and its budget. What the toolstack and the consumers did are instants of process 4.

use super::timeline::{Act, Timeline};
use crate::trace::row::{disassembled, reason};
use crate::trace::story::{Exchange, Wait};
use mem_event::{Gpa, Ring};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const VCPUS: u32 = 1;
const SLOTS: u32 = 2;
const COUNTERS: u32 = 3;
const ACTS: u32 = 4;

/// The events as text.
#[must_use]
pub fn events(timeline: &Timeline) -> String {
    let mut events = names(timeline);
    events.extend(timeline.waits.iter().map(|waited| of_wait(&waited.wait, timeline)));
    let mut ends: BTreeMap<u32, u64> = BTreeMap::new();
    let mut exchanges: Vec<&Exchange> = timeline.exchanges.iter().collect();
    exchanges.sort_by_key(|exchange| exchange.asked);
    for (number, exchange) in exchanges.into_iter().enumerate() {
        // A slot's slices must not overlap, and answers out of order may make them.
        let begin = exchange.asked.1.max(ends.get(&track(exchange)).copied().unwrap_or(0));
        let end = exchange.answer.map_or(timeline.last, |answer| answer.time).max(begin);
        ends.insert(track(exchange), end);
        events.extend(of_exchange(number, exchange, begin, end));
    }
    events.extend(counters(timeline));
    events.extend(frames(timeline));
    events.extend(acts(timeline));
    let lines: Vec<String> = events.iter().map(Value::to_string).collect();
    format!("{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n{}\n]}}\n", lines.join(",\n"))
}

fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

fn track(exchange: &Exchange) -> u32 {
    exchange.ring as u32 * 1000 + exchange.slot
}

fn names(timeline: &Timeline) -> Vec<Value> {
    let process = |pid: u32, name: &str| json!({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}});
    let thread = |pid: u32, tid: u32, name: String| json!({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}});
    let mut names = vec![process(VCPUS, &format!("{}: vCPUs", timeline.header.guest)), process(SLOTS, "rings")];
    names.extend([process(COUNTERS, "counters"), process(ACTS, "acts"), thread(ACTS, 1, "operations".to_owned())]);
    names.extend((0..timeline.header.config.vcpus).map(|vcpu| thread(VCPUS, vcpu + 1, format!("vCPU {vcpu}"))));
    let slots: BTreeMap<u32, String> = timeline
        .exchanges
        .iter()
        .map(|exchange| (track(exchange), format!("{} slot {}", exchange.ring, exchange.slot)))
        .collect();
    names.extend(slots.into_iter().map(|(tid, name)| thread(SLOTS, tid, name)));
    names
}

fn of_wait(wait: &Wait, timeline: &Timeline) -> Value {
    let length = wait.length(timeline.last);
    let place = wait.gfn.and_then(|gfn| timeline.symbols.name(Gpa(gfn.gpa().0)));
    json!({
        "ph": "X", "pid": VCPUS, "tid": wait.vcpu + 1, "cat": "wait", "name": reason(wait.reason),
        "ts": micros(wait.begin), "dur": micros(length),
        "args": {
            "step": wait.step, "for": wait.whom(), "ended": wait.end.map(|(step, _)| step),
            "gfn": wait.gfn.map(|gfn| gfn.to_string()), "symbol": place,
            "rip": format!("{:#x}", wait.rip), "instruction": disassembled(&wait.code, wait.rip),
            "slots held by vCPUs": wait.holders,
        },
    })
}

fn of_exchange(number: usize, exchange: &Exchange, begin: u64, end: u64) -> Vec<Value> {
    let (pid, tid, request) = (SLOTS, track(exchange), &exchange.request);
    let kind = request.event.reason().name();
    let name = format!("{kind} vCPU {} gfn {:#x}", request.vcpu, request.event.subject());
    let (begin, end) = (micros(begin), micros(end));
    let mut events = vec![json!({
        "ph": "X", "pid": pid, "tid": tid, "cat": "request", "name": name, "ts": begin, "dur": end - begin,
        "args": {"asked at step": exchange.asked.0, "answered at step": exchange.answer.map(|answer| answer.step),
                 "reason": kind, "flags": request.flags.to_string()},
    })];
    let flow = |ph: &str, pid: u32, tid: u32, ts: f64| json!({"ph": ph, "id": number, "bp": "e", "pid": pid, "tid": tid, "cat": "flow", "name": "request", "ts": ts});
    if request.flags.contains(mem_event::Flags::VCPU_PAUSED) {
        events.push(flow("s", VCPUS, request.vcpu.0 + 1, micros(exchange.asked.1)));
        events.push(flow(if exchange.answer.is_some() { "t" } else { "f" }, pid, tid, begin));
        if exchange.answer.is_some() {
            events.push(flow("f", pid, tid, end));
        }
    }
    events
}

fn counters(timeline: &Timeline) -> Vec<Value> {
    let mut counters = Vec::new();
    for level in &timeline.levels {
        let ts = micros(level.time);
        let args = json!({"asleep": level.sleepers});
        counters.push(json!({"ph": "C", "pid": COUNTERS, "name": "vCPUs asleep", "ts": ts, "args": args}));
        for ring in Ring::ALL.into_iter().filter(|ring| level.slots[ring.index()] > 0) {
            let free = level.slots[ring.index()].saturating_sub(level.out[ring.index()]);
            let (name, args) = (format!("free slots of {ring}"), json!({"free": free}));
            counters.push(json!({"ph": "C", "pid": COUNTERS, "name": name, "ts": ts, "args": args}));
        }
    }
    counters
}

/// How many frames the domain held, and how many it might.
fn frames(timeline: &Timeline) -> Vec<Value> {
    let counter = |name: &str, (time, count): &(u64, u64)| json!({"ph": "C", "pid": COUNTERS, "name": name, "ts": micros(*time), "args": {"frames": count}});
    let resident = timeline.frames.resident.iter().map(|point| counter("resident frames", point));
    let budget = timeline.frames.budget.iter().map(|point| counter("budget", point));
    resident.chain(budget).collect()
}

fn acts(timeline: &Timeline) -> Vec<Value> {
    let instant = |act: &Act| {
        json!({
            "ph": "i", "s": "p", "pid": ACTS, "tid": 1, "cat": "act", "name": act.kind, "ts": micros(act.time),
            "args": {"step": act.step, "act": act.about},
        })
    };
    timeline.acts.iter().map(instant).collect()
}
