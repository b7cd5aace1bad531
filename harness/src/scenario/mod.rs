//! A scenario: a guest, its machine, its consumers, what they do when. It is written as a TOML file, of which these types are
//! the format: [`mod@file`] reads it, and the JSON Schema in `harness/scenario.schema.json` is made from them.
//!
//! A new setting is a field here; a new act is a variant of [`Act`]. Both are in the format and in its schema by that alone.

mod act;
mod act_text;
pub mod amount;
pub mod budget;
pub mod chaos;
mod contents;
pub mod corpus;
pub mod external;
pub mod file;
pub mod hex;
pub mod icount;
pub mod looking;
mod machine;
mod memory_act;
mod name;
pub mod range;
mod rings;
mod role;
mod rule;
pub mod settings;
pub mod share;
mod snapshot;
pub mod source;
mod text;
pub mod xen_tool;

pub use act::{Act, ConsumerAct, MemoryAct};
pub use contents::Contents;
pub use looking::BreakBy;
pub use machine::{Machine, Thread};
pub use name::{Name, Named, named};
pub use rings::{RingSection, Rings};
pub use role::Role;
pub use rule::{EmulateWith, Listening, Rule, StepInView, Then, Touching};
pub use snapshot::{Order, Shown, Snapshot};
pub use text::{At, Number, Place, Size, Stop, Time, Version};

use self::budget::Budget;
use self::chaos::Chaos;
use self::external::External;
use self::settings::{Consumer, HelperSettings, PagerSettings};
use self::source::Source;
use self::xen_tool::XenTool;
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use crate::verdict::Kind;
use mem_event::{CpuEventKind, Gpa, MonitorMode, NoConsumer, Ring};
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
    pub steps: Vec<ScenarioStep>,
    /// What of the sequence is compared with the snapshot.
    #[serde(default)]
    pub snapshot: Snapshot,
    /// Whose the contents of frames are that are paged out.
    #[serde(default)]
    pub contents: Contents,
    /// What else the run must keep to.
    #[serde(default)]
    pub expect: Budget,
    /// Faults into the consumers' world.
    #[serde(default)]
    pub chaos: Chaos,
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
    /// Tools of Xen's, unmodified. Each is ready when it first reads its event channel, and is ended by SIGTERM when the guest has ended.
    pub xen: Vec<XenTool>,
    /// The folder in which what processes say is kept; nowhere without one.
    #[serde(skip)]
    pub words: Option<PathBuf>,
}

/// What is done at a checkpoint or a place of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
#[schemars(rename = "Step")]
pub struct ScenarioStep {
    /// A checkpoint's number; or where the guest's program stands before the instruction there: a symbol (`main`, `main+0x10`) or
    /// a guest-physical address (`gpa:0x100040`).
    pub at: At,
    /// The vCPU that must have stopped there; any if none is named.
    pub vcpu: Option<u32>,
    /// What is done before the vCPU goes on.
    #[serde(rename = "do", default)]
    pub acts: Vec<Act>,
}

fn success() -> Name<Kind> {
    Name(Kind::Success)
}

