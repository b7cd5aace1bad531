//! A Linux on four vCPUs whose kernel carries fifty breakpoints: each call of the functions is a break, by the kernel's own count too, which its probes
//! (kprobes) keep at the same functions.
//!
//! The breaks stand behind the call that a function begins with, which the kernel makes its probes' when they are set. `ksys_sync` has one as well: by
//! its calls the guest says how far it is.
//!
//! `MEM_EVENT_BREAKS` says how many breaks there are to be at least, under each gate (`ci/soak`: 100,000); else there are some thousands under one.

use crate::support::domain::how_often;
use crate::support::gates;
use goblin::elf::Elf;
use harness::guest::kernel::flat::Flat;
use harness::guest::kernel::{Kernel, image};
use harness::guest::linux::{self, COMMAND_LINE};
use harness::guest::symbols::Symbols;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::{Name, Scenario, Time, corpus};
use harness::toolstack::log::Observer;
use harness::toolstack::transcript::Record;
use harness::verdict::Kind;
use mem_event::Layout;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

const BREAKS: usize = 50;
const VCPUS: u32 = 4;
/// By whose calls the guest says how far it is.
const MARK: &str = "ksys_sync";
/// Breaks of one worker's round, or fewer than there are.
const OF_A_ROUND: u64 = 1600;
/// Only the limit of what can be called a hang.
const DEADLINE: Duration = Duration::from_secs(3600);

/// Functions that nobody calls but who is asked to work, and the kernel's own busiest. Releases differ: the first fifty count that are there, and that
/// begin as a probe and a break want it.
const FUNCTIONS: &[&str] = &[
    "do_mkdirat",
    "vfs_mkdir",
    "shmem_mkdir",
    "do_rmdir",
    "vfs_rmdir",
    "shmem_rmdir",
    "do_unlinkat",
    "vfs_unlink",
    "shmem_unlink",
    "do_linkat",
    "vfs_link",
    "shmem_link",
    "do_symlinkat",
    "vfs_symlink",
    "shmem_symlink",
    "do_renameat2",
    "vfs_rename",
    "shmem_rename2",
    "chmod_common",
    "do_truncate",
    "do_utimes",
    "notify_change",
    "shmem_setattr",
    "shmem_evict_inode",
    "shmem_get_inode",
    "d_delete",
    "evict",
    "iput",
    "do_filp_open",
    "vfs_open",
    "vfs_statx",
    "vfs_read",
    "kernel_clone",
    "copy_process",
    "wake_up_new_task",
    "do_exit",
    "release_task",
    "kernel_wait4",
    "exit_mmap",
    "mmput",
    "handle_mm_fault",
    "do_wp_page",
    "schedule",
    "try_to_wake_up",
    "do_group_exit",
    "free_pgtables",
    "unmap_vmas",
    "wait_consider_task",
    "do_notify_parent",
    "do_mmap",
    "d_instantiate",
    "inode_init_always",
    "dput",
];

/// The fifty, each with how far behind its beginning its first own instruction lies.
fn functions() -> Vec<(&'static str, u64)> {
    let kernel = Kernel::open(&linux::kernel().unwrap()).unwrap();
    let elf = image::unpack(&std::fs::read(linux::kernel().unwrap()).unwrap()).unwrap();
    let code = Flat::of_elf(&Elf::parse(&elf).unwrap(), &elf).unwrap();
    let found = FUNCTIONS.iter().filter_map(|name| {
        let begins = code.at(kernel.names.address(name)?, 16)?;
        Some((*name, first_own(begins)?))
    });
    let found: Vec<_> = found.take(BREAKS).collect();
    assert_eq!(found.len(), BREAKS, "{found:?}");
    found
}

/// Behind `endbr64`, where a function has it, and the call that its probes take; none where there is no such call, or behind it stands what the
/// kernel may patch as well.
fn first_own(begins: &[u8]) -> Option<u64> {
    const CALL: u8 = 0xe8;
    let marked = if begins.starts_with(&[0xf3, 0x0f, 0x1e, 0xfa]) { 4 } else { 0 };
    let behind = begins.get(marked).filter(|byte| **byte == CALL).map(|_| marked + 5)?;
    let is_patched = matches!(begins[behind..], [0xe8 | 0xe9 | 0xeb | 0x66 | 0x90, ..] | [0x0f, 0x1f, ..]);
    (!is_patched).then_some(behind as u64)
}

