//! Where the kernel says which process runs: each processor's own pointer to its task, and what of a task is its name and its number.

use super::btf::Btf;
use super::flat::Flat;
use super::names::Names;

/// A task's name has so many bytes at most, with its NUL.
pub const NAME: u16 = 16;
/// More than any kernel's task has.
const TASK: usize = 0x4000;

/// Where. All but the first are distances from the task's beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    /// The symbol's address: what a processor's base of GS is added to.
    pub current: u64,
    /// The process's number, as users see it.
    pub process: u64,
    /// The thread's name.
    pub name: u64,
}

impl Task {
    /// By the kernel's description of its types; where it has none, by its first task, whose name and parents are known.
    #[must_use]
    pub fn of(flat: &Flat, names: &Names) -> Option<Task> {
        let section = names.address("__start_BTF").zip(names.address("__stop_BTF"));
        let btf = section.and_then(|(start, end)| Btf::read(flat.between(start, end)?));
        let (process, name) = match &btf {
            Some(btf) => btf.offset("task_struct", "tgid").zip(btf.offset("task_struct", "comm"))?,
            None => first_task(flat, names)?,
        };
        // From Linux 6.2 to 6.14 it is the first member of a structure.
        let hot = || {
            let inside = btf.as_ref().and_then(|btf| btf.offset("pcpu_hot", "current_task")).unwrap_or(0);
            Some(names.address("pcpu_hot")? + inside)
        };
        Some(Task { current: names.address("current_task").or_else(hot)?, process, name })
    }
}

/// Of the task that the kernel begins with: it is called swapper, and is its own parent twice in a row. Before that stands, if the kernel
/// protects its stacks, eight bytes for that, and before those the numbers of thread and process.
fn first_task(flat: &Flat, names: &Names) -> Option<(u64, u64)> {
    let address = names.address("init_task")?;
    let task = flat.at(address, TASK.min(flat.bytes.len()))?;
    let name = memchr::memmem::find(task, b"swapper")?;
    let parents = [address.to_le_bytes(), address.to_le_bytes()].concat();
    let parents = (0..name).step_by(8).find(|at| task.get(*at..at + 16) == Some(&parents[..]))?;
    let canary = if names.address("__stack_chk_fail").is_some() { 8 } else { 0 };
    let process = parents.checked_sub(canary + 4)?;
    Some((process as u64, name as u64))
}
