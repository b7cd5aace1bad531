//! A trace's names for addresses: those that it holds, and those of the kernel that its guest ran, where the user names its file.

use crate::guest::kernel::Kernel;
use crate::guest::linear::{Found, Linear};
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use crate::toolstack::kernel::told;
use mem_event::Gpa;
use mem_event::trace::{Remark, Tape};
use std::io::{Read, Seek};
use std::path::Path;

/// The names. Where the kernel lay, a note in the trace tells: that of whoever found it while the guest ran.
///
/// # Errors
/// The file holds no names, or the trace does not tell.
pub fn of<R: Read + Seek>(tape: &mut Tape<R>, kernel: Option<&Path>) -> Result<Symbols, Refusal> {
    let symbols = Symbols::of_trace(tape.header());
    let Some(path) = kernel else { return Ok(symbols) };
    let kernel = Kernel::open(path)?;
    let lay = (0..=tape.len()).find_map(|after| found_after(tape, after)).ok_or_else(|| {
        let what = "the trace does not tell where the kernel lay";
        Refusal::usage(what, "record it by `run` or `attach` with --symbols, --break or --process")
    })?;
    let (text, physical) = lay;
    let linked = kernel.names.find("_text")?;
    let linear = Linear::default();
    linear.is_found(Found { slide: text.wrapping_sub(linked), physical, kernel });
    Ok(symbols.with(linear))
}

fn found_after<R: Read + Seek>(tape: &mut Tape<R>, after: u64) -> Option<(u64, Gpa)> {
    tape.remarks(after).ok()?.iter().find_map(|remarked| match &remarked.remark {
        Remark::Note { text, .. } => told(text),
        _ => None,
    })
}