/// The function by whose calls the guest says how far it is, behind them.
fn with_mark(functions: &[(&'static str, u64)]) -> impl Iterator<Item = (&'static str, u64)> {
    functions.iter().copied().chain([(MARK, 0)])
}

fn scenario(functions: &[(&'static str, u64)]) -> Scenario {
    let mut linux = corpus::linux();
    linux.machine.vcpus = VCPUS;
    linux.deadline = Time(DEADLINE);
    // By it the answer brings the instruction: no vCPU runs past while another one goes over its break.
    linux.rings.access.layout = Name(Layout::VmEvent7);
    let listener = linux.consumers.listener.get_or_insert_default();
    let places = with_mark(functions).map(|(name, behind)| format!("kernel:{name}+{behind:#x}").as_str().into());
    listener.breaks.extend(places);
    linux
}

/// How often each function breaks, behind each of the guest's marks: a run keeps no list of so many events.
struct Counting<'a> {
    functions: &'a [(&'static str, u64)],
    names: BTreeMap<u64, &'static str>,
    behind_mark: Vec<BTreeMap<&'static str, u64>>,
}

impl Observer for Counting<'_> {
    fn record(&mut self, record: &Record, symbols: &Symbols) {
        let (true, Record::Event { rip, .. }) = (record.is_a_break(), record) else { return };
        if self.names.is_empty() {
            let found = symbols.linear().found().unwrap();
            let address = |name| found.address(found.kernel.names.address(name).unwrap());
            self.names = with_mark(self.functions).map(|(name, behind)| (address(name) + behind, name)).collect();
        }
        let name = self.names[rip];
        if name == MARK {
            self.behind_mark.push(BTreeMap::new());
        }
        *self.behind_mark.last_mut().unwrap().entry(name).or_insert(0) += 1;
    }
}

impl Counting<'_> {
    fn of(&self, name: &str, marks: Range<usize>) -> u64 {
        self.behind_mark[marks].iter().filter_map(|counts| counts.get(name)).sum()
    }
}

/// What the guest's probes counted: a line each with a name, how often it was come to, and how often that was missed.
fn counted(console: &str, functions: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next().filter(|name| functions.iter().any(|(function, _)| function == name))?;
        let mut number = || words.next()?.parse::<u64>().ok();
        Some((name.to_owned(), number()? + number()?))
    };
    console.lines().filter_map(of_line).collect()
}

fn each_call_is_a_break(gate: Gate, functions: &[(&'static str, u64)], wanted: u64) {
    let mut job = Job::new(scenario(functions), None).unwrap();
    job.gate = gate;
    let list = functions.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(",");
    let rounds = wanted.div_ceil(OF_A_ROUND * u64::from(VCPUS));
    // The last of several counts.
    let line = format!("{COMMAND_LINE} mem_event.work=calls mem_event.rounds={rounds} mem_event.functions={list}");
    job.extra = vec!["-append".into(), line.into()];
    let mut counting = Counting { functions, names: BTreeMap::new(), behind_mark: vec![BTreeMap::new()] };
    let outcome = job.run(&mut counting, None).unwrap();
    let console = &outcome.console;
    assert_eq!(outcome.verdict.kind, Kind::Success, "{gate}: {}\n{console}", outcome.verdict);
    let is_trouble =
        |line: &&str| ["Oops", "BUG", "WARNING", "panic", "Call Trace"].iter().any(|word| line.contains(word));
    assert_eq!(console.lines().find(is_trouble), None, "{gate}: {console}");
    let (counted, marks) = (counted(console, functions), counting.behind_mark.len());
    assert!(counted.len() == BREAKS && marks > 4, "{gate}: {marks} marks, {console}");
    let (mut exact, mut total) = (0, 0);
    for (name, _) in functions {
        // From before the probes were on to the end, and while they certainly were and nobody had asked them yet.
        let (all, least, by_guest) = (counting.of(name, 1..marks), counting.of(name, 2..3), counted[*name]);
        // One that others than the workers call may be on its way from probe to break at either moment, on each vCPU.
        let may_be = least.saturating_sub(VCPUS.into())..=all;
        let is_exact = least == all;
        assert!(
            if is_exact { by_guest == all } else { may_be.contains(&by_guest) },
            "{gate}: {name} was called {by_guest} times, and broke {least} to {all} times"
        );
        exact += u64::from(is_exact && all > 0);
        total += least;
    }
    println!("{gate}: {total} breaks in {:?}, of {exact} functions exactly as many as the guest counted", outcome.took);
    assert!(total >= wanted && exact >= 20, "{gate}: {total} breaks, {exact} functions");
}

#[test]
fn each_call_of_fifty_functions_of_a_linux_on_four_vcpus_is_a_break_as_its_probes_count_them() {
    let (functions, wanted) = (functions(), how_often("MEM_EVENT_BREAKS", 2000));
    let skipped = if std::env::var_os("MEM_EVENT_BREAKS").is_some() { 0 } else { gates().len() - 1 };
    gates().into_iter().skip(skipped).for_each(|gate| each_call_is_a_break(gate, &functions, wanted));
}
