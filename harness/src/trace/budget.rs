//! Whether a run kept to what its scenario allows: how long vCPUs stood still, how much memory the guest held, how often the pager asked
//! for what it could not have.

use super::not_a_trace;
use super::row::{About, duration};
use crate::refusal::Refusal;
use crate::scenario::Time;
use crate::scenario::amount::mebibytes;
use crate::scenario::budget::Budget;
use mem_event::trace::{Engine, Reader, Step, replay};
use mem_event::{Checkpoint, Control, Domain, Effect, Effects, Gfn, Input, Outcome, PAGE_SIZE, With};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// What a run did not keep to, a sentence each; none if it kept to all.
///
/// # Errors
/// The trace cannot be read to its end: what it does not tell cannot be judged.
pub fn judge(trace: &Path, budget: &Budget) -> Result<Vec<String>, Refusal> {
    if budget.is_empty() {
        return Ok(Vec::new());
    }
    let reader = Reader::open(trace).map_err(|end| not_a_trace(trace, &end))?;
    let cannot = |why: String| {
        Refusal::usage(
            format!("{}: the budget cannot be judged: {why}", trace.display()),
            "record the whole run: see what the run said of its trace",
        )
    };
    let domain = Domain::new(reader.header().config.clone()).map_err(|why| cannot(why.to_string()))?;
    let mut engine = Weighed { domain, most: 0 };
    let mut tally = Tally::default();
    let summary = replay(reader, &mut engine, |number, step| tally.step(number, step));
    match summary {
        Ok(summary) if summary.end.is_whole() => Ok(tally.finish().over(budget, engine.most)),
        Ok(summary) => Err(cannot(summary.end.to_string())),
        Err(_) => Err(cannot("it does not replay; see `mem-event replay`".to_owned())),
    }
}

/// A domain whose memory is weighed after each step.
struct Weighed {
    domain: Domain,
    /// Frames.
    most: u64,
}

impl Engine for Weighed {
    fn apply(&mut self, input: &Input, with: With<'_>, effects: &mut Effects) -> Outcome {
        let outcome = self.domain.apply(input, with, effects);
        self.most = self.most.max(self.domain.info().resident);
        outcome
    }

    fn begin(&mut self, state: Checkpoint) -> Result<Option<&Domain>, String> {
        self.domain.begin(state)
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        Engine::checkpoint(&self.domain)
    }
}

/// A vCPU stands still: from the step that told it to wait to the release after which it went on. Waits in between, for the same access
/// (for a slot and then for its answer, or again since the rights did not change), are one stop.
#[derive(Clone, Copy, Debug)]
struct Stop {
    vcpu: u32,
    step: u64,
    begin: u64,
    about: (Option<Gfn>, u64),
    woken: Option<u64>,
}

/// A stop that is over, or lasts to the end of the trace.
#[derive(Clone, Copy, Debug)]
struct Stood {
    vcpu: u32,
    step: u64,
    gfn: Option<Gfn>,
    length: u64,
}

#[derive(Default)]
struct Tally {
    open: BTreeMap<u32, Stop>,
    stood: Vec<Stood>,
    refused_nominations: u64,
    last: u64,
}

impl Tally {
    fn step(&mut self, number: u64, step: &Step) {
        self.last = step.time;
        match &step.input {
            Input::Control(Control::Nominate { .. }) => {
                self.refused_nominations += u64::from(matches!(step.outcome, Outcome::Refused(..)));
            }
            Input::Control(_) => {}
            input => self.vcpu(number, step, &About::of(input)),
        }
        for effect in &step.effects.list {
            if let Effect::Wake(vcpu) = effect
                && let Some(stop) = self.open.get_mut(&vcpu.0)
            {
                stop.woken = Some(step.time);
            }
        }
    }

