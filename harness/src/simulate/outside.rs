//! Those that are no vCPU: foreign producers, which cannot sleep, and consumers, which answer.

use super::clock::Due;
use super::lane::Whose;
use super::law::share;
use super::vcpu::{At, Kind};
use super::world::{Foreign, World};
use mem_event::VcpuId;
use mem_event::flow::{Put, Try};

impl World<'_> {
    /// A foreign producer makes an event, or tries again with the last one.
    pub(super) fn foreign(&mut self, at: u32) {
        let mut event = self.foreign[at as usize];
        if event.tries == 0 {
            if !self.makes() {
                return;
            }
            (event.ring, event.kind) = self.choose();
        }
        event.tries += 1;
        self.foreign[at as usize] = event;
        let lane = &mut self.lanes[event.ring as usize];
        let free = lane.free();
        let tried = match event.kind {
            Kind::Drop => lane.flow.claim_drop(None, free, &mut self.stops),
            Kind::Fault | Kind::Notice => lane.flow.claim_foreign(free),
        };
        match tried {
            Try::Slot => {
                let after = self.latency(&self.settings.prepare);
                if after == 0 {
                    self.foreign_put(at)
                } else {
                    self.clock.set(after, Due::ForeignPut(at))
                }
                return;
            }
            Try::Refused | Try::NoRing | Try::Asleep(_) => self.refused(at, event),
        }
        self.wake();
    }

    /// There was no room. What must be told at once is lost; else there may be another try.
    fn refused(&mut self, at: u32, event: Foreign) {
        self.tally.counts.refusals += 1;
        if event.kind == Kind::Drop {
            self.tally.counts.lost += 1;
        } else if event.tries >= self.settings.tries {
            self.tally.counts.refused += 1;
        } else {
            let think = self.settings.foreign_think.draw(&mut self.dice.think);
            return self.clock.set(think, Due::Foreign(at));
        }
        self.next(at);
    }

    pub(super) fn foreign_put(&mut self, at: u32) {
        let Foreign { ring, .. } = self.foreign[at as usize];
        let lane = &mut self.lanes[ring as usize];
        let free = lane.free();
        match lane.flow.put_foreign(free, &mut self.stops) {
            Put::Done { .. } => self.request(ring, Whose::foreign()),
            Put::Asleep | Put::Lost | Put::Fault => {
                self.tally.counts.lost += 1;
                self.tally.breaks("a put lost its request after its claim");
            }
        }
        self.wake();
        self.next(at);
    }

    /// The producer is done with its event, and will make another.
    fn next(&mut self, at: u32) {
        self.foreign[at as usize].tries = 0;
        let think = self.settings.foreign_think.draw(&mut self.dice.think);
        self.clock.set(think, Due::Foreign(at));
    }

    /// A consumer takes what is on its ring, and works on it; where there is nothing it sleeps.
    pub(super) fn work(&mut self, at: u32) {
        let (ring, consumer) = (at / self.settings.consumers, at % self.settings.consumers);
        let count = self.lanes[ring as usize].take(consumer, self.settings.batch);
        if count == 0 {
            return;
        }
        let time = (0..count).map(|_| self.settings.service.draw(&mut self.dice.service)).sum();
        self.clock.set(time, Due::Served(at));
    }

    /// A consumer answers all that it has taken, and goes on.
    pub(super) fn served(&mut self, at: u32) {
        let (ring, consumer) = (at / self.settings.consumers, at % self.settings.consumers);
        let mut number = 0;
        while let Some(whose) = self.lanes[ring as usize].taken(consumer, number) {
            number += 1;
            if self.settings.loss > 0.0 && share(&mut self.dice.choice) < self.settings.loss {
                continue;
            }
            self.answered(ring, whose);
        }
        self.work(at);
    }

    fn answered(&mut self, ring: u32, whose: Whose) {
        let now = self.clock.now();
        let lane = &mut self.lanes[ring as usize];
        let free = lane.answered(now);
        lane.flow.taken(free, &mut self.stops);
        if let Some(at) = whose.who() {
            let vcpu = &mut self.vcpus[at as usize];
            vcpu.answered += u64::from(self.tally.measures());
            if whose.stops() {
                vcpu.at = At::Done;
                self.stops.answer(VcpuId(at));
            }
        }
        lane.flow.answered(free, &mut self.stops);
        self.tally.counts.answered += 1;
        self.wake();
    }
}
