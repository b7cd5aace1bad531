//! A recording as what is to be done again: the guest's inputs in their order, and what the consumer under test did between them.

use super::exchange::{Exchange, Exchanges, of_vcpu};
use super::ordered::Ordered;
use super::replies::Replies;
use super::whose::Whose;
use mem_event::trace::remark::Point;
use mem_event::trace::{Header, Player, PlayerError, Remark, Remarked, Step};
use mem_event::wire::vm_event::Registers;
use mem_event::{Access, AccessType, Control, Domain, Effect, Gfn, Input, Outcome, Ring, VcpuId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read, Seek};

/// Something of the recording, in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A vCPU's input. How often it is made again after a wake is the live engine's matter.
    Guest {
        /// Who.
        vcpu: VcpuId,
        /// What.
        input: Input,
        /// Whether the vCPU made it again after an answer; else it did something else.
        again: bool,
        /// The registers that its request carried, where the recording has them.
        registers: Option<Box<Registers>>,
    },
    /// A vCPU stopped at a checkpoint or a place.
    Stopped {
        /// Who.
        vcpu: VcpuId,
        /// Where.
        at: Point,
        /// What it held there.
        arguments: [u64; 3],
    },
    /// A vCPU that stopped went on.
    Released {
        /// Who.
        vcpu: VcpuId,
        /// Whether the consumer let it go; else the toolstack.
        by_consumer: bool,
    },
    /// The toolstack ordered the pager to do something.
    Ordered(String),
    /// A device's access, made again until it may.
    Foreign(Access),
    /// What comes from neither guest nor consumer: the toolstack, frames without memory, the end.
    Given(Input),
    /// A ring that is not under test: what was taken from it.
    Others {
        /// The input.
        input: Input,
        /// What the step took from ring pages.
        taken: Vec<u8>,
    },
    /// The consumer answered a request.
    Answer {
        /// On which ring.
        ring: Ring,
        /// To which vCPU; none for a device's.
        vcpu: Option<VcpuId>,
        /// What the request named.
        subject: u64,
    },
    /// The consumer called while no request was out.
    Call(Control),
}

/// An entry with where it stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The step.
    pub step: u64,
    /// Its time, in nanoseconds.
    pub time: u64,
    /// What.
    pub entry: Entry,
}

/// A whole recording.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its header.
    pub header: Header,
    /// What comes before the consumer's rings begin.
    pub before: Vec<Input>,
    /// The rest, in order.
    pub items: Vec<Item>,
    /// The requests on the rings under test, and what became of each.
    pub exchanges: Exchanges,
    /// The vCPUs that waited when it ended.
    pub waiting: BTreeSet<VcpuId>,
    /// What the consumer's calls were answered that the engine does not know of.
    pub replies: Replies,
    /// The frames that the recorded run left with less than all rights.
    pub restricted: BTreeMap<Gfn, AccessType>,
    /// Whether the recorded pager evicted frames that it was ordered to evict, and no others.
    pub evicts_by_order: bool,
}

impl Script {
    /// Whether it holds the registers that requests carry.
    #[must_use]
    pub fn has_registers(&self) -> bool {
        self.items.iter().any(|item| matches!(&item.entry, Entry::Guest { registers: Some(_), .. }))
    }
}

/// Reads a recording for a consumer of these rings.
///
/// # Errors
/// The trace is damaged, or does not replay.
pub fn read<R: Read + Seek>(mut player: Player<R>, rings: &[Ring]) -> Result<Script, PlayerError> {
    let mut whose = Whose::new(rings);
    let mut reader = Reading::new(rings);
    loop {
        for remarked in player.remarks()? {
            whose.heard(&remarked.remark);
            reader.remark(player.number(), &remarked, &whose);
        }
        let Some(step) = player.forward()? else { break };
        reader.step(player.number(), &step, player.domain(), &mut whose);
    }
    let header = player.header().clone();
    let evicts_by_order = reader.evicts_by_order();
    let Reading { before, items, exchanges, waits, replies, .. } = reader;
    let waiting = waits.into_keys().collect();
    let restricted = restricted(&header, player.domain());
    Ok(Script { header, before, items, exchanges, waiting, restricted, replies, evicts_by_order })
}

#[derive(Debug, Default)]
struct Reading {
    rings: Vec<Ring>,
    before: Vec<Input>,
    items: Vec<Item>,
    exchanges: Exchanges,
    /// A ring under test was enabled, or a guest's input came.
    begun: bool,
    replies: Replies,
    /// The registers that the next step's request carries.
    registers: Option<Box<Registers>>,
    ordered: Ordered,
    /// Evictions that were ordered, and others.
    evictions: [u64; 2],
    /// The input of each vCPU that was told to wait, and the place of its entry.
    waits: HashMap<VcpuId, (Input, usize)>,
    /// Accesses of devices that were told to come back.
    returning: Vec<Access>,
}

impl Reading {
    fn new(rings: &[Ring]) -> Reading {
        Reading { rings: rings.to_vec(), ..Reading::default() }
    }

    fn evicts_by_order(&self) -> bool {
        let [ordered, others] = self.evictions;
        ordered > 0 && others == 0
    }

