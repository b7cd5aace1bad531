//! Which core a thread runs on.

use anyhow::Context;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Keeps a thread, or the calling one, on a core.
///
/// # Errors
/// The kernel refuses.
pub fn stay_on(thread: Option<Pid>, core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(thread, &set).with_context(|| format!("cannot stay on core {core}"))
}

/// Keeps all threads of a process on a core.
///
/// # Errors
/// As [`stay_on`]; a thread that has ended meanwhile is none.
pub fn keep_on(process: u32, core: usize) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
        let thread = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        if thread.is_some() {
            stay_on(thread, core)?;
        }
    }
    Ok(())
}

/// Two cores that this process may use; `None` where there is one only.
///
/// # Errors
/// The kernel does not tell.
pub fn two() -> anyhow::Result<Option<[usize; 2]>> {
    let set = sched_getaffinity(None)?;
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core));
    Ok(cores.next().zip(cores.next()).map(|(first, second)| [first, second]))
}

/// Lets the calling thread run where it could before.
///
/// # Errors
/// As [`stay_on`].
pub fn roaming<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let before = sched_getaffinity(None)?;
    let result = work();
    sched_setaffinity(None, &before)?;
    result
}
