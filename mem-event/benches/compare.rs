//! The engine against the same protocol in C on Xen's ring macros, on two threads, and replaying; and the bare ring.
//!
//! Prints one JSON object a line: `name`, `value`, `unit`, `goal`, `detail`. The C side is built here with `cc` from
//! `xen_ring.c` and needs Debian's libxen-dev; where that is missing, its row says so instead of a value.

use mem_event::page::Index;
use mem_event::trace::{Context, Header, Player, Reader, Tape, Writer, replay};
use mem_event::{
    Access, AccessSource, AccessType, Back, Control, Domain, DomainConfig, Effects, Event, Flags, Front, Gfn, Gla,
    Input, Layout, Outcome, Request, Rights, Ring, RingPage, VcpuId, With,
};
use rustix::time::{ClockId, clock_gettime};
use std::hint::{black_box, spin_loop};
use std::io::{BufRead, BufReader, Cursor, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

const FRAMES: u64 = 1 << 17;
const VCPUS: u32 = 8;
const EVENTS: u32 = 3_000_000;
const ROUNDS: usize = 11;
/// Rounds of the comparison with C, and events in each: many short ones, so that both sides of a pair meet the same weather.
const PAIRS: usize = 41;
const EVENTS_OF_PAIR: u32 = 700_000;
const RING: Ring = Ring::Access;

/// All four, or those whose names stand on the command line (`cargo bench --bench compare -- c replay`).
fn main() -> Result<(), Failure> {
    type Bench = fn() -> Result<(), Failure>;
    let benches: [(&str, Bench); 4] =
        [("ring", bare_ring), ("c", against_c), ("threads", two_threads), ("replay", replaying)];
    let chosen: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    for (name, bench) in benches {
        if chosen.is_empty() || chosen.iter().any(|it| it == name) {
            bench()?;
        }
    }
    Ok(())
}

fn row(name: &str, value: f64, unit: &str, goal: &str, detail: &str) {
    println!(r#"{{"name":"{name}","value":{value},"unit":"{unit}","goal":"{goal}","detail":"{detail}"}}"#);
}

fn absent(name: &str, unit: &str, goal: &str, why: &str) {
    println!(r#"{{"name":"{name}","value":null,"unit":"{unit}","goal":"{goal}","detail":"not measured: {why}"}}"#);
}

/// Seconds of processor time of this thread: what one thread does is measured without what else runs on the machine.
fn busy() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Rig {
    domain: Domain,
    back: Back,
    page: RingPage,
    effects: Effects,
}

fn config() -> DomainConfig {
    let ram = vec![(Gfn(0), FRAMES)];
    DomainConfig::new(VCPUS, ram)
}

/// The two operations that every run here begins with.
fn set_up() -> [Input; 2] {
    [
        Control::Enable { ring: RING, layout: Layout::Flags32, slots: 0 },
        Control::SetAccess { first: Gfn(0), count: FRAMES / 2, access: AccessType::Rx },
    ]
    .map(Input::Control)
}

/// One thread plays both sides on one mapping, as the C program does: the processor forwards a store to a load of the same
/// address only, and two mappings of a page are two addresses.
fn rig() -> Result<Rig, Failure> {
    let page = RingPage::heap();
    let back = Back::init(page.clone(), RING, Layout::Flags32, 0)?;
    let mut domain = Domain::new(config())?;
    let mut effects = Effects::default();
    for input in set_up() {
        match domain.apply(&input, With::page(&page), &mut effects) {
            Outcome::Proceed => {}
            other => return Err(format!("{other:?}").into()),
        }
    }
    Ok(Rig { domain, back, page, effects })
}

fn access(round: u32) -> Access {
    let gfn = u64::from(round) * 0x9e37_79b9 % (FRAMES / 2);
    let source = AccessSource::Instruction;
    Access { gfn: Gfn(gfn), offset: 0x123, gla: Some(Gla(gfn << 12)), rights: Rights::W, source, rip: 0x1000 }
}

/// The same as `run` in xen_ring.c, down to a consumer that answers what it does not read.
fn event(rig: &mut Rig, round: u32) {
    let vcpu = VcpuId(round % VCPUS);
    rig.effects.clear();
    let outcome = rig.domain.access(vcpu, &access(round), None, &mut rig.effects);
    assert!(matches!(outcome, Outcome::Wait(_)), "the access is not stopped");
    assert!(rig.back.echo(), "no request arrived");
    let outcome = rig.domain.kick(RING, None, &mut rig.effects);
    assert!(outcome == Outcome::Proceed && rig.domain.waiting(vcpu).is_none(), "the vCPU is not woken");
    black_box(&rig.effects);
}

fn request(round: u32) -> Request {
    let Access { gfn, offset, gla, rights, .. } = access(round);
    let (flags, vcpu) = (Flags::VCPU_PAUSED, VcpuId(round % VCPUS));
    Request {
        flags,
        vcpu,
        event: Event::Violation { gfn, offset, gla, rights, in_gpt: false },
        view: mem_event::ViewId::HOST,
    }
}

/// Both halves without the engine: put, take, answer, poll and take.
fn bare_ring() -> Result<(), Failure> {
    let page = RingPage::heap();
    let mut back = Back::init(page.clone(), RING, Layout::Flags32, 0)?;
    let mut front = Front::new(page, RING, Layout::Flags32, 0)?;
    let mut taken = Vec::new();
    let mut measured: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = busy();
            for round in 0..EVENTS {
                front.put(&request(round));
                let Ok(Some(got)) = back.take() else { panic!("no request arrived") };
                back.answer(&got.answer());
                taken.clear();
                assert_eq!(front.poll(None, &mut taken), Ok(1));
                black_box(front.take(&mut taken));
            }
            f64::from(EVENTS) / (busy() - start)
        })
        .collect();
    row("ring-events-per-second", median(&mut measured).round(), "1/s", ">= 20000000", "both halves, no engine");
    Ok(())
}

/// The C program, waiting for numbers of events.
struct InC {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl InC {
    fn build() -> Result<InC, String> {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/xen_ring.c");
        let program = concat!(env!("CARGO_TARGET_TMPDIR"), "/xen_ring");
        let compiled = Command::new("cc").args(["-O2", "-o", program, source]).output();
        let compiled = compiled.map_err(|error| format!("no C compiler cc ({error})"))?;
        if !compiled.status.success() {
            return Err("xen_ring.c does not compile: is libxen-dev installed?".to_owned());
        }
        let spawned = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| error.to_string())?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(InC { child, stdin, stdout: BufReader::new(stdout) }),
            _ => Err("no pipes to the C program".to_owned()),
        }
    }

    fn run(&mut self) -> Result<f64, Failure> {
        writeln!(self.stdin, "{EVENTS_OF_PAIR}")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line.trim().parse::<f64>()? / 1e9)
    }

    fn end(self) -> Result<(), Failure> {
        let InC { mut child, stdin, stdout } = self;
        drop((stdin, stdout));
        child.wait()?;
        Ok(())
    }
}

