//! A scenario: a guest, its machine, its consumers, what they do when. Plain data; ranges are text until the guest is known.

use crate::external::External;
use crate::range::Frames;
use crate::refusal::Refusal;
use crate::symbols::Symbols;
use mem_event::{AccessType, CpuEventKind, MonitorMode, Reason, Request, Rights, Ring, VcpuId};
use mem_event_client::channel::RingSettings;
use std::time::Duration;

/// A scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// Its name; that of its snapshot too.
    pub name: String,
    /// What the hardware or Xen does, and what this shows.
    pub about: String,
    /// A built-in guest, an ELF file, or `linux`.
    pub guest: String,
    /// vCPUs.
    pub vcpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// The CPU model, where QEMU's default lacks something.
    pub cpu: Option<String>,
    /// How long it may take.
    pub deadline: Duration,
    /// The access ring.
    pub access: Option<RingSettings>,
    /// The paging ring.
    pub paging: Option<RingSettings>,
    /// Bytes of RAM that the guest may hold at a time. Needs the paging ring; brings the sharing ring with it.
    pub target: Option<u64>,
    /// Consumers that are processes of their own. A ring that one of them holds is not served here.
    pub external: Vec<External>,
    /// What is done before the guest's first instruction.
    pub start: Vec<Act>,
    /// What is done at checkpoints.
    pub steps: Vec<Step>,
    /// What the listener does; the first rule that fits an event counts, and without one the page is relaxed.
    pub rules: Vec<Rule>,
}

/// Something that a scenario does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Set the access rights of frames.
    SetAccess {
        /// Which frames.
        range: String,
        /// The rights that are left.
        access: AccessType,
    },
    /// Page frames out. Those that cannot be (never touched, no RAM) are left.
    PageOut {
        /// Which frames.
        range: String,
    },
    /// Begin foreign mappings: frames that are paged out come back first, and none leaves before `Unmap`.
    Map {
        /// Which frames.
        range: String,
    },
    /// End foreign mappings.
    Unmap {
        /// Which frames.
        range: String,
    },
    /// Overwrite bytes of a frame.
    Write {
        /// The frame (the first of the range).
        range: String,
        /// First byte.
        offset: u16,
        /// What.
        value: u64,
    },
    /// Eight bytes of a frame must hold this value, or the scenario fails.
    Expect {
        /// The frame (the first of the range).
        range: String,
        /// First byte.
        offset: u16,
        /// What must be there.
        value: u64,
    },
    /// Which CPU events are reported from now on, and how.
    Monitor {
        /// The kind.
        kind: CpuEventKind,
        /// How.
        mode: MonitorMode,
        /// Only where the new value differs from the old.
        on_change_only: bool,
    },
    /// Whether a vCPU's single steps are reported, as far as they are monitored.
    SingleStep {
        /// The vCPU.
        vcpu: VcpuId,
        /// On or off.
        on: bool,
    },
}

/// What is done at a checkpoint of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The checkpoint's number.
    pub at: u64,
    /// The vCPU that must have stopped there; any if none is named.
    pub vcpu: Option<VcpuId>,
    /// What is done before the vCPU goes on.
    pub acts: Vec<Act>,
}

/// What the listener does about some events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Only for this reason.
    pub reason: Option<Reason>,
    /// Only for these rights asked, exactly.
    pub rights: Option<Rights>,
    /// Only for these frames.
    pub range: Option<String>,
    /// What is done while the vCPU is stopped.
    pub acts: Vec<Act>,
    /// How the event ends.
    pub then: Then,
}

/// How an access event ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Then {
    /// The page gets all rights, then the answer goes out.
    #[default]
    Relax,
    /// The page gets the rights that were asked for besides those it has, then the answer goes out.
    Grant,
    /// The page gets these rights, then the answer goes out.
    Set(AccessType),
    /// The answer goes out; with unchanged rights the same event comes again.
    Answer,
    /// No answer: a consumer that hangs.
    Silence,
}

impl Act {
    fn range(&self) -> Option<&str> {
        match self {
            Act::SetAccess { range, .. } | Act::PageOut { range } => Some(range),
            Act::Map { range } | Act::Unmap { range } => Some(range),
            Act::Write { range, .. } | Act::Expect { range, .. } => Some(range),
            Act::Monitor { .. } | Act::SingleStep { .. } => None,
        }
    }
}

impl Rule {
    /// Whether the rule is for this request.
    ///
    /// # Errors
    /// Its range is none.
    pub fn fits(&self, request: &Request, symbols: &Symbols) -> Result<bool, Refusal> {
        if self.reason.is_some_and(|reason| reason != request.reason)
            || self.rights.is_some_and(|rights| rights != request.rights)
        {
            return Ok(false);
        }
        match &self.range {
            None => Ok(true),
            Some(range) => Ok(Frames::parse(range, symbols)?.contains(request.gfn)),
        }
    }
}

impl Scenario {
    /// A scenario for a guest with one vCPU, 64 MiB and no consumer; the others start from it.
    #[must_use]
    pub fn bare(guest: &str) -> Scenario {
        Scenario {
            name: guest.into(),
            about: String::new(),
            guest: guest.into(),
            vcpus: 1,
            memory: 64 << 20,
            cpu: None,
            deadline: Duration::from_secs(60),
            access: None,
            paging: None,
            target: None,
            external: Vec::new(),
            start: Vec::new(),
            steps: Vec::new(),
            rules: Vec::new(),
        }
    }

    /// Checks that every range can be found in the guest, before anything is started.
    ///
    /// # Errors
    /// The first one that cannot.
    pub fn check(&self, symbols: &Symbols) -> Result<(), Refusal> {
        let acts = self.start.iter().chain(self.steps.iter().flat_map(|step| &step.acts));
        let ruled = self.rules.iter().flat_map(|rule| rule.acts.iter());
        let ranges =
            acts.chain(ruled).filter_map(Act::range).chain(self.rules.iter().filter_map(|rule| rule.range.as_deref()));
        for range in ranges {
            Frames::parse(range, symbols)?;
        }
        Ok(())
    }

    /// Whether accesses are to be trapped.
    #[must_use]
    pub fn needs_gate(&self) -> bool {
        // A consumer that was handed no ring may enable any.
        self.access.is_some() || self.external.iter().any(|one| one.rings.is_empty() || one.has(Ring::Access))
    }

    /// Whether a ring is served by a process of its own.
    #[must_use]
    pub fn is_external(&self, ring: Ring) -> bool {
        self.external.iter().any(|one| one.has(ring))
    }
}
