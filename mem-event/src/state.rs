//! The whole state of a domain as a value: to compare, to put away, and to make a domain of again.

use crate::altp2m::{Settings, Views};
use crate::beyond::Beyond;
use crate::budget::Budget;
use crate::channel::Channel;
use crate::control::Ring;
use crate::domain::Domain;
use crate::historic::Historic;
use crate::input::DomainConfig;
use crate::life::Life;
use crate::modes::Monitor;
use crate::number::{Gfn, MOST_VIEWS, VcpuId, ViewId};
use crate::p2m::{Entry, P2m};
use crate::rights::AccessType;
use crate::ring::FrontState;
use crate::ring_state::RingState;
use crate::shares::Shares;
use crate::vcpu::Vcpu;
use bincode::{Decode, Encode};
use std::collections::BTreeMap;

/// Everything that a domain's behaviour depends on, except what is on its ring pages. Two domains with equal states that see equal
/// pages behave alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct DomainState {
    life: Life,
    rings: [RingState; 3],
    vcpus: Vec<Vcpu>,
    /// How many equal entries follow each other, from frame 0 on.
    p2m: Vec<(u64, Entry)>,
    budget: Budget,
    shares: Shares,
    beyond: Beyond,
    monitor: Monitor,
    default_access: AccessType,
    /// What views say beside the host's, where the domain has views: by number, the host's being none.
    views: Option<Vec<Option<Settings>>>,
    foreign_waits: bool,
    historic: Option<Box<Historic>>,
}

/// A domain put away: its state, and of its ring pages the counters. The rest of a page is requests that the consumer has, which the
/// state lists, and responses, which come with the steps that take them.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Checkpoint {
    /// The state.
    pub state: DomainState,
    counters: [Option<FrontState>; 3],
    room: bool,
}

impl Domain {
    /// A copy of the whole state, to compare.
    #[must_use]
    pub fn state(&self) -> DomainState {
        DomainState {
            life: self.life.clone(),
            rings: Ring::ALL.map(|ring| self.channels[ring.index()].state.clone()),
            vcpus: self.vcpus.clone(),
            p2m: runs(&self.p2m),
            budget: self.budget.clone(),
            shares: self.shares.clone(),
            beyond: self.beyond.clone(),
            monitor: self.monitor.clone(),
            default_access: self.default_access,
            views: self.p2m.views().map(Views::settings),
            foreign_waits: self.foreign_waits,
            historic: self.historic.clone(),
        }
    }

    /// The domain put away.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            state: self.state(),
            counters: Ring::ALL.map(|ring| self.channels[ring.index()].counters()),
            room: self.room,
        }
    }

    /// A domain that goes on where another was put away, with ring pages of its own memory.
    ///
    /// # Errors
    /// A sentence, where the checkpoint is none of a domain with these facts. Nothing in it is believed.
    pub fn restore(config: DomainConfig, checkpoint: Checkpoint) -> Result<Domain, String> {
        let mut domain = Domain::new(config)?;
        let Checkpoint { state, counters, room } = checkpoint;
        state.check_numbers(domain.vcpus.len())?;
        fill(&mut domain.p2m, &state.p2m)?;
        for ((ring, state), counters) in Ring::ALL.into_iter().zip(state.rings).zip(counters) {
            domain.channels[ring.index()] = Channel::restore(ring, state, counters)?;
        }
        domain.life = state.life;
        domain.vcpus = state.vcpus;
        domain.budget = state.budget;
        domain.shares = state.shares;
        domain.beyond = state.beyond;
        domain.monitor = state.monitor;
        domain.default_access = state.default_access;
        domain.restore_views(state.views)?;
        domain.foreign_waits = state.foreign_waits;
        domain.historic = state.historic;
        domain.room = room;
        domain.check_invariants()?;
        Ok(domain)
    }
}