    fn vcpu(&mut self, number: u64, step: &Step, about: &About) {
        let Some(vcpu) = about.vcpu else { return };
        let what = (about.gfn, about.rip);
        let waits = matches!(step.outcome, Outcome::Wait(_));
        match self.open.get_mut(&vcpu) {
            Some(stop) if waits && stop.about == what => {
                stop.woken = None;
                return;
            }
            Some(_) => self.ends(vcpu, step.time),
            None => {}
        }
        if waits {
            self.open.insert(vcpu, Stop { vcpu, step: number, begin: step.time, about: what, woken: None });
        }
    }

    fn ends(&mut self, vcpu: u32, now: u64) {
        let Some(stop) = self.open.remove(&vcpu) else { return };
        let length = stop.woken.unwrap_or(now).saturating_sub(stop.begin);
        self.stood.push(Stood { vcpu: stop.vcpu, step: stop.step, gfn: stop.about.0, length });
    }

    fn finish(mut self) -> Tally {
        let open: Vec<u32> = self.open.keys().copied().collect();
        for vcpu in open {
            self.ends(vcpu, self.last);
        }
        self.stood.sort_by_key(|stood| stood.length);
        self
    }

    /// Of 100 stops 99 took no longer than this one.
    fn p99(&self) -> Option<&Stood> {
        self.stood.get((self.stood.len() * 99).div_ceil(100).checked_sub(1)?)
    }