/// In turn: C, engine, C, engine; the ratio of each pair, and of those the median.
fn against_c() -> Result<(), Failure> {
    let (name, unit, goal) = ("engine-vs-c", "ratio of throughputs", ">= 1.0");
    let mut in_c = match InC::build() {
        Ok(in_c) => in_c,
        Err(why) => {
            absent(name, unit, goal, &why);
            return Ok(());
        }
    };
    let mut rig = rig()?;
    let (mut ratios, mut ours, mut recorded, mut theirs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=PAIRS {
        // C keeps no record for a replay; what ours costs is the second figure.
        rig.domain.keep_record(true);
        let slower = run(&mut rig);
        let c = in_c.run()?;
        rig.domain.keep_record(false);
        let rust = run(&mut rig);
        // The first round warms all three up.
        if round > 0 {
            ratios.push(c / rust);
            ours.push(f64::from(EVENTS_OF_PAIR) / rust / 1e6);
            recorded.push(f64::from(EVENTS_OF_PAIR) / slower / 1e6);
            theirs.push(f64::from(EVENTS_OF_PAIR) / c / 1e6);
        }
    }
    in_c.end()?;
    let [ours, recorded, theirs] = [ours, recorded, theirs].map(|mut values| median(&mut values));
    let detail = format!("engine {ours:.1} M/s, C {theirs:.1} M/s; with the record for a replay {recorded:.1} M/s");
    let ratio = (median(&mut ratios) * 1000.0).round() / 1000.0;
    row(name, ratio, unit, goal, &detail);
    Ok(())
}

fn run(rig: &mut Rig) -> f64 {
    let start = busy();
    (0..EVENTS_OF_PAIR).for_each(|round| event(rig, round));
    busy() - start
}

/// The consumer on a thread of its own, both spinning: first as many events as fit, then one at a time.
fn two_threads() -> Result<(), Failure> {
    let Rig { mut domain, mut back, page, mut effects } = rig()?;
    let stop = AtomicBool::new(false);
    let (rate, mut trips) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                match back.take() {
                    Ok(Some(request)) => back.answer(&request.answer()),
                    _ => spin_loop(),
                }
            }
        });
        let measured = (in_flight(&mut domain, &page, &mut effects), one_by_one(&mut domain, &page, &mut effects));
        stop.store(true, Ordering::Relaxed);
        measured
    });
    let trip = median(&mut trips);
    let detail = format!("{VCPUS} vCPUs, consumer spinning on another thread; one event alone: median {trip:.0} ns");
    row("engine-two-threads", rate.round(), "1/s", "", &detail);
    row("engine-round-trip-ns", trip.round(), "ns", "<= 2000", "access to wake, consumer spinning on another thread");
    Ok(())
}