impl Domain {
    /// The views, and by which its vCPUs go.
    fn restore_views(&mut self, views: Option<Vec<Option<Settings>>>) -> Result<(), String> {
        let Some(views) = views else { return Ok(()) };
        let is_frame = |gfn: &u64| *gfn < self.p2m.end();
        let are_known = views.len() <= usize::from(MOST_VIEWS) && views.first().is_none_or(Option::is_none);
        let exists = |gfn: &u64| is_frame(gfn) || self.beyond.has(Gfn(*gfn));
        let are_there = |view: &Settings| {
            view.own.keys().all(is_frame) && view.shown.iter().all(|(gfn, other)| exists(gfn) && exists(other))
        };
        if !are_known || !views.iter().flatten().all(are_there) {
            return Err("views that are none, or of frames that there are not".to_owned());
        }
        self.p2m.set_views(Some(Views::new(self.config.vcpus)));
        for (view, settings) in ViewId::all().zip(views) {
            if settings.is_some() {
                self.p2m.put_view(view, settings);
            }
        }
        for vcpu in 0..self.vcpus.len() {
            let view = self.vcpus[vcpu].view;
            if !self.p2m.views().is_some_and(|views| views.has(view)) {
                return Err(format!("vCPU {vcpu} goes by view {view}, which there is not"));
            }
            self.p2m.moves(vcpu, ViewId::HOST, view);
        }
        self.p2m.republish();
        Ok(())
    }
}

impl DomainState {
    /// What the check of invariants relies on: every number names something, and sums do not run over.
    fn check_numbers(&self, vcpus: usize) -> Result<(), String> {
        let queues = self.rings.iter().flat_map(|state| &state.flow.waiters).chain(&self.budget.queue);
        let exists = |vcpu: &VcpuId| (vcpu.0 as usize) < vcpus;
        if self.vcpus.len() != vcpus || !queues.into_iter().all(exists) {
            return Err(format!("{} vCPUs, or a queue of others, where the domain has {vcpus}", self.vcpus.len()));
        }
        let slots = [0, 1, 2].map(|ring| self.rings.get(ring).map_or(0, |state: &RingState| state.slots));
        let many = u32::try_from(vcpus).unwrap_or(u32::MAX);
        if !self.historic.as_ref().is_none_or(|it| it.is_sound(many, slots)) {
            return Err("sleepers, stops or flow controls of vCPUs or rings that there are not".to_owned());
        }
        let Shares { handles, members, .. } = &self.shares;
        let mut sharers = BTreeMap::new();
        handles.values().for_each(|handle| *sharers.entry(*handle).or_insert(0) += 1);
        if sharers != *members {
            return Err("groups of sharers that are not whole".to_owned());
        }
        let granted = self.budget.granted;
        if granted > vcpus as u64 {
            return Err(format!("{granted} frames reserved for {vcpus} vCPUs"));
        }
        Ok(())
    }
}

/// The entries from frame 0 on, as how many equal ones follow each other.
fn runs(p2m: &P2m) -> Vec<(u64, Entry)> {
    let mut runs: Vec<(u64, Entry)> = Vec::new();
    for entry in p2m.entries() {
        match runs.last_mut() {
            Some((count, last)) if *last == entry => *count += 1,
            _ => runs.push((1, entry)),
        }
    }
    runs
}

/// Replaces all entries by those of [`runs`].
///
/// # Errors
/// A sentence, where they are not as many frames, or make RAM of what is none.
fn fill(p2m: &mut P2m, runs: &[(u64, Entry)]) -> Result<(), String> {
    let mut next = 0;
    for (count, entry) in runs {
        let end = next + count.min(&(p2m.end() - next + 1));
        if *count == 0 || end > p2m.end() {
            return Err(format!("runs of frames that do not end at {:#x}", p2m.end()));
        }
        for gfn in (next..end).map(Gfn) {
            let before = p2m.get(gfn);
            if before.is_ram() != entry.is_ram() {
                return Err(format!("frame {gfn} is {} and was {}", entry.kind, before.kind));
            }
            if before != *entry {
                p2m.set(gfn, *entry);
            }
        }
        next = end;
    }
    if next == p2m.end() { Ok(()) } else { Err(format!("runs of frames that end at {next:#x}")) }
}
