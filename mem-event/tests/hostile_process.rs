//! A consumer in another process that writes all over the ring page, at full speed, while the engine works.
//!
//! The test starts its own program again as the hostile process; the memory file reaches it through `/proc`. What must hold:
//! the engine never panics, its invariants hold, the ring next to it works as if nothing happened, and what was taken from
//! the page, torn as it may be, replays to the same effects, since the engine read each slot once.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop, and cuts numbers on purpose"
)]

use mem_event::page::Index;
use mem_event::trace::{self, Context, Header, Reader, Writer, replay};
use mem_event::{
    Access, AccessSource, AccessType, Back, Control, Domain, DomainConfig, Effect, Effects, Gfn, Input, Layout,
    Outcome, PAGE_SIZE, Rights, Ring, RingPage, VcpuId, With,
};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const PAGE: &str = "MEM_EVENT_HOSTILE_PAGE";
const FRAMES: u64 = 48;
const VCPUS: u32 = 16;
const STEPS: u32 = 150_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 11) % end
    }
}

/// Not a test of its own: what the other process does. Without the page it has nothing to do.
#[test]
fn hostile_process() {
    let Ok(path) = std::env::var(PAGE) else { return };
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let page = RingPage::map(&file).unwrap();
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let words = (PAGE_SIZE - 64) as u64 / 8;
    page.write_header(15, 1);
    loop {
        match random.below(4000) {
            0 => page.write_header(random.below(15) as usize, random.next() as u32),
            1..200 => {
                let answered = page.load(Index::RspProd, Ordering::Relaxed);
                page.store(Index::RspProd, answered.wrapping_add(random.below(3) as u32), Ordering::Release);
            }
            200..500 => page.store(Index::RspProd, page.load(Index::ReqProd, Ordering::Acquire), Ordering::Release),
            500..1500 => page.write_word(random.below(words) as usize, random.next()),
            _ => {
                // Nearly a response: flags and vCPU, the frame, the rest.
                let slot = 5 * random.below(8) as usize;
                page.write_word(slot, random.below(32) | random.below(24) << 32);
                page.write_word(slot + 1, random.below(FRAMES + 8));
                page.write_word(slot + 4, random.below(16) << 32 | 1 << 48);
            }
        }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn header() -> Header {
    Header::of("hostile", DomainConfig::new(VCPUS, vec![(Gfn(0), FRAMES)]))
}

/// The domain, and the record of all that it does.
struct Recorded<'a> {
    domain: Domain,
    effects: Effects,
    writer: Writer<&'a mut Vec<u8>>,
    broken: u32,
    answered: u32,
}

impl Recorded<'_> {
    fn step(&mut self, input: Input) -> Outcome {
        self.step_with(input, With::NOTHING)
    }

    fn step_with(&mut self, input: Input, with: With<'_>) -> Outcome {
        self.effects.clear();
        let outcome = self.domain.apply(&input, with, &mut self.effects);
        self.writer.record(Context::default(), &input, &outcome, &self.effects);
        for effect in &self.effects.list {
            match effect {
                Effect::Broken(ring, _) => {
                    assert_eq!(*ring, Ring::Access, "the honest consumer's ring broke");
                    self.broken += 1;
                }
                Effect::Answered { ring: Ring::Access, .. } => self.answered += 1,
                _ => {}
            }
        }
        outcome
    }

    fn enable(&mut self, ring: Ring, page: RingPage) {
        let enable = Control::Enable { ring, layout: Layout::Flags32, slots: 8 };
        assert_eq!(self.step_with(Input::Control(enable), With::page(&page)), Outcome::Proceed);
    }

    fn end(self) -> Domain {
        self.writer.finish().unwrap();
        self.domain
    }

    fn touch(&mut self, vcpu: u32, gfn: u64) -> Outcome {
        let source = AccessSource::Instruction;
        let access = Access { gfn: Gfn(gfn), offset: 0, gla: None, rights: Rights::RW, source, rip: 0 };
        self.step(Input::Access { vcpu: VcpuId(vcpu), access })
    }
}