fn in_flight(domain: &mut Domain, page: &RingPage, effects: &mut Effects) -> f64 {
    let (mut put, mut woken, mut seen) = (0_u32, 0_u32, page.load(Index::RspProd, Ordering::Relaxed));
    let start = Instant::now();
    while woken < EVENTS {
        effects.clear();
        for vcpu in (0..VCPUS).map(VcpuId) {
            if put < EVENTS && domain.waiting(vcpu).is_none() {
                let _ = domain.apply(&Input::Access { vcpu, access: access(put) }, With::NOTHING, effects);
                put += 1;
            }
        }
        let now = page.load(Index::RspProd, Ordering::Relaxed);
        woken += now.wrapping_sub(seen);
        if now != seen {
            seen = now;
            let _ = domain.apply(&Input::Kick { ring: RING }, With::NOTHING, effects);
        }
    }
    f64::from(EVENTS) / start.elapsed().as_secs_f64()
}

fn one_by_one(domain: &mut Domain, page: &RingPage, effects: &mut Effects) -> Vec<f64> {
    let _ = domain.apply(&Input::Kick { ring: RING }, With::NOTHING, effects);
    let vcpu = VcpuId(0);
    (0..200_000)
        .map(|round| {
            effects.clear();
            let before = page.load(Index::RspProd, Ordering::Relaxed);
            let start = Instant::now();
            let _ = domain.apply(&Input::Access { vcpu, access: access(round) }, With::NOTHING, effects);
            while page.load(Index::RspProd, Ordering::Relaxed) == before {
                spin_loop();
            }
            let _ = domain.apply(&Input::Kick { ring: RING }, With::NOTHING, effects);
            assert!(domain.waiting(vcpu).is_none(), "the vCPU is not woken");
            start.elapsed().as_secs_f64() * 1e9
        })
        .collect()
}

fn header() -> Header {
    Header::of("bench", config())
}

/// Steps that are recorded between two readings of the clock.
const AT_ONCE: usize = 1024;

/// Records steps that are made already, as many nanoseconds apart as those of a busy run; the seconds that this takes.
fn record(writer: &mut Writer<&mut Vec<u8>>, steps: &[(Input, Outcome, Effects)], before: u32) -> f64 {
    let start = busy();
    for (at, (input, outcome, effects)) in steps.iter().enumerate() {
        let time = 27_000 * (u64::from(before) + at as u64);
        let code: &[u8] = if matches!(input, Input::Access { .. }) { &CODE } else { &[] };
        writer.record(Context { time, code, connection: 0 }, input, outcome, effects);
    }
    busy() - start
}

/// The code's size, and the code from `mov [rdi], rsi` on.
const CODE: [u8; 16] = [64, 0x48, 0x89, 0x37, 0xc3, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90];

/// Records a run of events in memory and replays it.
fn replaying() -> Result<(), Failure> {
    let mut file = Vec::new();
    let mut writer = Writer::new(&mut file, &header())?;
    let page = RingPage::heap();
    let mut back = Back::init(page.clone(), RING, Layout::Flags32, 0)?;
    let mut domain = Domain::new(config())?;
    let (mut effects, mut recording) = (Effects::default(), 0.0);
    let events = (0..EVENTS / 3).flat_map(|round| {
        let vcpu = VcpuId(round % VCPUS);
        [Input::Access { vcpu, access: access(round) }, Input::Kick { ring: RING }]
    });
    let (mut steps, mut waiting) = (0_u32, Vec::with_capacity(AT_ONCE));
    for input in set_up().into_iter().chain(events) {
        effects.clear();
        while let Ok(Some(request)) = back.take() {
            back.answer(&request.answer());
        }
        let outcome = domain.apply(&input, With::page(&page), &mut effects);
        waiting.push((input, outcome, effects.clone()));
        steps += 1;
        if waiting.len() == AT_ONCE {
            recording += record(&mut writer, &waiting, steps);
            waiting.clear();
        }
        if waiting.is_empty() && writer.wants_state() {
            writer.keep(&domain);
        }
    }
    recording += record(&mut writer, &waiting, steps);
    writer.finish()?;
    let mut measured = Vec::new();
    for _ in 0..5 {
        let mut fresh = Domain::new(config())?;
        let reader = Reader::new(file.as_slice())?;
        let start = busy();
        let summary = replay(reader, &mut fresh, |_, _| ())?;
        measured.push(f64::from(steps) / (busy() - start));
        assert_eq!(summary.steps, u64::from(steps));
    }
    let bytes = file.len() as f64 / f64::from(steps);
    let detail = format!("{steps} steps of {bytes:.0} bytes from memory");
    row("replay-steps-per-second", median(&mut measured).round(), "1/s", ">= 3000000", &detail);
    let mut player = Player::new(Tape::new(Cursor::new(file.as_slice()))?)?;
    let mut longest = 0.0_f64;
    for round in 0..200_u64 {
        let start = busy();
        player.seek(round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % (player.len() + 1))?;
        longest = longest.max(busy() - start);
    }
    let detail = format!("the longest of 200 seeks anywhere in {steps} steps");
    row("seek-ms", (longest * 1e4).round() / 10.0, "ms", "<= 100", &detail);
    let each = (recording * 1e10 / f64::from(steps)).round() / 10.0;
    row("record-ns-per-step", each, "ns", "", &format!("into memory; {bytes:.1} bytes a step"));
    Ok(())
}
