//! What a consumer is told: plain data, for the command line (`mem-event consumer`) and for whatever names consumers in a file.
//!
//! ```toml
//! kind = "pager"
//! policy = "clock"
//! prefetch = 8
//! ```

use super::external::{External, HandedRing};
use super::hex::Hex;
use super::text::Size;
use clap::{Args, Subcommand, ValueEnum};
use mem_event::Ring;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A consumer and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Consumer {
    /// A pager.
    Pager(PagerSettings),
    /// An access listener.
    Listener(ListenerSettings),
    /// An out-of-memory helper that raises the budget.
    Helper(HelperSettings),
    /// One that misbehaves.
    Faulty(FaultySettings),
}

impl Consumer {
    /// The rings that it serves.
    #[must_use]
    pub fn rings(&self) -> Vec<Ring> {
        match self {
            Consumer::Pager(settings) if settings.target.is_some() => vec![Ring::Paging, Ring::Sharing],
            Consumer::Pager(_) => vec![Ring::Paging],
            Consumer::Listener(_) | Consumer::Faulty(_) => vec![Ring::Access],
            Consumer::Helper(_) => vec![Ring::Sharing],
        }
    }

    /// The consumer as a process of its own; `program` is `mem-event`.
    ///
    /// # Errors
    /// The settings cannot be written as JSON.
    pub fn external(&self, program: &Path) -> Result<External, serde_json::Error> {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let settings = serde_json::to_string(self)?;
        let command = format!("{} consumer json {}", quoted(&program.to_string_lossy()), quoted(&settings));
        let rings = self.rings().into_iter().map(|ring| HandedRing { ring, layout: None, slots: 0 }).collect();
        Ok(External { rings, command, folder: None, words: None, is_xens: false })
    }
}

/// The consumers that `mem-event consumer` can be.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum BuiltIn {
    /// Bring frames back when they are asked for; with a target, evict others to hold the guest to it.
    Pager {
        /// What it does.
        #[command(flatten)]
        settings: PagerSettings,
        /// Hold the guest to this much memory.
        #[arg(long, value_name = "SIZE")]
        target: Option<String>,
        /// The same, from a file that is read again at SIGHUP.
        #[arg(long, value_name = "FILE")]
        target_file: Option<PathBuf>,
    },
    /// Answer access events.
    Listener(ListenerSettings),
    /// Raise the budget when the domain has used it up.
    Helper(HelperSettings),
    /// Misbehave.
    Faulty(FaultySettings),
    /// What these settings say.
    Json {
        /// `{"kind":"pager","policy":"clock"}`
        settings: String,
    },
}

/// Which frames a pager evicts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// A linear scan that leaves out what came in lately, as xenpaging's.
    #[default]
    Mru,
    /// A linear scan that gives a second chance to what came in, or was touched, since it last came by.
    Clock,
    /// Any, by a seed.
    Random,
}

/// Where a pager keeps what it has evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Store {
    /// A file without a name among the temporary ones.
    #[default]
    File,
    /// This process's own memory.
    Memory,
}

/// What a pager has just done when it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PagerStep {
    /// It has taken a request.
    Taken,
    /// It has sent a frame's content.
    Loaded,
    /// It has answered, and has not notified the engine.
    Answered,
    /// It has nominated frames.
    Nominated,
    /// It has copied their content.
    Kept,
    /// It has evicted them.
    Evicted,
}

/// A pager's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PagerSettings {
    /// Which frames are evicted.
    #[arg(long, value_enum, default_value_t)]
    pub policy: Policy,
    /// The seed of the policy `random`.
    #[arg(long, value_name = "N", default_value_t)]
    pub seed: u64,
    /// How many of the frames behind one that is asked for are brought back with it, where there is room.
    #[arg(long, value_name = "FRAMES", default_value_t)]
    pub prefetch: u32,
    /// Where evicted frames are kept.
    #[arg(long, value_enum, default_value_t)]
    pub store: Store,
    /// How many frames the store holds; then it is full, and nothing more is evicted.
    #[arg(long, value_name = "FRAMES")]
    pub capacity: Option<u64>,
    /// How many reads of the store fail before one succeeds: a bad disk, for tests.
    #[arg(long, value_name = "N", default_value_t)]
    pub failing_reads: u32,
    /// Evict a frame of the policy's choice at this interval in microseconds, or as often as that can be, whatever the guest holds. Only
    /// a pager that is a process of its own does.
    #[arg(long, value_name = "US")]
    pub evict_every: Option<u64>,
    /// Die at a step of the protocol: for tests.
    #[arg(long, value_enum)]
    pub dies: Option<PagerStep>,
    /// At which time that it comes to this step it dies; the first is 1.
    #[arg(long, value_name = "N", default_value_t)]
    pub dies_after: u64,
    /// How much memory the guest may hold at a time. Brings the out-of-memory helper on the sharing ring with it.
    #[arg(skip)]
    pub target: Option<Size>,
}