/// The ring next door: a vCPU of its own pages one frame in, and must have it back after one answer.
fn page_in(run: &mut Recorded, pager: &mut Back, gfn: u64) {
    let vcpu = VCPUS - 1;
    assert_eq!(run.step(Input::Control(Control::Nominate { gfn: Gfn(gfn) })), Outcome::Proceed);
    assert_eq!(run.step(Input::Control(Control::Evict { gfn: Gfn(gfn) })), Outcome::Proceed);
    assert!(matches!(run.touch(vcpu, gfn), Outcome::Wait(_)));
    let request = pager.take().unwrap().unwrap();
    assert_eq!((request.frame(), request.vcpu), (Some(Gfn(gfn)), VcpuId(vcpu)));
    let prep = Control::Prep { gfn: Gfn(gfn), buffer: true };
    assert_eq!(run.step(Input::Control(prep)), Outcome::Proceed);
    pager.answer(&request.answer());
    let _ = run.step(Input::Kick { ring: Ring::Paging });
    assert_eq!(run.touch(vcpu, gfn), Outcome::Proceed);
}

#[test]
fn a_hostile_writer_on_the_page_breaks_its_own_ring_and_nothing_else() {
    let (fd, page) = RingPage::create().unwrap();
    let path = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "hostile_process"]).env(PAGE, path).stdout(Stdio::null()).stdin(Stdio::null());
    let hostile = Killed(command.spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(60);
    while page.bytes()[60] == 0 {
        assert!(Instant::now() < deadline, "the hostile process did not begin");
        std::thread::yield_now();
    }

    let mut file = Vec::new();
    let writer = Writer::new(&mut file, &header()).unwrap();
    let domain = Domain::new(header().config).unwrap();
    let mut run = Recorded { domain, effects: Effects::default(), writer, broken: 0, answered: 0 };
    let paging = RingPage::heap();
    let mut pager = Back::init(paging.clone(), Ring::Paging, Layout::Flags32, 8).unwrap();
    run.enable(Ring::Paging, paging);
    let watch = Control::SetAccess { first: Gfn(0), count: FRAMES / 2, access: AccessType::R };
    assert_eq!(run.step(Input::Control(watch)), Outcome::Proceed);

    let mut random = Random(7);
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut step = 0;
    // Longer where the machine is so busy that the other process did not get a turn.
    while step < STEPS || run.broken == 0 || run.answered == 0 {
        if step >= STEPS {
            let (broken, answered) = (run.broken, run.answered);
            assert!(Instant::now() < deadline, "broken {broken} times, {answered} answers: no turn in a minute");
            std::thread::yield_now();
        }
        if step == 0 || run.domain.broken(Ring::Access).is_some() {
            page.preset(0);
            let _ = run.step(Input::Control(Control::Disable { ring: Ring::Access, drain: false }));
            run.enable(Ring::Access, page.clone());
        }
        match random.below(8) {
            0 => page_in(&mut run, &mut pager, FRAMES / 2 + random.below(FRAMES / 2)),
            1..4 => _ = run.step(Input::Kick { ring: Ring::Access }),
            _ => _ = run.touch(random.below(u64::from(VCPUS) - 1) as u32, random.below(FRAMES / 2)),
        }
        if step % 16 == 0 {
            run.domain.check_invariants().unwrap();
        }
        step += 1;
    }
    drop(hostile);
    let (broken, answered) = (run.broken, run.answered);
    let domain = run.end();

    let mut fresh = Domain::new(header().config).unwrap();
    let summary =
        replay(Reader::new(file.as_slice()).unwrap(), &mut fresh, |_, _| ()).unwrap_or_else(|it| panic!("{it}"));
    assert_eq!(summary.end.why, trace::Why::Finished);
    assert_eq!(fresh.state(), domain.state());
    println!("{} steps, {answered} answers taken, broken {broken} times, replayed alike", summary.steps);
}