    fn over(&self, budget: &Budget, frames: u64) -> Vec<String> {
        // Taken apart, so that a new setting is asked for here.
        let Budget { p99, longest, resident: allowed, refused_nominations } = budget;
        let longer = |stood: Option<&Stood>, due: &Option<Time>, what: &str| {
            let (stood, due) = stood.zip(due.as_ref())?;
            (Duration::from_nanos(stood.length) > due.0).then(|| {
                let frame = stood.gfn.map(|gfn| format!(" at frame {gfn}")).unwrap_or_default();
                let (length, due) = (duration(stood.length), duration(nanoseconds(due.0)));
                format!(
                    "{what} {length} where {due} are allowed: vcpu {}{frame}, from step {} on",
                    stood.vcpu, stood.step
                )
            })
        };
        let resident = frames * PAGE_SIZE as u64;
        let memory = allowed.filter(|due| resident > due.0).map(|due| {
            format!("the guest held {} of memory where {} are allowed", mebibytes(resident), mebibytes(due.0))
        });
        let refused = self.refused_nominations;
        let nominations = refused_nominations
            .filter(|due| refused > *due)
            .map(|due| format!("{refused} nominations were refused where {due} may be"));
        [
            longer(self.p99(), p99, "1 of 100 stops took more than"),
            longer(self.stood.last(), longest, "the longest stop took"),
            memory,
            nominations,
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

    use super::{Budget, judge};
    use crate::machine::folder::RunFolder;
    use crate::scenario::{Size, Time};
    use mem_event::trace::{Context, Header, Writer};
    use mem_event::{
        Access, AccessSource, AccessType, Back, Control, Domain, DomainConfig, Effects, Gfn, Input, Layout, Rights,
        Ring, RingPage, VcpuId, With,
    };
    use std::path::PathBuf;
    use std::time::Duration;

    const FRAME: Gfn = Gfn(3);

    struct Recorded {
        domain: Domain,
        page: RingPage,
        writer: Writer,
        time: u64,
    }

    impl Recorded {
        fn after(&mut self, milliseconds: u64, input: Input) {
            self.time += milliseconds * 1_000_000;
            let mut effects = Effects::default();
            let with = With::page(&self.page);
            let outcome = self.domain.apply(&input, with, &mut effects);
            self.writer.record(Context { time: self.time, code: &[], connection: 0 }, &input, &outcome, &effects);
        }

        fn touch(&mut self, milliseconds: u64) {
            let access = Access {
                gfn: FRAME,
                offset: 0,
                gla: None,
                rights: Rights::R,
                source: AccessSource::Instruction,
                rip: 0x1000,
            };
            self.after(milliseconds, Input::Access { vcpu: VcpuId(0), access });
        }

        /// The listener answers, and the vCPU is woken.
        fn answer(&mut self, milliseconds: u64, listener: &mut Back) {
            let request = listener.take().unwrap().unwrap();
            listener.answer(&request.answer());
            self.after(milliseconds, Input::Kick { ring: Ring::Access });
        }
    }

    /// A vCPU touches a page that it may not read: 3 ms to the first answer, which gives no right, and 4 ms to the second. Then one
    /// nomination is refused.
    fn trace(folder: &RunFolder) -> PathBuf {
        let config = DomainConfig::new(1, vec![(Gfn(0), 16)]);
        let header = Header::of("budget", config.clone());
        let path = folder.file("trace");
        let mut domain = Domain::new(config).unwrap();
        domain.keep_record(true);
        let page = RingPage::heap();
        let mut run = Recorded { domain, page, writer: Writer::create(&path, &header).unwrap(), time: 0 };
        run.after(0, Input::Control(Control::Enable { ring: Ring::Access, layout: Layout::VmEvent7, slots: 4 }));
        let mut listener = Back::new(run.page.clone(), Ring::Access, Layout::VmEvent7, 4).unwrap();
        run.after(0, Input::Control(Control::SetAccess { first: FRAME, count: 1, access: AccessType::N }));
        run.touch(1);
        run.answer(3, &mut listener);
        run.touch(0);
        run.answer(4, &mut listener);
        run.after(0, Input::Control(Control::SetAccess { first: FRAME, count: 1, access: AccessType::Rwx }));
        run.touch(0);
        run.after(0, Input::Control(Control::Nominate { gfn: FRAME }));
        run.writer.finish().unwrap();
        path
    }

    fn milliseconds(number: u64) -> Option<Time> {
        Some(Time(Duration::from_millis(number)))
    }

    #[test]
    fn a_stop_lasts_until_the_vcpu_goes_on_whatever_was_answered_in_between() {
        let folder = RunFolder::create().unwrap();
        let trace = trace(&folder);
        let within = Budget { p99: milliseconds(7), longest: milliseconds(7), ..Budget::default() };
        assert_eq!(judge(&trace, &within).unwrap(), [""; 0]);
        let over = Budget { p99: milliseconds(6), longest: milliseconds(6), ..Budget::default() };
        let said = judge(&trace, &over).unwrap();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[1]
                .contains("the longest stop took 7.00 ms where 6.00 ms are allowed: vcpu 0 at frame 0x3, from step 3"),
            "{said:?}"
        );
    }

    #[test]
    fn memory_and_refusals_are_counted() {
        let folder = RunFolder::create().unwrap();
        let trace = trace(&folder);
        let allowed = Budget { resident: Some(Size(16 * 4096)), refused_nominations: Some(1), ..Budget::default() };
        assert_eq!(judge(&trace, &allowed).unwrap(), [""; 0]);
        let over = Budget { resident: Some(Size(15 * 4096)), refused_nominations: Some(0), ..Budget::default() };
        let said = judge(&trace, &over).unwrap();
        assert!(said[0].starts_with("the guest held") && said[1].starts_with("1 nominations were refused"), "{said:?}");
    }

    #[test]
    fn what_a_cut_trace_does_not_tell_is_not_judged() {
        let folder = RunFolder::create().unwrap();
        let path = trace(&folder);
        let bytes = std::fs::read(&path).unwrap();
        let damaged = folder.file("damaged");
        let mut wrong = bytes.clone();
        let at = wrong.len() / 2;
        wrong[at] ^= 1;
        std::fs::write(&damaged, wrong).unwrap();
        let budget = Budget { longest: milliseconds(1000), ..Budget::default() };
        assert!(judge(&damaged, &budget).unwrap_err().what.contains("cannot be judged"));
    }
}