    fn step(&mut self, number: u64, step: &Step, domain: &Domain, whose: &mut Whose) {
        if let (Input::Control(Control::Evict { gfn }), Outcome::Proceed) = (&step.input, &step.outcome) {
            self.evictions[usize::from(!self.ordered.contains(*gfn))] += 1;
        }
        let quiet = !self.exchanges.out().any(|exchange| self.rings.contains(&exchange.ring));
        let of_consumer = whose.is_consumers(step, !quiet);
        let entry = match &step.input {
            Input::Access { vcpu, .. }
            | Input::AccessNosleep { vcpu, .. }
            | Input::CpuEvent { vcpu, .. }
            | Input::Emulated { vcpu }
            | Input::Balloon { vcpu, .. } => self.guest(*vcpu, step),
            Input::Abandon { vcpu } => {
                self.waits.remove(vcpu);
                Some(Entry::Guest { vcpu: *vcpu, input: step.input.clone(), again: false, registers: None })
            }
            Input::Foreign { access } => self.foreign(access, &step.outcome),
            Input::Kick { ring } | Input::Control(Control::Resume { ring }) => (!self.rings.contains(ring))
                .then(|| Entry::Others { input: step.input.clone(), taken: step.effects.taken.clone() }),
            Input::Control(Control::Enable { ring, .. }) if self.rings.contains(ring) => {
                self.begun = true;
                None
            }
            Input::Control(Control::Enable { .. }) => {
                Some(Entry::Others { input: step.input.clone(), taken: Vec::new() })
            }
            Input::Control(Control::GetAccess { .. }) => None,
            Input::Control(control) if of_consumer => call(control, &step.outcome, quiet),
            Input::ConsumerLost { ring } if self.rings.contains(ring) => None,
            // The contents of a replay can be written always.
            Input::FillFailed { .. } => None,
            other => Some(Entry::Given(other.clone())),
        };
        match entry {
            Some(Entry::Given(input)) if !self.begun => self.before.push(input),
            Some(entry) => self.items.push(Item { step: number, time: step.time, entry }),
            None => {}
        }
        self.exchanges(number, step, domain);
    }

    fn remark(&mut self, step: u64, remarked: &Remarked, whose: &Whose) {
        let entry = match &remarked.remark {
            Remark::Called { connection, call, reply } if whose.is_of(*connection) => {
                self.replies.add(call, reply);
                return;
            }
            Remark::Registers { registers, .. } => {
                self.registers = Some(registers.clone());
                return;
            }
            Remark::Stopped { vcpu, at, arguments } => Entry::Stopped { vcpu: *vcpu, at: *at, arguments: *arguments },
            Remark::Released { vcpu, connection } => {
                Entry::Released { vcpu: *vcpu, by_consumer: connection.is_some_and(|by| whose.is_of(by)) }
            }
            Remark::Ordered { order, .. } if self.rings.contains(&Ring::Paging) => {
                self.ordered.add(order);
                Entry::Ordered(order.clone())
            }
            _ => return,
        };
        self.items.push(Item { step, time: remarked.time, entry });
    }

    fn exchanges(&mut self, number: u64, step: &Step, domain: &Domain) {
        let of_rings = |effect: &&Effect| match effect {
            Effect::Requested { ring, .. } | Effect::Answered { ring, .. } => self.rings.contains(ring),
            _ => false,
        };
        let effects: Vec<Effect> = step.effects.list.iter().filter(of_rings).cloned().collect();
        let (_, answered, _) = self.exchanges.step(number, &effects, domain);
        for place in answered {
            let Exchange { ring, request, .. } = &self.exchanges.all[place];
            let entry = Entry::Answer { ring: *ring, vcpu: of_vcpu(request), subject: request.event.subject() };
            self.items.push(Item { step: number, time: step.time, entry });
        }
    }

    fn guest(&mut self, vcpu: VcpuId, step: &Step) -> Option<Entry> {
        self.begun = true;
        let carried = self.registers.take();
        let before = self.waits.remove(&vcpu).filter(|(input, _)| *input == step.input);
        let place = before.as_ref().map_or(self.items.len(), |(_, place)| *place);
        if matches!(step.outcome, Outcome::Wait(_)) {
            self.waits.insert(vcpu, (step.input.clone(), place));
        }
        if before.is_none() {
            return Some(Entry::Guest { vcpu, input: step.input.clone(), again: false, registers: carried });
        }
        if let Entry::Guest { again, registers, .. } = &mut self.items[place].entry {
            *again = true;
            // What repeats a request is the same instruction with the same registers.
            *registers = registers.take().or(carried);
        }
        None
    }

    fn foreign(&mut self, access: &Access, outcome: &Outcome) -> Option<Entry> {
        self.begun = true;
        let before = self.returning.iter().position(|other| other == access);
        match (before, matches!(outcome, Outcome::Retry(_))) {
            (Some(_), true) => None,
            (Some(place), false) => {
                self.returning.remove(place);
                None
            }
            (None, returns) => {
                self.returning.extend(returns.then_some(*access));
                Some(Entry::Foreign(*access))
            }
        }
    }
}

/// A call that was made of the consumer's own accord, and that changed something.
fn call(control: &Control, outcome: &Outcome, quiet: bool) -> Option<Entry> {
    let refused = matches!(outcome, Outcome::Refused(..) | Outcome::Retry(_));
    (quiet && !refused).then(|| Entry::Call(control.clone()))
}

/// The frames of a domain that have less than all rights.
#[must_use]
pub fn restricted(header: &Header, domain: &Domain) -> BTreeMap<Gfn, AccessType> {
    let frames = header.config.ram.iter().flat_map(|(first, count)| (first.0..first.0 + count).map(Gfn));
    let rights = frames.map(|gfn| (gfn, domain.access_type(gfn)));
    rights.filter(|(_, access)| *access != AccessType::Rwx).collect()
}