/// What a listener does about a violation. Other events are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// Answer, with the rights as they are: the event comes again.
    Log,
    /// Let the vCPU do this one instruction alone (`EMULATE`); the page keeps its rights.
    Once,
    /// Open the page; it gets its rights back at the next event.
    Rearm,
    /// Open the page for good.
    #[default]
    Relax,
    /// Open the page for what was asked.
    Grant,
    /// Inject a fault instead of the access. Not with this plugin: see the remedy.
    Deny,
    /// The same with other data: what it reads are the bytes of `data`. Needs the layout `vm_event7`.
    Emulate,
}

/// A listener's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ListenerSettings {
    /// What is done about a violation.
    #[arg(long, value_enum, default_value_t)]
    pub treatment: Treatment,
    /// What an instruction reads, in hexadecimal, with zeros behind it: for `emulate`.
    #[arg(long, value_name = "HEX", default_value_t)]
    pub data: Hex,
    /// Say each event on the output.
    #[arg(long)]
    pub verbose: bool,
}

/// A helper's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HelperSettings {
    /// How many frames the budget grows by each time.
    #[arg(long, value_name = "FRAMES", default_value_t = 16)]
    pub frames: u64,
}

impl Default for HelperSettings {
    fn default() -> HelperSettings {
        HelperSettings { frames: 16 }
    }
}

/// How a consumer misbehaves. What it does right is to give the page of a violation the rights that were asked for first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It takes its time before each answer.
    Slow,
    /// It takes requests and answers none.
    #[default]
    Silent,
    /// It kills itself before it answers.
    Dying,
    /// It answers each request twice.
    Duplicate,
    /// It answers what has come in the reverse order.
    OutOfOrder,
    /// It answers with bytes that mean nothing.
    Malformed,
    /// It answers for another vCPU.
    WrongVcpu,
    /// It maps the event's frame, and kills itself.
    DyingMapped,
    /// It answers, and kills itself before it signals.
    DyingAnswered,
    /// It switches the monitor of CR3 on, and kills itself.
    DyingMonitoring,
    /// It answers without VCPU_PAUSED.
    NotPaused,
    /// It answers in another version of `vm_event`; on a ring of that layout.
    OtherVersion,
    /// It answers and does not signal.
    Unsignalled,
    /// It answers and leaves the rights as they are.
    NoRights,
    /// It forgets one answer, and gives the others.
    Forgetful,
    /// It makes 1,500 calls that are refused before each answer.
    Nagging,
}

/// A misbehaving consumer's settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Args)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct FaultySettings {
    /// How.
    #[arg(long, value_enum, default_value_t)]
    pub fault: Fault,
    /// The event from which on it does, the first being 1.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub at: u64,
    /// How many milliseconds `slow` takes.
    #[arg(long, value_name = "MS", default_value_t = 20)]
    pub delay: u64,
}

impl Default for FaultySettings {
    fn default() -> FaultySettings {
        FaultySettings { fault: Fault::default(), at: 1, delay: 20 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

    use super::{BuiltIn, Consumer, Fault, FaultySettings, PagerSettings, Policy};
    use clap::Subcommand;

    fn read(text: &str) -> Result<Consumer, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_consumer_is_named_by_its_kind_and_what_is_left_out_is_as_usual() {
        let pager = PagerSettings { policy: Policy::Clock, prefetch: 8, ..PagerSettings::default() };
        assert_eq!(read(r#"{"kind":"pager","policy":"clock","prefetch":8}"#), Ok(Consumer::Pager(pager)));
        let faulty = FaultySettings { fault: Fault::WrongVcpu, at: 3, ..FaultySettings::default() };
        assert_eq!(read(r#"{"kind":"faulty","fault":"wrong-vcpu","at":3}"#), Ok(Consumer::Faulty(faulty)));
    }

    #[test]
    fn every_kind_of_consumer_is_a_command_and_stands_in_the_documents() {
        let schema = schemars::schema_for!(Consumer).to_value();
        let kinds: Vec<&str> = schema["oneOf"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|it| it["properties"]["kind"]["const"].as_str())
            .collect();
        assert!(kinds.contains(&"pager"), "{kinds:?}");
        let commands = BuiltIn::augment_subcommands(clap::Command::new("consumer"));
        let table = include_str!("../../../docs/consumers.md");
        for kind in kinds {
            assert!(commands.find_subcommand(kind).is_some(), "no `mem-event consumer {kind}`");
            assert!(table.contains(&format!("\n| {kind} | ")), "docs/consumers.md lacks {kind}");
        }
    }

    #[test]
    fn what_is_no_setting_is_refused_with_what_is() {
        let error = read(r#"{"kind":"pager","polcy":"clock"}"#).unwrap_err();
        assert!(error.contains("polcy") && error.contains("policy"), "{error}");
        assert!(read(r#"{"kind":"pager","policy":"lru"}"#).unwrap_err().contains("clock"));
        assert!(read(r#"{"kind":"page"}"#).unwrap_err().contains("listener"));
    }
}
