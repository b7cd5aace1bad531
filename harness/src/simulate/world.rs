//! A domain in virtual time: vCPUs that make events, and what each ring's flow control does with them. Nothing here decides who may put,
//! sleeps or is woken: that is [`mem_event::flow`]'s, which is driven as its text says.

use super::arrival::{Arrival, Arrivals};
use super::clock::{Clock, Due};
use super::dice::Dice;
use super::lane::{Lane, Use, Whose};
use super::law::{Law, below, share};
use super::settings::Settings;
use super::tally::Tally;
use super::vcpu::{At, Kind, Vcpu};
use mem_event::flow::{FlowKind, Place, Put, Stops, Try};
use mem_event::{Ring, VcpuId};

/// One part in so many of the events is made before anything is measured.
const WARM_UP: u64 = 10;
/// The rings in the order in which there are more of them.
const RINGS: [Ring; 3] = [Ring::Access, Ring::Paging, Ring::Sharing];

/// A foreign producer's event that has not found a slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Foreign {
    /// Tries that it has had.
    pub tries: u32,
    /// On which ring.
    pub ring: u32,
    pub kind: Kind,
}

/// A domain, its rings and everybody around it.
#[derive(Debug)]
pub struct World<'a> {
    pub(super) settings: &'a Settings,
    pub(super) kind: FlowKind,
    pub(super) clock: Clock,
    pub(super) dice: Dice,
    arrivals: Arrivals,
    pub(super) stops: Stops,
    pub(super) lanes: Vec<Lane>,
    pub(super) vcpus: Vec<Vcpu>,
    pub(super) foreign: Vec<Foreign>,
    pub(super) tally: Tally,
    /// When the measured part began and ended.
    pub(super) measured: (u64, u64),
    /// What of each ring was in use meanwhile.
    pub(super) usage: Vec<Use>,
}

