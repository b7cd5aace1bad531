//! Traces, read: what `show`, `explain`, `diff`, `export` and `minimise` do.
//!
//! | file | what lives there |
//! |---|---|
//! | [`row`], [`remark_row`] | a step as words; what stands between steps |
//! | [`condition`], [`selection`] | which steps are wanted |
//! | [`story`] | what the steps tell: who waited for whom, which answer belongs to which request |
//! | [`show`], [`stats`] | tables |
//! | [`compare`] | two traces, aligned by meaning |
//! | [`explain`] | what is wrong with whom, by rules |
//! | [`export`] | for other programs, and as a page to read |
//! | [`minimise`] | the shortest sequence of inputs that still shows something |
//! | [`names`] | names for addresses, of the trace and of a kernel |
//! | [`budget`] | whether a run kept to what its scenario allows |
//! | [`contents`] | whether frames came back as they were evicted |
//! | [`replay`], [`difference`] | a trace through a fresh engine; the first difference, with what was before it |
//! | [`gdb`] | a trace as what gdb stops in |
//! | [`progress`] | how far a command is |

pub mod budget;
pub mod compare;
pub mod condition;
pub mod contents;
pub mod difference;
pub mod explain;
pub mod export;
pub mod gdb;
pub mod minimise;
pub mod names;
pub mod progress;
pub mod remark_row;
pub mod replay;
pub mod row;
pub mod selection;
pub mod show;
pub mod stats;
pub mod story;

use crate::machine::folder::unnamed_file;
use crate::refusal::Refusal;
use anyhow::Context;
use mem_event::trace::{End, Header, Tape, Why};
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// What to do about a file that is none.
pub const REMEDY: &str = "name a file that `mem-event run --trace` has written";

/// Opens a trace; `-` is the standard input. What comes through a pipe is read to its end first.
///
/// # Errors
/// A file that is no trace of this version, or one that cannot be read.
pub fn open(path: &Path) -> anyhow::Result<Tape> {
    let file = seekable(path)?;
    Ok(Tape::new(BufReader::with_capacity(1 << 16, file)).map_err(|end| not_a_trace(path, &end))?)
}

/// The file, or where it is none to be sought in, a copy without a name.
pub(crate) fn seekable(path: &Path) -> anyhow::Result<File> {
    let cannot = |error| Refusal::usage(format!("cannot read the trace {}: {error}", path.display()), REMEDY);
    let source: &mut dyn Read = if path == Path::new("-") {
        &mut std::io::stdin().lock()
    } else {
        let file = File::open(path).map_err(cannot)?;
        let kind = file.metadata().map_err(cannot)?.file_type();
        if !kind.is_fifo() && !kind.is_char_device() {
            return Ok(file);
        }
        &mut { file }
    };
    let mut copy = unnamed_file("a copy of the trace")?;
    std::io::copy(source, &mut copy).with_context(|| format!("cannot copy the trace {}", path.display()))?;
    copy.rewind().context("cannot go to the beginning of the copied trace")?;
    Ok(copy)
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
