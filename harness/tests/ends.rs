//! The command, or the QEMU that it started, killed at random moments: nothing is left of the run, and its trace replays to the last
//! step that was written.
//!
//! `MEM_EVENT_ENDS` says how many are killed (`ci/soak`: 200), `MEM_EVENT_SEED` from which seed on.

use crate::support::domain::how_often;
use crate::support::{Random, command, left_over, wait_for};
use harness::machine::folder::RunFolder;
use harness::trace::replay::replay_file;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Somebody is killed at most so long after the run's begin, or after its trace's.
const MOST: Duration = Duration::from_millis(400);

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Command,
    Qemu,
}

/// What came of the runs.
#[derive(Debug, Default)]
struct Tally {
    /// The run had ended by itself.
    too_late: u64,
    /// QEMU's exit was seen before its machine was complete.
    not_started: u64,
    /// No trace was begun.
    untraced: u64,
    /// Steps in all the traces.
    steps: u64,
}

/// The processes of a run, by the folder for temporary files that they were given.
fn processes_in(folder: &RunFolder) -> Vec<(Pid, String)> {
    let wanted = format!("TMPDIR={}", folder.file("").display());
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let of_the_run = |number: &i32| {
        let environment = fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let name = |number: i32| fs::read_to_string(format!("/proc/{number}/comm")).unwrap_or_default().trim().to_owned();
    numbers.filter(of_the_run).filter_map(|number| Some((Pid::from_raw(number)?, name(number)))).collect()
}

/// Kills one of the run's processes; a QEMU that is not there yet is waited for. Whether it was there.
fn kill(victim: Victim, folder: &RunFolder, child: &mut Child) -> bool {
    if victim == Victim::Command {
        return child.try_wait().unwrap().is_none() && child.kill().is_ok();
    }
    while child.try_wait().unwrap().is_none() {
        let qemu = processes_in(folder).into_iter().find(|(_, name)| name.starts_with("qemu-system"));
        if let Some((pid, _)) = qemu {
            return rustix::process::kill_process(pid, Signal::KILL).is_ok();
        }
        std::thread::yield_now();
    }
    false
}

/// Nothing of the run goes on; a process on its way out is waited for.
fn nobody_is_left(folder: &RunFolder) {
    for (pid, name) in processes_in(folder) {
        if let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            wait_for(&format!("the end of {name}"), &handle);
        }
    }
    let left = processes_in(folder);
    assert!(left.is_empty(), "processes that began after their parent's death: {left:?}");
}

/// A guest's run, and within which time somebody is killed: a guest that ended before gets less of it, so that most kills meet a run.
struct Guest<'a> {
    arguments: &'a [&'a str],
    window: Duration,
}

/// Runs a guest, kills `victim` after a random time, and looks at what is left. Whether the run was still there.
fn end(guest: &mut Guest<'_>, victim: Victim, random: &mut Random, tally: &mut Tally) -> bool {
    let Guest { arguments: guest, window } = guest;
    let (folder, elsewhere) = (RunFolder::create().unwrap(), RunFolder::create().unwrap());
    let trace = elsewhere.file("trace");
    let said = elsewhere.file("said");
    let early = random.below(4);
    let mut child = command(&folder)
        .arg("run")
        .args(*guest)
        .arg("--trace")
        .arg(&trace)
        .stdout(fs::File::create(&said).unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let handle: OwnedFd = rustix::process::pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap();
    // Of four runs one ends while everything begins.
    while early != 0 && !is_begun(&trace) && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let moment = Duration::from_micros(random.below(u64::try_from(window.as_micros()).unwrap()));
    harness::poll::readable(&handle, Instant::now() + moment).unwrap();
    let killed = kill(victim, &folder, &mut child);
    *window = if killed { (*window * 5 / 4).min(MOST) } else { *window / 2 };
    wait_for("the command's end", &handle);
    let code = child.wait().unwrap().code();
    nobody_is_left(&folder);
    match (killed, victim, code) {
        (false, _, code) => {
            assert_eq!(code, Some(0), "{guest:?} ended by itself");
            tally.too_late += 1;
        }
        (true, Victim::Command, _) => {
            // The next run takes away what this one could not.
            assert!(command(&folder).args(["run", "example"]).stdout(Stdio::null()).status().unwrap().success());
        }
        // The guest had given its verdict a moment before.
        (true, Victim::Qemu, Some(0 | 6)) => {}
        (true, Victim::Qemu, code) => {
            assert_eq!(code, Some(2), "{guest:?} with its QEMU killed\n{}", fs::read_to_string(&said).unwrap());
            tally.not_started += 1;
        }
    }
    assert_eq!(left_over(&folder), [""; 0], "{guest:?}, {victim:?} killed");
    tally.steps += steps_of(&trace).unwrap_or_else(|| {
        tally.untraced += 1;
        0
    });
    killed
}

/// Whether something is in the trace.
fn is_begun(trace: &Path) -> bool {
    fs::metadata(trace).is_ok_and(|file| file.len() > 0)
}

/// How many steps the trace has, which must all replay; none where it was not begun.
fn steps_of(trace: &Path) -> Option<u64> {
    if !is_begun(trace) {
        return None;
    }
    let replayed = replay_file(trace, false).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(replayed.exit_code(), 0, "{}", replayed.report());
    Some(replayed.steps)
}

#[test]
fn whoever_is_killed_nothing_is_left_and_the_trace_replays() {
    let (kills, seed) = (how_often("MEM_EVENT_ENDS", 12), how_often("MEM_EVENT_SEED", 1));
    let listener = format!("access={} consumer listener", env!("CARGO_BIN_EXE_mem-event"));
    let guests: [&[&str]; 5] = [
        &["n2rwx_sweep"],
        &["page_in"],
        &["smp_storm"],
        &["page_fault", "--consumer", &listener],
        &["linux", "--memory", "96M", "--paging-target", "40M"],
    ];
    let mut guests = guests.map(|arguments| Guest { arguments, window: MOST / 2 });
    let (mut random, mut tally, begun) = (Random(seed), Tally::default(), Instant::now());
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        let victim = if runs % 2 == 0 { Victim::Command } else { Victim::Qemu };
        let guest = &mut guests[runs / 2 % 5];
        killed += u64::from(end(guest, victim, &mut random, &mut tally));
        runs += 1;
    }
    println!("{killed} kills in {runs} runs, seed {seed}, {:.0?}: {tally:?}", begun.elapsed());
}
