//! A scenario: a guest, its machine, its consumers, what they do when. It is written as a TOML file, of which these types are
//! the format: [`mod@file`] reads it, and the JSON Schema in `harness/scenario.schema.json` is made from them.
//!
//! A new setting is a field here; a new act is a variant of [`Act`]. Both are in the format and in its schema by that alone.

mod act;
pub mod amount;
pub mod corpus;
pub mod external;
pub mod file;
pub mod icount;
mod name;
pub mod range;
mod role;
pub mod settings;
pub mod share;
pub mod source;
mod text;

pub use act::Act;
pub use name::{Name, Named, named};
pub use role::Role;
pub use text::{At, Number, Place, Size, Stop, Time, Version};

use self::external::External;
use self::icount::Icount;
use self::settings::{Consumer, HelperSettings, PagerSettings};
use self::source::Source;
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use crate::verdict::Kind;
use mem_event::{AccessType, Gpa, Layout, NoConsumer, Reason, Request, Rights, Ring};
use mem_event_client::channel::RingSettings;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;

/// A scenario for mem-event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// Its name: the file's without the ending; that of its snapshot too.
    #[serde(skip)]
    pub name: String,
    /// The file that it was read from.
    #[serde(skip)]
    pub source: Option<Arc<Source>>,
    /// The folder that paths in it are meant from, where it was read from a file.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
    /// The version of this format: 1.
    pub version: Version,
    /// One line that says what it is about, an empty line, then what the hardware or Xen does, what went wrong once, and what
    /// this proves.
    pub about: String,
    /// How it must end.
    #[serde(default = "success")]
    pub verdict: Name<Kind>,
    /// How long it may take before it has failed.
    #[serde(default = "a_minute")]
    pub deadline: Time,
    /// The guest and its machine.
    pub machine: Machine,
    /// The rings' settings, where they are not the defaults. A ring is enabled by its consumer.
    #[serde(default)]
    pub rings: Rings,
    /// Who serves the rings.
    #[serde(default)]
    pub consumers: Roles,
    /// What is done before the guest's first instruction.
    #[serde(default)]
    pub start: Vec<Act>,
    /// What is done while the guest runs.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// What of the sequence is compared with the snapshot.
    #[serde(default)]
    pub snapshot: Snapshot,
}

/// A guest and its machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Machine {
    /// A built-in guest or `linux`; or a path with a slash, from the scenario's folder, of what QEMU boots: an ELF file with a PVH
    /// entry, a bzImage, an EFI application (with `firmware`), or a disk image, which stays as it is.
    pub guest: String,
    /// A first file system for a bzImage: a path from the scenario's folder.
    pub initrd: Option<String>,
    /// What a bzImage is told on its command line; what `linux` is told besides.
    pub append: Option<String>,
    /// The machine's firmware, where it is not QEMU's own: a file for `-bios`, or `ovmf` for that of Debian's package.
    pub firmware: Option<String>,
    /// vCPUs.
    #[serde(default = "one", deserialize_with = "text::vcpus")]
    #[schemars(range(min = 1, max = 255))]
    pub vcpus: u32,
    /// QEMU counts instructions, each takes 2 to this power nanoseconds of the guest's time, and neither the host's time nor chance
    /// reaches the guest: one that is the same does the same in each run. With one vCPU only.
    pub icount: Option<Icount>,
    /// RAM.
    #[serde(default = "Size::small")]
    pub memory: Size,
    /// The CPU model, where QEMU's default lacks something.
    pub cpu: Option<String>,
    /// The device that shows the disk which the harness makes, a word of its own in every eight bytes: QEMU's `-device` without its
    /// drive, as `ide-hd,bus=ide.0` or `virtio-blk-pci,iothread=disk-thread`.
    pub disk: Option<String>,
    /// Further arguments for QEMU.
    #[serde(default)]
    pub args: Vec<String>,
}

/// The three rings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Rings {
    /// The listener's.
    pub access: RingSection,
    /// The pager's.
    pub paging: RingSection,
    /// The helper's.
    pub sharing: RingSection,
}

impl Rings {
    /// A ring's settings.
    #[must_use]
    pub fn of(&self, ring: Ring) -> RingSection {
        match ring {
            Ring::Access => self.access,
            Ring::Paging => self.paging,
            Ring::Sharing => self.sharing,
        }
    }
}