impl<'a> World<'a> {
    /// At its beginning: all rings enabled, all vCPUs at work.
    #[must_use]
    pub fn new(settings: &'a Settings, kind: FlowKind) -> World<'a> {
        let mut dice = Dice::new(settings.seed);
        let mut stops = Stops::new(settings.vcpus);
        let rings = &RINGS[..settings.rings as usize];
        let lanes = rings.iter().map(|ring| Lane::new(kind, *ring, settings, &mut stops)).collect();
        stops.woken.clear();
        let mut arrivals = Arrivals::new(&settings.think, settings.vcpus, &mut dice.think);
        let mut clock = Clock::default();
        for vcpu in 0..settings.vcpus {
            clock.set(arrivals.next(vcpu, &mut dice.think), Due::Event(vcpu));
        }
        for producer in 0..settings.foreign {
            clock.set(settings.foreign_think.draw(&mut dice.think), Due::Foreign(producer));
        }
        World {
            settings,
            kind,
            clock,
            dice,
            arrivals,
            stops,
            lanes,
            vcpus: vec![Vcpu::default(); settings.vcpus as usize],
            foreign: vec![Foreign::default(); settings.foreign as usize],
            tally: Tally::default(),
            measured: (0, 0),
            usage: Vec::new(),
        }
    }

    /// Until as many events are made as are asked for, and nothing more happens: what waits then waits for ever.
    pub fn run(&mut self) {
        while let Some(due) = self.clock.pass() {
            match due {
                Due::Event(vcpu) => self.event(vcpu),
                Due::Retry(vcpu) => self.retry(vcpu),
                Due::Put(vcpu) => self.put(vcpu),
                Due::Foreign(producer) => self.foreign(producer),
                Due::ForeignPut(producer) => self.foreign_put(producer),
                Due::Served(consumer) => self.served(consumer),
                Due::Signalled(consumer) => self.work(consumer),
            }
        }
        self.end_measuring();
    }

    /// Whether one more event may be made; it is counted then.
    pub(super) fn makes(&mut self) -> bool {
        let made = self.tally.counts.made;
        if made == self.settings.events {
            self.end_measuring();
            return false;
        }
        if made == self.settings.events / WARM_UP {
            self.begin_measuring();
        }
        self.tally.counts.made += 1;
        true
    }

    fn begin_measuring(&mut self) {
        let now = self.clock.now();
        self.measured = (now, now);
        self.tally.begin();
        self.vcpus.iter_mut().for_each(|vcpu| vcpu.answered = 0);
        self.lanes.iter_mut().for_each(|lane| lane.measure(now));
    }

    fn end_measuring(&mut self) {
        if self.tally.measures() {
            self.tally.after = Some(self.tally.counts);
            let now = self.clock.now();
            self.measured.1 = now;
            self.usage = self.lanes.iter_mut().map(|lane| lane.usage(now)).collect();
        }
    }

    /// A time drawn from a law of latencies; most are constant, and many nothing.
    pub(super) fn latency(&mut self, law: &Law) -> u64 {
        law.draw(&mut self.dice.latency)
    }

    /// The ring and the kind of the next event.
    pub(super) fn choose(&mut self) -> (u32, Kind) {
        let Settings { rings, notices, drops, .. } = self.settings;
        let ring = match *rings {
            1 => 0,
            rings => u32::try_from(below(&mut self.dice.choice, rings.into())).unwrap_or(0),
        };
        if *notices == 0.0 && *drops == 0.0 {
            return (ring, Kind::Fault);
        }
        let drawn = share(&mut self.dice.choice);
        let kind = match drawn {
            _ if drawn < *notices => Kind::Notice,
            _ if drawn < notices + drops => Kind::Drop,
            _ => Kind::Fault,
        };
        (ring, kind)
    }

    fn event(&mut self, at: u32) {
        if !self.makes() {
            return;
        }
        let (ring, kind) = self.choose();
        let (now, free) = (self.clock.now(), self.lanes[ring as usize].free());
        let pauses_first = self.pauses_first(ring, kind);
        let vcpu = &mut self.vcpus[at as usize];
        *vcpu = Vcpu { kind, ring, paused: pauses_first, begun: now, answered: vcpu.answered, ..Vcpu::default() };
        let id = VcpuId(at);
        if pauses_first {
            self.stops.pause(id);
        }
        let flow = &mut self.lanes[ring as usize].flow;
        let tried = match kind {
            Kind::Drop => flow.claim_drop(Some(id), free, &mut self.stops),
            Kind::Fault | Kind::Notice => flow.claim(id, free, &mut self.stops),
        };
        self.tried(at, tried);
    }

    /// Sharing of 2011 pauses its vCPU before it looks for room.
    fn pauses_first(&self, ring: u32, kind: Kind) -> bool {
        kind == Kind::Fault && self.kind == FlowKind::CheckRing && self.lanes[ring as usize].ring == Ring::Sharing
    }

    /// And that of v5 when its request is put.
    fn pauses_last(&self, ring: u32) -> bool {
        self.kind == FlowKind::WaitQueueV5 && self.lanes[ring as usize].ring == Ring::Sharing
    }

    fn retry(&mut self, at: u32) {
        let At::Woken(place) = self.vcpus[at as usize].at else { return };
        let Some(place) = place else { return self.put(at) };
        let lane = &mut self.lanes[self.vcpus[at as usize].ring as usize];
        let free = lane.free();
        let tried = lane.flow.claim_again(VcpuId(at), place, free, &mut self.stops);
        if matches!(tried, Try::Asleep(_)) {
            self.tally.counts.in_vain += 1;
        }
        self.tried(at, tried);
    }

    fn tried(&mut self, at: u32, tried: Try) {
        let vcpu = &mut self.vcpus[at as usize];
        match tried {
            Try::Slot => {
                vcpu.at = At::Claimed;
                match self.latency(&self.settings.prepare) {
                    0 => self.put(at),
                    after => self.clock.set(after, Due::Put(at)),
                }
            }
            // What cannot be made anew is lost with its claim.
            Try::Asleep(Place::Flag) if vcpu.kind != Kind::Fault => {
                vcpu.at = At::Done;
                self.tally.counts.lost += 1;
            }
            Try::Asleep(place) => vcpu.at = At::Asleep(place),
            Try::Refused | Try::NoRing => {
                self.tally.counts.lost += 1;
                self.goes_on(at, 0);
            }
        }
        self.wake();
    }

    fn put(&mut self, at: u32) {
        let now = self.clock.now();
        let Vcpu { kind, ring, begun, paused, at: was, .. } = self.vcpus[at as usize];
        let (is_fault, pauses_last) = (kind == Kind::Fault, self.pauses_last(ring));
        if is_fault && !paused && !pauses_last {
            self.stops.pause(VcpuId(at));
            self.vcpus[at as usize].paused = true;
        }
        let lane = &mut self.lanes[ring as usize];
        let free = lane.free();
        match lane.flow.put(VcpuId(at), is_fault, free, &mut self.stops) {
            Put::Done { blocked } => {
                if is_fault && pauses_last {
                    self.stops.pause(VcpuId(at));
                }
                if self.tally.measures() {
                    self.tally.slot.add(now - begun);
                }
                let vcpu = &mut self.vcpus[at as usize];
                vcpu.put = Some(now);
                vcpu.at = if is_fault { At::Stopped } else { At::Done };
                self.request(ring, Whose::vcpu(at, is_fault));
                if !is_fault && !blocked {
                    self.goes_on(at, 0);
                }
            }
            Put::Asleep => {
                if was == At::Woken(None) {
                    self.tally.counts.in_vain += 1;
                } else {
                    self.tally.breaks("a put slept after its claim");
                }
                if !self.stops.runs(VcpuId(at)) && self.stops.of(VcpuId(at)).pauses > 1 {
                    self.tally.breaks("a vCPU was paused twice");
                }
                self.vcpus[at as usize].at = At::InPut;
            }
            Put::Lost | Put::Fault => {
                self.tally.counts.lost += 1;
                self.goes_on(at, 0);
            }
        }
        self.wake();
    }

    /// A request is on the ring: a consumer that sleeps is signalled.
    pub(super) fn request(&mut self, ring: u32, whose: Whose) {
        let now = self.clock.now();
        let Some(consumer) = self.lanes[ring as usize].put(whose, now) else { return };
        let consumer = ring * self.settings.consumers + consumer;
        match self.latency(&self.settings.signal) {
            0 => self.work(consumer),
            after => self.clock.set(after, Due::Signalled(consumer)),
        }
    }

    /// Those that a step of the policy has woken run after a while.
    pub(super) fn wake(&mut self) {
        // What a wake does wakes nobody.
        for number in 0..self.stops.woken.len() {
            let VcpuId(at) = self.stops.woken[number];
            self.tally.counts.wakes += 1;
            let after = self.latency(&self.settings.wake);
            let vcpu = &mut self.vcpus[at as usize];
            let again = match vcpu.at {
                At::Asleep(place) => Some(place),
                At::InPut => None,
                At::Done => {
                    // What was recorded was counted from the wake on.
                    let after = if matches!(self.settings.think, Arrival::Recorded(_)) { 0 } else { after };
                    self.goes_on(at, after);
                    continue;
                }
                At::Work | At::Claimed | At::Woken(_) | At::Stopped => {
                    self.tally.breaks("a vCPU was woken that did not wait to be");
                    continue;
                }
            };
            vcpu.at = At::Woken(again);
            self.clock.set(after, Due::Retry(at));
        }
        self.stops.woken.clear();
    }

    /// A vCPU that is done with its event runs after a while, and then works until its next.
    fn goes_on(&mut self, at: u32, after: u64) {
        let runs = self.clock.now() + after;
        let vcpu = &mut self.vcpus[at as usize];
        if self.tally.measures() {
            let put = vcpu.put.filter(|_| vcpu.kind == Kind::Fault);
            self.tally.stood_still(vcpu.begun, put, runs);
        }
        vcpu.at = At::Work;
        let think = self.arrivals.next(at, &mut self.dice.think);
        self.clock.set(after + think, Due::Event(at));
    }
}
