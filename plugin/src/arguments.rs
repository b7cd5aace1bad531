//! The plugin's arguments: `-plugin libmem_event_plugin.so,socket=PATH,gate=callback,…`.

use crate::qemu::source::{Falsify, Source};
use mem_event::Gpa;
use mem_event::spin::Spin;
use mem_event_server::chaos::Plan;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// How access rights are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Gate {
    /// A check before every memory instruction.
    #[default]
    Callback,
    /// The host's MMU: a watched page is not mapped, and the instruction that runs explains the touch.
    Mmu,
    /// One of the two, as [`choose_gate`] decides at the start; nothing but the arguments ever says this.
    Auto,
    /// Not at all: paging works, setting access rights is refused, and the guest runs at full speed.
    None,
}

impl Gate {
    /// As in the argument.
    pub fn name(self) -> &'static str {
        match self {
            Gate::Callback => "callback",
            Gate::Mmu => "mmu",
            Gate::Auto => "auto",
            Gate::None => "none",
        }
    }
}

/// All arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// Where the control socket is made.
    pub socket: PathBuf,
    /// The gate.
    pub gate: Gate,
    /// No argument: `gate=mmu` was chosen here, and gives way where registers cannot be read in place.
    pub gives_way: bool,
    /// Where registers are read.
    pub registers: Source,
    /// `signal=`: the real-time signal by which vCPUs leave their blocks that stand in the kernel.
    pub signal: Option<i32>,
    /// For tests alone, and not in the list of known arguments.
    pub falsify: Falsify,
    /// Whether checkpoints in the guest's code are recognised.
    pub checkpoints: bool,
    /// `places=`: where else vCPUs stop as at a checkpoint, the guest-physical addresses of instructions.
    pub breakpoints: Vec<Gpa>,
    /// Whether predicted accesses are compared with QEMU's own reports, and the counts printed at the end.
    pub verify: bool,
    /// `chaos=`: the faults that are made to consumers, as [`Plan`] is written.
    pub chaos: Plan,
    /// How long a stopped vCPU polls for its answer before it sleeps.
    pub spin: Spin,
    /// Where the trace goes, if anywhere.
    pub trace: Option<PathBuf>,
    /// Bytes after which the recording ends.
    pub trace_limit: u64,
    /// Whether the trace keeps what frames held that clients read, and not a digest alone.
    pub record_reads: bool,
    /// Whether the trace says what frames held when they were evicted, came back, and were written by a call.
    pub contents: bool,
    /// `foreign=map`: whether clients get a descriptor of the guest's memory, to map what they pin.
    pub maps_foreign: bool,
    /// The guest's name, for the trace.
    pub guest: String,
    /// A hash of the guest's image, for the trace.
    pub guest_hash: String,
    /// QEMU's version, for the trace: the plugin API does not tell it.
    pub qemu: String,
    /// The scenario's text, for the trace.
    pub scenario: String,
    /// A file with more for the trace's header; see [`crate::engine::facts`].
    pub facts: Option<PathBuf>,
}

/// Bytes that a trace may have unless the argument `trace-limit` says otherwise.
const TRACE_LIMIT: u64 = 1 << 30;

impl Default for Arguments {
    fn default() -> Arguments {
        Arguments {
            socket: PathBuf::new(),
            gate: Gate::default(),
            gives_way: false,
            registers: Source::default(),
            signal: None,
            falsify: Falsify::default(),
            checkpoints: false,
            breakpoints: Vec::new(),
            verify: false,
            chaos: Plan::none(),
            spin: Spin::default(),
            trace: None,
            trace_limit: TRACE_LIMIT,
            record_reads: false,
            contents: false,
            maps_foreign: false,
            guest: String::new(),
            guest_hash: String::new(),
            qemu: String::new(),
            scenario: String::new(),
            facts: None,
        }
    }
}

const KNOWN: &str = "socket=PATH, gate=auto|callback|mmu|none, registers=auto|api|direct, signal=NUMBER, checkpoints=on|off, \
                     places=GPA:GPA..., \
                     spin=auto|off|MICROSECONDS, chaos=FAULTS, verify=on|off, trace=PATH, trace-limit=BYTES, \
                     record-reads=on|off, contents=on|off, foreign=calls|map; and for the trace's header guest=NAME, \
                     guest-hash=TEXT, qemu=VERSION, scenario=TEXT, facts=PATH";