/// How a ring is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RingSection {
    /// The layout of its slots.
    pub layout: Name<Layout>,
    /// How many slots, a power of two; 0 for as many as fit on a page.
    pub slots: u32,
    /// What happens to an event while nobody serves the ring: the vCPU waits, the domain crashes, or (access only) the page is
    /// relaxed.
    pub no_consumer: Name<NoConsumer>,
}

impl RingSection {
    /// What the ring is enabled with.
    #[must_use]
    pub fn settings(self) -> RingSettings {
        RingSettings { layout: self.layout.0, slots: self.slots }
    }
}

/// The consumers, one a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Roles {
    /// Hears of accesses and CPU events on the access ring.
    pub listener: Option<Listening>,
    /// Pages frames out and in, on the paging ring.
    pub pager: Option<PagerSettings>,
    /// Raises the budget when the domain has used it up, on the sharing ring. Without one a pager with a target evicts others.
    pub helper: Option<HelperSettings>,
    /// Built-in consumers as processes of their own. A ring that one of them holds is not served by this program.
    pub process: Vec<Consumer>,
    /// Processes of their own. A ring that one of them holds is not served by this program.
    pub external: Vec<External>,
}

/// A listener's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Listening {
    /// What it does about which events; the first rule that fits an event counts, and without one the page gets all rights.
    pub rules: Vec<Rule>,
}

/// What is done at a checkpoint or a place of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Step {
    /// A checkpoint's number; or where the guest's program stands before the instruction there: a symbol (`main`, `main+0x10`) or
    /// a guest-physical address (`gpa:0x100040`).
    pub at: At,
    /// The vCPU that must have stopped there; any if none is named.
    pub vcpu: Option<u32>,
    /// What is done before the vCPU goes on.
    #[serde(rename = "do", default)]
    pub acts: Vec<Act>,
}

/// What the listener does about some events.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Rule {
    /// Only for this kind of event.
    pub reason: Option<Name<Reason>>,
    /// Only for exactly these accesses.
    pub on: Option<Name<Rights>>,
    /// Only for these frames.
    pub frames: Option<Place>,
    /// What is done while the vCPU is stopped.
    #[serde(rename = "do")]
    pub acts: Vec<Act>,
    /// How the event ends.
    pub then: Then,
}

/// How an access event ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// The page gets all rights, then the answer goes out.
    #[default]
    Relax,
    /// The page gets the rights that were asked for besides those it has, then the answer goes out.
    Grant,
    /// The page gets these rights, then the answer goes out.
    Set(Name<AccessType>),
    /// The answer goes out; with unchanged rights the same event comes again.
    Answer,
    /// No answer: a consumer that hangs.
    Silence,
}

/// What of a sequence is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Snapshot {
    /// Which lines.
    pub show: Vec<Shown>,
    /// Their order: each vCPU's by itself (the default with several vCPUs), or as they came, for scenarios whose vCPUs take
    /// turns by checkpoints.
    pub order: Option<Order>,
}

/// A kind of line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Shown {
    /// Checkpoints and what was done there.
    Checkpoints,
    /// Events of the access ring.
    Access,
    /// Events of the paging ring.
    Paging,
    /// Events of the sharing ring.
    Sharing,
    /// How it ended, as a last line.
    Verdict,
}

/// An order of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Each vCPU has a part of its own.
    Vcpu,
    /// As they came.
    Arrival,
}

fn success() -> Name<Kind> {
    Name(Kind::Success)
}

fn a_minute() -> Time {
    Time(std::time::Duration::from_secs(60))
}

fn one() -> u32 {
    1
}

impl Default for Snapshot {
    fn default() -> Snapshot {
        Snapshot { show: vec![Shown::Checkpoints, Shown::Access, Shown::Paging, Shown::Sharing], order: None }
    }
}

impl Rule {
    /// Whether the rule is for this request.
    ///
    /// # Errors
    /// Its range is none.
    pub fn fits(&self, request: &Request, symbols: &Symbols) -> Result<bool, Refusal> {
        if self.reason.is_some_and(|reason| reason.0 != request.reason)
            || self.on.is_some_and(|rights| rights.0 != request.rights)
        {
            return Ok(false);
        }
        match &self.frames {
            None => Ok(true),
            Some(frames) => Ok(frames.frames(symbols)?.contains(request.gfn)),
        }
    }
}

