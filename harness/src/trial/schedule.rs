//! Which input of the recording comes next, and whether it may come yet.
//!
//! The inputs of a vCPU keep their order, and a vCPU's next one comes when its wait is over in the live engine. Between the inputs of
//! different vCPUs the recorded order holds too, and what the recorded consumer did is part of it: an input that was recorded after an
//! answer comes after the live answer to the same request. So requests that were out together are out together again, and a page is
//! not touched before the consumer has had the time to watch it. Calls that the recorded consumer made of its own accord hold the guest
//! back as well, until the live consumer has made an equal one; one that makes others instead holds it back for a moment.
//!
//! What the toolstack ordered the pager to do is ordered in its place, and the guest waits for the reply, as the toolstack did. A vCPU that
//! stopped at a checkpoint stops there for those who asked to hear of it.
//!
//! How often a vCPU makes its input again is not recorded's matter: it does so after each wake, until it may, as in a guest.

use super::choices::Choices;
use super::engine::Engine;
use super::fault::Fault;
use super::pick::Window;
use super::script::{Entry, Item};
use mem_event::message::Notice;
use mem_event::trace::Remark;
use mem_event::trace::remark::Point;
use mem_event::wire::vm_event::Registers;
use mem_event::{Access, Control, Input, Outcome, VcpuId, WaitReason, With};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// How long a call that was recorded is waited for while the consumer does nothing.
const MOMENT: Duration = Duration::from_millis(200);
/// After so many that did not come the consumer is taken for one that makes other calls.
const OTHER_CALLS: u32 = 3;
/// How often the same request may come again without anything that was recorded so.
const REPEATS: u64 = 64;

/// What stands in the way of the next input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The consumer has to do something first.
    Consumer,
    /// The consumer has to make a call, or to let a moment pass.
    Moment,
    /// It is too early.
    Until(Instant),
    /// All is done.
    Finished,
}

/// What a vCPU does.
#[derive(Clone, Debug)]
struct Doing<'a> {
    input: &'a Input,
    again: bool,
    registers: Option<&'a Registers>,
    reason: WaitReason,
    times: u64,
}

/// How the recording is done again.
#[derive(Debug)]
pub struct Schedule<'a> {
    items: &'a [Item],
    at: usize,
    vcpus: HashMap<VcpuId, Doing<'a>>,
    /// vCPUs that waited when the recording ended.
    unfinished: &'a BTreeSet<VcpuId>,
    returning: Vec<Access>,
    calls: HashMap<String, i64>,
    missed: u32,
    /// The guest goes on however the call at hand stands.
    hurried: bool,
    /// Recorded time is divided by this; none for as fast as it goes.
    speed: Option<f64>,
    not_before: Option<Instant>,
    seeded: Option<(Choices, Window)>,
    /// The vCPUs that stand at checkpoints, one that stopped several times so often.
    stopped: Vec<VcpuId>,
    /// What the pager is ordered to do, and whether it has been told; the guest waits until it has replied.
    order: Option<(&'a str, bool)>,
}

impl<'a> Schedule<'a> {
    /// These items, in their order; at this speed, or as a seed will have it.
    #[must_use]
    pub fn new(
        items: &'a [Item],
        unfinished: &'a BTreeSet<VcpuId>,
        speed: Option<f64>,
        choices: Option<Choices>,
    ) -> Self {
        let window = || {
            let mut window = Window::default();
            window.extend(items, 0);
            window
        };
        Schedule {
            items,
            at: 0,
            vcpus: HashMap::new(),
            unfinished,
            returning: Vec::new(),
            calls: HashMap::new(),
            missed: 0,
            hurried: false,
            speed,
            not_before: None,
            seeded: choices.map(|choices| (choices, window())),
            stopped: Vec::new(),
            order: None,
        }
    }

    /// The consumer has made a call, which was not refused.
    pub fn called(&mut self, control: &Control) {
        *self.calls.entry(control.to_string()).or_default() += 1;
    }

    /// The consumer has done nothing for so long; whether that is enough for what is waited for.
    pub fn is_idle(&mut self, idle: Duration) -> bool {
        if idle >= MOMENT {
            self.missed += 1;
            self.hurried = true;
        }
        idle >= MOMENT
    }

    /// Whether the consumer makes other calls than the recorded one, so that the guest does not wait for them any more.
    #[must_use]
    pub fn makes_other_calls(&self) -> bool {
        self.missed >= OTHER_CALLS
    }