impl Arguments {
    /// From `name=value` words. A path may be any bytes.
    ///
    /// # Errors
    /// A sentence that names the argument and what is allowed.
    pub fn parse(words: &[OsString]) -> Result<Arguments, String> {
        let mut arguments = Arguments::default();
        for word in words {
            let (name, path) =
                parts(word).ok_or_else(|| format!("argument {word:?} has no value; known are {KNOWN}"))?;
            let value = &*path.to_string_lossy();
            match &*name.to_string_lossy() {
                "socket" => arguments.socket = path.into(),
                "gate" => arguments.gate = gate(value)?,
                "registers" => arguments.registers = source(value)?,
                "signal" => arguments.signal = Some(signal(value)?),
                "falsify" => arguments.falsify = falsify(value)?,
                name @ "checkpoints" => arguments.checkpoints = switch(name, value)?,
                "places" => arguments.breakpoints = places(value)?,
                "chaos" => arguments.chaos = value.parse().map_err(|why| format!("chaos={value}: {why}"))?,
                "spin" => arguments.spin = value.parse().map_err(|why| format!("spin={value}: {why}"))?,
                name @ "verify" => arguments.verify = switch(name, value)?,
                "trace" => arguments.trace = Some(path.into()),
                "trace-limit" => arguments.trace_limit = bytes(value)?,
                name @ "record-reads" => arguments.record_reads = switch(name, value)?,
                name @ "contents" => arguments.contents = switch(name, value)?,
                "foreign" => arguments.maps_foreign = foreign(value)?,
                "guest" => value.clone_into(&mut arguments.guest),
                "guest-hash" => value.clone_into(&mut arguments.guest_hash),
                "qemu" => value.clone_into(&mut arguments.qemu),
                "facts" => arguments.facts = Some(path.into()),
                "scenario" => value.clone_into(&mut arguments.scenario),
                name => return Err(format!("unknown argument {name:?}; known are {KNOWN}")),
            }
        }
        if arguments.socket.as_os_str().is_empty() {
            return Err("no socket; add socket=PATH to the plugin's arguments".to_owned());
        }
        if arguments.gate == Gate::Mmu && arguments.registers == Source::Api {
            return Err(
                "gate=mmu reads the registers of a stopped vCPU in place, which registers=api rules out; take \
                        gate=callback or registers=auto"
                    .to_owned(),
            );
        }
        Ok(arguments)
    }
}

/// What stands before and behind the first `=`.
fn parts(word: &OsStr) -> Option<(&OsStr, &OsStr)> {
    let bytes = word.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=')?;
    Some((OsStr::from_bytes(&bytes[..at]), OsStr::from_bytes(&bytes[at + 1..])))
}

/// The gate for `gate=auto`, and the reason; `means` asks what kernel and QEMU offer `gate=mmu`, and says what they lack.
///
/// The host's MMU is taken wherever it can do the work, since unwatched pages then cost nothing.
pub fn choose_gate(registers: Source, means: impl FnOnce() -> Result<(), String>) -> (Gate, String) {
    if registers == Source::Api {
        return (Gate::Callback, "registers=api reads no register of a vCPU that stands in the kernel".to_owned());
    }
    match means() {
        Ok(()) => (Gate::Mmu, "kernel and QEMU have what it needs, and unwatched pages cost nothing".to_owned()),
        Err(lack) => (Gate::Callback, lack),
    }
}

fn places(value: &str) -> Result<Vec<Gpa>, String> {
    let place = |text: &str| {
        let digits = text.strip_prefix("0x").ok_or(())?;
        u64::from_str_radix(digits, 16).map(Gpa).map_err(|_| ())
    };
    let read: Result<_, ()> = value.split(':').map(place).collect();
    read.map_err(|()| format!("places={value}: guest-physical addresses, 0x100000:0x100040"))
}

fn bytes(value: &str) -> Result<u64, String> {
    value.parse().map_err(|_| format!("trace-limit={value}: a number of bytes; {} is no limit", u64::MAX))
}

fn signal(value: &str) -> Result<i32, String> {
    value.parse().map_err(|_| format!("signal={value}: the number of a real-time signal"))
}

fn gate(value: &str) -> Result<Gate, String> {
    match value {
        "auto" => Ok(Gate::Auto),
        "callback" => Ok(Gate::Callback),
        "mmu" => Ok(Gate::Mmu),
        "none" => Ok(Gate::None),
        _ => Err(format!("gate={value}: auto, callback, mmu or none")),
    }
}

fn foreign(value: &str) -> Result<bool, String> {
    match value {
        "calls" => Ok(false),
        "map" => Ok(true),
        _ => Err(format!("foreign={value}: calls or map")),
    }
}

fn source(value: &str) -> Result<Source, String> {
    match value {
        "auto" => Ok(Source::Auto),
        "api" => Ok(Source::Api),
        "direct" => Ok(Source::Direct),
        _ => Err(format!("registers={value}: auto, api or direct")),
    }
}

fn falsify(value: &str) -> Result<Falsify, String> {
    match value {
        "proof" => Ok(Falsify::Proof),
        "sample" => Ok(Falsify::Sample),
        "names" => Ok(Falsify::Names),
        "unwinding" => Ok(Falsify::Unwinding),
        "notes" => Ok(Falsify::Notes),
        "enough" => Ok(Falsify::Enough),
        _ => Err(format!("falsify={value}: proof, sample, names, unwinding, notes or enough")),
    }
}

/// QEMU writes `on` and `off`; a bare `name` reaches plugins as `name=on`.
fn switch(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "on" | "yes" | "true" => Ok(true),
        "off" | "no" | "false" => Ok(false),
        _ => Err(format!("{name}={value}: on or off")),
    }
}
