//! What a run takes it gives back: after many runs in one process it has as many descriptors and threads as after the first, and no
//! file more; its memory has stopped growing.
//!
//! `MEM_EVENT_RUNS` says how many runs (`ci/soak`: a thousand).

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::scenario::Scenario;
use harness::scenario::settings::{Consumer, ListenerSettings};
use std::fs;
use support::domain::how_often;
use support::{own_memory, run, scenario};

/// What the heap of this process may grow by: blocks that fit nothing else.
const GROWTH: u64 = 4 << 20;

/// What this process holds, by names that can be compared.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    threads: usize,
    children: String,
    /// Folders and files of this process among the temporary ones.
    files: Vec<String>,
}

fn held() -> Held {
    let me = std::process::id();
    let count = |folder: &str| fs::read_dir(folder).unwrap().count();
    let mine = |name: &String| name.contains("mem-event") && name.contains(&format!("-{me}-"));
    let names = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let files = ["/dev/shm".into(), std::env::temp_dir()];
    let mut files: Vec<String> =
        files.iter().flat_map(fs::read_dir).flatten().flatten().map(names).filter(mine).collect();
    files.sort();
    // Threads of this process start no processes but those of runs.
    let children = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = children.map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default()).collect();
    Held { descriptors: count("/proc/self/fd"), threads: count("/proc/self/task"), children, files }
}

fn with_a_listener_of_its_own() -> Scenario {
    let mut scenario = scenario("page_fault");
    scenario.consumers.process = vec![Consumer::Listener(ListenerSettings::default())];
    scenario
}

#[test]
fn runs_give_back_what_they_take() {
    let runs = how_often("MEM_EVENT_RUNS", 20);
    let once = |number: u64| match number % 4 {
        0 => run(scenario("page_in")),
        1 => run(scenario("smp_storm")),
        2 => run(scenario("disk_virtio")),
        _ => run(with_a_listener_of_its_own()),
    };
    (0..4).for_each(|number| drop(once(number)));
    let first = held();
    let mut early = 0;
    for number in 4..runs {
        once(number);
        assert_eq!(held(), first, "after {} runs", number + 1);
        if number == runs / 4 {
            early = own_memory(std::process::id());
        }
    }
    let late = own_memory(std::process::id());
    assert!(late <= early + GROWTH, "this process's own memory grew from {early} to {late} bytes");
    println!(
        "{runs} runs: {first:?}, before and after; own memory {early} bytes after a quarter of them, {late} at the end"
    );
}