    /// The order that the pager is to be told now.
    pub fn order_to_tell(&mut self) -> Option<&'a str> {
        let (order, told) = self.order.as_mut().filter(|(_, told)| !told)?;
        *told = true;
        Some(order)
    }

    /// The order that the pager has not replied to.
    #[must_use]
    pub fn order(&self) -> Option<&'a str> {
        self.order.map(|(order, _)| order)
    }

    /// The pager has replied, or takes no orders.
    pub fn is_carried_out(&mut self) {
        self.order = None;
    }

    /// The vCPU that stands at a checkpoint for longest.
    #[must_use]
    pub fn first_stopped(&self) -> Option<VcpuId> {
        self.stopped.first().copied()
    }

    /// Whether a vCPU stands at a checkpoint.
    #[must_use]
    pub fn is_stopped(&self, vcpu: VcpuId) -> bool {
        self.stopped.contains(&vcpu)
    }

    /// A vCPU goes on from its checkpoint.
    pub fn release(&mut self, vcpu: VcpuId) {
        if let Some(at) = self.stopped.iter().position(|stopped| *stopped == vcpu) {
            self.stopped.remove(at);
        }
    }

    /// Nobody hears of checkpoints any more.
    pub fn release_all(&mut self) {
        self.stopped.clear();
    }

    /// Goes on as far as it may.
    pub fn advance(&mut self, engine: &mut Engine) -> Progress {
        loop {
            self.retry(engine);
            if engine.fault.is_some() {
                return Progress::Finished;
            }
            if self.order.is_some() {
                return Progress::Consumer;
            }
            if let Some(until) = self.not_before {
                if Instant::now() < until {
                    return Progress::Until(until);
                }
                self.not_before = None;
            }
            let stopped = if self.seeded.is_some() { self.any(engine) } else { self.next(engine) };
            if let Some(progress) = stopped {
                return progress;
            }
        }
    }

    /// What was woken is done again.
    fn retry(&mut self, engine: &mut Engine) {
        while !engine.woken.is_empty() && engine.fault.is_none() {
            let vcpu = engine.woken.remove(0);
            let Some(doing) = self.vcpus.remove(&vcpu) else { continue };
            if doing.again || !matches!(doing.reason, WaitReason::Answer(_)) {
                self.make(vcpu, (doing.input, doing.registers), (doing.again, doing.times + 1), engine);
            }
        }
        if std::mem::take(&mut engine.foreign_may_retry) {
            self.returning
                .retain(|access| matches!(engine.step(&Input::Foreign { access: *access }), Outcome::Retry(_)));
        }
    }

    fn make(
        &mut self,
        vcpu: VcpuId,
        (input, registers): (&'a Input, Option<&'a Registers>),
        (again, times): (bool, u64),
        engine: &mut Engine,
    ) {
        let with = With { registers, ..With::NOTHING };
        let Outcome::Wait(reason) = engine.step_with(input, with, None) else { return };
        if times > REPEATS
            && let Some(exchange) = engine.exchanges.all.last()
        {
            let exchange = exchange.clone();
            engine.fail(Fault::Repeats { exchange, times });
        }
        self.vcpus.insert(vcpu, Doing { input, again, registers, reason, times });
    }

    /// The next item in the recorded order; what stands in its way, or nothing where it was done.
    fn next(&mut self, engine: &mut Engine) -> Option<Progress> {
        let Some(item) = self.items.get(self.at) else { return self.end() };
        if let Some(progress) = self.stands_in_the_way(item, engine) {
            return Some(progress);
        }
        self.deliver(item, engine);
        self.at += 1;
        self.hurried = false;
        self.not_before = self.speed.and_then(|speed| {
            let gap = self.items.get(self.at)?.time.saturating_sub(item.time);
            Some(Instant::now() + Duration::from_nanos(gap).div_f64(speed))
        });
        None
    }

    fn end(&self) -> Option<Progress> {
        let waits = self.vcpus.keys().any(|vcpu| !self.unfinished.contains(vcpu));
        Some(if waits { Progress::Consumer } else { Progress::Finished })
    }

    fn stands_in_the_way(&self, item: &Item, engine: &Engine) -> Option<Progress> {
        match &item.entry {
            Entry::Guest { vcpu, input, .. } => {
                let doing = self.vcpus.get(vcpu)?;
                let leaves = matches!(input, Input::Abandon { .. }) && !matches!(doing.reason, WaitReason::Answer(_));
                (!leaves).then_some(Progress::Consumer)
            }
            Entry::Answer { ring, vcpu, subject } => {
                let is_out = engine.exchanges.out().any(|out| {
                    out.ring == *ring
                        && super::exchange::of_vcpu(&out.request) == *vcpu
                        && out.request.event.subject() == *subject
                });
                is_out.then_some(Progress::Consumer)
            }
            Entry::Call(control) => {
                let made = self.calls.get(&control.to_string()).is_some_and(|times| *times > 0);
                (!made && !self.hurried && !self.makes_other_calls()).then_some(Progress::Moment)
            }
            Entry::Others { taken, .. } => {
                let due = mem_event::taken::records(taken).count();
                let ring = match &item.entry {
                    Entry::Others { input: Input::Kick { ring }, .. } => *ring,
                    _ => return None,
                };
                let out = engine.domain.ring(ring).outstanding.len();
                (out < due && !self.hurried).then_some(Progress::Moment)
            }
            Entry::Released { vcpu, by_consumer: true } => self.is_stopped(*vcpu).then_some(Progress::Consumer),
            Entry::Foreign(_)
            | Entry::Given(_)
            | Entry::Stopped { .. }
            | Entry::Released { .. }
            | Entry::Ordered(_) => None,
        }
    }

    /// A vCPU stops at a checkpoint, where somebody hears of it.
    fn stop(&mut self, vcpu: VcpuId, at: Point, arguments: [u64; 3], engine: &mut Engine) {
        let notice = match at {
            Point::Number(number) => Notice::Checkpoint { vcpu, number, arguments },
            Point::Place(gpa) => Notice::Place { vcpu, gpa, arguments },
        };
        engine.remark(|| Remark::Stopped { vcpu, at, arguments });
        if engine.subscribers.notify(&notice) == 0 {
            engine.remark(|| Remark::Released { vcpu, connection: None });
        } else {
            self.stopped.push(vcpu);
        }
    }

    fn deliver(&mut self, item: &'a Item, engine: &mut Engine) {
        match &item.entry {
            Entry::Guest { vcpu, input, again, registers } => {
                if matches!(input, Input::Abandon { .. }) {
                    self.vcpus.remove(vcpu);
                }
                self.make(*vcpu, (input, registers.as_deref()), (*again, 0), engine);
            }
            Entry::Stopped { vcpu, at, arguments } => self.stop(*vcpu, *at, *arguments, engine),
            Entry::Released { vcpu, by_consumer } => {
                if self.is_stopped(*vcpu) && !by_consumer {
                    engine.remark(|| Remark::Released { vcpu: *vcpu, connection: None });
                    self.release(*vcpu);
                }
            }
            Entry::Ordered(order) => {
                engine.remark(|| Remark::Ordered { connection: 0, order: order.clone() });
                engine.ordered.add(order);
                self.order = Some((order, false));
            }
            Entry::Foreign(access) => {
                if matches!(engine.step(&Input::Foreign { access: *access }), Outcome::Retry(_)) {
                    self.returning.push(*access);
                }
            }
            Entry::Given(input) => drop(engine.step(input)),
            Entry::Others { input, taken } => {
                let due = mem_event::taken::records(taken).count();
                let out = match input {
                    Input::Kick { ring } => engine.domain.ring(*ring).outstanding.len(),
                    _ => due,
                };
                if out >= due {
                    engine.step_of_others(input, taken);
                }
            }
            Entry::Answer { .. } => {}
            Entry::Call(control) => *self.calls.entry(control.to_string()).or_default() -= 1,
        }
    }

    /// An item as the seed will have it.
    fn any(&mut self, engine: &mut Engine) -> Option<Progress> {
        let (mut choices, mut window) = self.seeded.take()?;
        let ready = window.ready(|place| self.stands_in_the_way(&self.items[place], engine).is_none());
        let chosen = (!ready.is_empty()).then(|| ready[choices.below(ready.len())]);
        let progress = if let Some(place) = chosen.and_then(|whose| window.take(whose)) {
            self.deliver(&self.items[place], engine);
            self.not_before = choices.delay().map(|delay| Instant::now() + delay);
            None
        } else if engine.exchanges.out().next().is_some() || self.awaits_release(&window) {
            Some(Progress::Consumer)
        } else if let Some(item) = self.items.get(window.end) {
            self.deliver(item, engine);
            window.extend(self.items, window.end + 1);
            None
        } else if window.is_empty() {
            self.end()
        } else {
            Some(Progress::Consumer)
        };
        self.seeded = Some((choices, window));
        progress
    }

    /// Whether a vCPU stands at a checkpoint from which the recorded consumer let it go.
    fn awaits_release(&self, window: &Window) -> bool {
        !window.ready(|place| matches!(self.items[place].entry, Entry::Released { .. })).is_empty()
    }
}