impl Scenario {
    /// A scenario for a guest with one vCPU, 64 MiB and no consumer; the others start from it.
    #[must_use]
    pub fn bare(guest: &str) -> Scenario {
        Scenario {
            name: guest.into(),
            source: None,
            folder: None,
            version: Version,
            about: String::new(),
            verdict: success(),
            deadline: a_minute(),
            machine: Machine {
                guest: guest.into(),
                initrd: None,
                append: None,
                firmware: None,
                vcpus: one(),
                icount: None,
                memory: Size::small(),
                cpu: None,
                disk: None,
                args: Vec::new(),
            },
            rings: Rings::default(),
            consumers: Roles::default(),
            start: Vec::new(),
            steps: Vec::new(),
            snapshot: Snapshot::default(),
        }
    }

    /// The first line of what it is about.
    #[must_use]
    pub fn title(&self) -> &str {
        self.about.trim().lines().next().unwrap_or_default()
    }

    /// How much memory the guest may hold at a time, in bytes, if that is limited.
    #[must_use]
    pub fn target(&self) -> Option<u64> {
        self.consumers.pager.as_ref().and_then(|pager| pager.target).map(|size| size.0)
    }

    /// Checks that every place can be found in the guest, before anything is started.
    ///
    /// # Errors
    /// The first one that cannot, shown in the file where there is one.
    pub fn check(&self, symbols: &Symbols) -> Result<(), Refusal> {
        self.check_icount()?;
        let rules = self.consumers.listener.iter().flat_map(|listener| &listener.rules);
        for rule in rules.clone() {
            if let Some(frames) = &rule.frames {
                frames.frames(symbols).map_err(|refusal| self.shown(refusal, frames))?;
            }
        }
        for step in &self.steps {
            if let At::Place(place) = &step.at {
                place.address(symbols).map_err(|refusal| self.shown(refusal, place))?;
            }
        }
        let acts = self.start.iter().chain(self.steps.iter().flat_map(|step| &step.acts));
        for act in acts.chain(rules.flat_map(|rule| &rule.acts)) {
            act.check(symbols).map_err(|(refusal, place)| self.shown(refusal, place))?;
        }
        Ok(())
    }

    fn check_icount(&self) -> Result<(), Refusal> {
        let Machine { icount: Some(icount), vcpus: 2.., .. } = &self.machine else { return Ok(()) };
        // One thread runs all vCPUs then: one that waits would keep the others from running.
        let what = format!("instructions are counted with one vCPU only, and the machine has {}", self.machine.vcpus);
        let remedy = "leave `icount` or `vcpus` out";
        let at = |source: &Arc<Source>| source.refusal(icount.span.clone(), what.clone(), remedy);
        Err(self.source.as_ref().map_or_else(|| Refusal::usage(what.clone(), remedy), at))
    }

    /// The places where it waits for the guest's program, besides checkpoints.
    ///
    /// # Errors
    /// One is not in the guest.
    pub fn places(&self, symbols: &Symbols) -> Result<Vec<Gpa>, Refusal> {
        let place = |step: &Step| match &step.at {
            At::Number(_) => None,
            At::Place(place) => Some(place.address(symbols)),
        };
        self.steps.iter().filter_map(place).collect()
    }

    fn shown(&self, refusal: Refusal, place: &Place) -> Refusal {
        match (&self.source, &place.span) {
            (Some(source), Some(span)) => source.refusal(span.clone(), refusal.what, refusal.remedy),
            _ => refusal,
        }
    }

    /// Whether accesses are to be trapped.
    #[must_use]
    pub fn needs_gate(&self) -> bool {
        // A consumer that was handed no ring may enable any.
        let may_listen = |one: &External| one.rings.is_empty() || one.has(Ring::Access);
        let listens = |one: &Consumer| one.rings().contains(&Ring::Access);
        self.consumers.listener.is_some()
            || self.consumers.external.iter().any(may_listen)
            || self.consumers.process.iter().any(listens)
    }

    /// Whether a ring is served by a process of its own.
    #[must_use]
    pub fn is_external(&self, ring: Ring) -> bool {
        self.consumers.external.iter().any(|one| one.has(ring))
            || self.consumers.process.iter().any(|one| one.rings().contains(&ring))
    }
}
