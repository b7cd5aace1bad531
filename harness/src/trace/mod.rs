//! Traces, read: what `show`, `diff`, `export` and `minimise` do.
//!
//! | file | what lives there |
//! |---|---|
//! | [`row`] | a step as words |
//! | [`condition`], [`selection`] | which steps are wanted |
//! | [`story`] | what the steps tell: who waited for whom, which answer belongs to which request |
//! | [`show`], [`stats`] | tables |
//! | [`compare`] | two traces, aligned by meaning |
//! | [`export`] | for other programs, and as a page to read |
//! | [`minimise`] | the shortest sequence of inputs that still shows something |
//! | [`difference`] | the first difference of a replay, with what was before it |

pub mod compare;
pub mod condition;
pub mod difference;
pub mod export;
pub mod minimise;
pub mod row;
pub mod selection;
pub mod show;
pub mod stats;
pub mod story;

use crate::refusal::Refusal;
use mem_event::trace::{End, Header, Tape, Why};
use std::path::Path;

/// What to do about a file that is none.
pub const REMEDY: &str = "name a file that `mem-event run --trace` has written";

/// Opens a trace.
///
/// # Errors
/// A file that is no trace of this version.
pub fn open(path: &Path) -> Result<Tape, Refusal> {
    Tape::open(path).map_err(|end| not_a_trace(path, &end))
}

/// Why a file is not read as a trace.
#[must_use]
pub fn not_a_trace(path: &Path, end: &End) -> Refusal {
    let what = match &end.why {
        Why::Unreadable(why) => format!("cannot read the trace {}: {why}", path.display()),
        Why::Cut(_) | Why::Stopped => format!("{} ends before its header does", path.display()),
        _ => format!("{}: {end}", path.display()),
    };
    Refusal::usage(what, REMEDY)
}

/// What a command ends with that has read a trace up to here: 0, or 4 where it is damaged, which is said.
pub(crate) fn exit_code(end: &End) -> u8 {
    if end.is_whole() {
        return 0;
    }
    eprintln!("mem-event: {end}");
    4
}

/// A trace's header in a few lines.
#[must_use]
pub fn about(header: &Header, end: &End) -> String {
    let Header { guest, guest_hash, qemu, plugin, scenario, config, facts, symbols } = header;
    let frames: u64 = config.ram.iter().map(|(_, count)| count).sum();
    let mut text = format!("guest     {guest} {guest_hash}, {} vCPUs, {frames} frames\n", config.vcpus);
    text += &format!("scenario  {}\n", scenario.lines().next().unwrap_or("none"));
    text += &format!("QEMU      {qemu}; plugin {plugin}; {} symbols\n", symbols.len());
    for (name, value) in facts {
        text += &format!("{name:<9} {value}\n");
    }
    text + &format!("trace     {end}\n")
}