fn a_minute() -> Time {
    Time(std::time::Duration::from_secs(60))
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
            machine: Machine::bare(guest),
            rings: Rings::default(),
            consumers: Roles::default(),
            start: Vec::new(),
            steps: Vec::new(),
            snapshot: Snapshot::default(),
            contents: Contents::default(),
            expect: Budget::default(),
            chaos: Chaos::default(),
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
        self.check_target()?;
        let rules = self.consumers.listener.iter().flat_map(|listener| &listener.rules);
        for rule in rules.clone() {
            if let Some(frames) = &rule.frames {
                frames.check(symbols).map_err(|refusal| self.shown(refusal, frames))?;
            }
        }
        for step in &self.steps {
            if let At::Place(place) = &step.at {
                place.address(symbols).map_err(|refusal| self.shown(refusal, place))?;
            }
        }
        for act in self.acts() {
            act.check(symbols).map_err(|(refusal, place)| self.shown(refusal, place))?;
        }
        for place in self.consumers.listener.iter().flat_map(|listener| &listener.breaks) {
            let checked = if place.is_linear() { place.check(symbols) } else { place.address(symbols).map(drop) };
            checked.map_err(|refusal| self.shown(refusal, place))?;
        }
        if self.wants_kernel() && self.consumers.listener.is_none() {
            let what = "a place in a kernel, or a process, is known to this program's own listener alone";
            return Err(Refusal::usage(what, "add [consumers.listener], and no other consumer of the access ring"));
        }
        self.check_watches()?;
        for act in rules.flat_map(|rule| &rule.acts) {
            act.check(symbols).map_err(|(refusal, place)| self.shown(refusal, place))?;
        }
        Ok(())
    }

    /// A pager that is a process of its own learns of a full budget on the sharing ring alone.
    fn check_target(&self) -> Result<(), Refusal> {
        let holds = |ring| self.consumers.external.iter().any(|one| one.has(ring));
        if self.target().is_none() || !holds(Ring::Paging) || holds(Ring::Sharing) || self.consumers.helper.is_some() {
            return Ok(());
        }
        let what = "a process is to hold the guest to a target, and has no sharing ring, which says when the target is reached";
        Err(Refusal::usage(what, "hand it both rings: paging,sharing"))
    }

    /// What it does at the start and in its steps.
    fn acts(&self) -> impl Iterator<Item = &Act> {
        self.start.iter().chain(self.steps.iter().flat_map(|step| &step.acts))
    }

    /// What it does to memory, vCPUs and the domain: at the start, in its steps, and by a rule of its listener.
    pub fn memory_acts(&self) -> impl Iterator<Item = &MemoryAct> {
        let rules = self.consumers.listener.iter().flat_map(|listener| &listener.rules);
        self.acts().filter_map(Act::memory).chain(rules.flat_map(|rule| &rule.acts))
    }

    /// A watch that nobody answers would leave a vCPU waiting until the deadline. Where the run is to end otherwise than in success, that
    /// may be what it shows.
    fn check_watches(&self) -> Result<(), Refusal> {
        if self.may_have_a_listener() || self.verdict.0 != Kind::Success {
            return Ok(());
        }
        let watched = self.acts().find_map(|act| match act {
            Act::Memory(MemoryAct::Watch { frames, .. }) => Some(frames),
            _ => None,
        });
        match watched {
            None => Ok(()),
            Some(frames) => {
                let what =
                    format!("nobody listens to the watch of {frames}: a vCPU that touches it would wait for ever");
                let remedy = "add [consumers.listener], or let [rings.access] have no-consumer = \"relax\"";
                Err(self.shown(Refusal::usage(what, remedy), frames))
            }
        }
    }

    /// Whether the access ring may have a consumer, or says what becomes of an access without one.
    fn may_have_a_listener(&self) -> bool {
        let joins = |act: &Act| match act {
            Act::Consumer(ConsumerAct::Join { consumer }) => *consumer == Role::Listener,
            Act::Memory(MemoryAct::NoConsumer { ring, .. }) => ring.0 == Ring::Access,
            Act::Memory(MemoryAct::AccessRequired { .. }) => true,
            _ => false,
        };
        self.has_listener() || self.rings.access.no_consumer.0 != NoConsumer::Wait || self.acts().any(joins)
    }

    /// Whether a consumer of the access ring is there from the start.
    fn has_listener(&self) -> bool {
        // A consumer that was handed no ring may enable any.
        let may_listen = |one: &External| one.rings.is_empty() || one.has(Ring::Access);
        let listens = |one: &Consumer| one.rings().contains(&Ring::Access);
        self.consumers.listener.is_some()
            || !self.consumers.xen.is_empty()
            || self.consumers.external.iter().any(may_listen)
            || self.consumers.process.iter().any(listens)
    }

    /// The places where it waits for the guest's program, besides checkpoints.
    ///
    /// # Errors
    /// One is not in the guest.
    pub fn places(&self, symbols: &Symbols) -> Result<Vec<Gpa>, Refusal> {
        let place = |step: &ScenarioStep| match &step.at {
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
        self.has_listener() || self.memory_acts().any(MemoryAct::needs_gate)
    }

    /// A path of the scenario, which is meant from its folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        let folder = self.folder.as_ref().filter(|_| name.contains('/'));
        folder.map_or_else(|| name.into(), |folder| folder.join(name))
    }

    /// What of its start waits until the guest runs: what is done to linear addresses.
    pub fn later(&self) -> impl Iterator<Item = &MemoryAct> {
        let is_later = |act: &&MemoryAct| act.place().is_some_and(Place::is_linear);
        self.start.iter().filter_map(Act::memory).filter(is_later)
    }

    /// The CPU events that it monitors from its start on.
    #[must_use]
    pub fn monitors(&self) -> Vec<CpuEventKind> {
        let monitored = |act: &MemoryAct| match act {
            MemoryAct::Monitor { event, mode, .. } if mode.0 != MonitorMode::Disabled => Some(event.0),
            _ => None,
        };
        self.start.iter().filter_map(Act::memory).filter_map(monitored).collect()
    }

    /// Whether the guest's kernel must be known: a place is one in it, or events are told with their processes.
    #[must_use]
    pub fn wants_kernel(&self) -> bool {
        let listeners = self.consumers.listener.iter();
        let places = self.memory_acts().filter_map(MemoryAct::place);
        self.machine.symbols.is_some()
            || listeners.clone().any(|listener| listener.process)
            || self.machine.guest == "linux" && listeners.clone().any(|listener| listener.touches.is_some())
            || listeners.flat_map(|listener| &listener.breaks).chain(places).any(Place::is_linear)
    }

    /// Whether a ring is served by a process of its own.
    #[must_use]
    pub fn is_external(&self, ring: Ring) -> bool {
        self.consumers.external.iter().any(|one| one.has(ring))
            || self.consumers.process.iter().any(|one| one.rings().contains(&ring))
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, Scenario};
    use crate::guest::symbols::Symbols;
    use crate::verdict::Kind;
    use std::path::Path;

    fn with(more: &str) -> Scenario {
        let text = format!("version = 1\nabout = \"x\"\n[machine]\nguest = \"example\"\n{more}");
        Scenario::parse(Path::new("x.toml"), text).unwrap()
    }

    #[test]
    fn an_act_that_traps_needs_the_gate_wherever_it_stands() {
        for act in [
            "watch = { frames = \"0x100\", stop = \"r\" }",
            "set-access = { frames = \"0x100\", access = \"n\" }",
            "default-access = { access = \"n\" }",
            "monitor = { event = \"cr3\", mode = \"sync\" }",
            "single-step = { on = true }",
        ] {
            assert!(with(&format!("[[steps]]\nat = 1\ndo = [{{ {act} }}]\n")).needs_gate(), "{act} in a step");
            let mut start = with("");
            start.start = with(&format!("[[steps]]\nat = 1\ndo = [{{ {act} }}]\n")).steps.remove(0).acts;
            assert!(start.needs_gate(), "{act} at the start");
        }
    }

    const WATCH: &str = "[[steps]]\nat = 1\ndo = [{ watch = { frames = \"0x100\", stop = \"r\" } }]\n";

    #[test]
    fn a_watch_that_nobody_listens_to_is_refused_at_its_place() {
        let refusal = with(WATCH).check(&Symbols::default()).unwrap_err();
        let shown = refusal.shown.unwrap();
        assert!(shown.contains("--> x.toml:7:28") && shown.contains("[consumers.listener]"), "{shown}");
    }

    #[test]
    fn a_watch_is_taken_where_somebody_may_listen_or_the_scenario_says_what_becomes_of_it() {
        for more in [
            "[consumers.listener]\n",
            "[[consumers.external]]\ncommand = \"./mine\"\n",
            "[[consumers.external]]\nrings = [\"access\"]\ncommand = \"./mine\"\n",
            "[rings.access]\nno-consumer = \"relax\"\n",
            "[[steps]]\nat = 2\ndo = [{ join = { consumer = \"listener\" } }]\n",
            "[[steps]]\nat = 2\ndo = [{ access-required = { required = false } }]\n",
            "[[steps]]\nat = 2\ndo = [{ no-consumer = { ring = \"access\", policy = \"crash\" } }]\n",
        ] {
            with(&format!("{more}{WATCH}"))
                .check(&Symbols::default())
                .unwrap_or_else(|error| panic!("{more}: {error}"));
        }
        let mut fails = with(WATCH);
        fails.verdict = Name(Kind::Failure);
        assert!(fails.check(&Symbols::default()).is_ok(), "to wait in vain may be what it shows");
        let pager = "[[consumers.external]]\nrings = [\"paging\"]\ncommand = \"./mine\"\n";
        assert!(with(&format!("{pager}{WATCH}")).check(&Symbols::default()).is_err());
    }

    #[test]
    fn what_only_pages_and_expects_needs_no_gate() {
        let acts = "{ page-out = { frames = \"0x100\" } }, { expect = { at = \"gpa:0\", value = 1 } }, { map = { frames = \"0x100\" } }";
        assert!(!with(&format!("[consumers.pager]\n[[steps]]\nat = 1\ndo = [{acts}]\n")).needs_gate());
        assert!(!with("").needs_gate());
    }
}
