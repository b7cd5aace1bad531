//! Whatever goes wrong with a trace's file ends the recording, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test may stop")]

use mem_event_plugin::engine::spool::{ENDED, Spool};
use rustix::fs::{CWD, FileType, Mode};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const BLOCK: [u8; 4096] = [0x5a; 4096];

fn place(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("mem-event-spool-{}-{name}", std::process::id()))
}

/// Writes until the recording has ended.
fn until_it_ends(path: &Path) {
    let mut spool = Spool::create(path).unwrap();
    let error = loop {
        if let Err(error) = spool.write_all(&BLOCK) {
            break error;
        }
        // The blocks are written by another thread, whose turn it is.
        std::thread::yield_now();
    };
    assert_eq!(error.to_string(), ENDED);
    assert!(spool.write_all(&BLOCK).is_err(), "it has ended for good");
}

#[test]
fn what_is_written_is_in_the_file_when_the_spool_is_gone() {
    let path = place("file");
    let mut spool = Spool::create(&path).unwrap();
    (0..100).for_each(|_| spool.write_all(&BLOCK).unwrap());
    drop(spool);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 100 * 4096);
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_process() {
    until_it_ends(Path::new("/dev/full"));
}

/// Set where this program was started for the test of the limit alone: the limit is the process's, and so would be the log that this
/// program's output may go to.
const LIMITED: &str = "MEM_EVENT_LIMITED";

#[test]
fn a_limit_on_file_sizes_ends_the_recording_and_not_the_process() {
    if std::env::var_os(LIMITED).is_none() {
        let name = "a_limit_on_file_sizes_ends_the_recording_and_not_the_process";
        let mut limited = Command::new(std::env::current_exe().unwrap());
        let output = limited.args(["--exact", name, "--nocapture"]).env(LIMITED, "yes").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{}: {said}", output.status);
        return;
    }
    let path = place("limited");
    setrlimit(Resource::Fsize, Rlimit { current: Some(1 << 20), maximum: None }).unwrap();
    until_it_ends(&path);
    assert!(std::fs::metadata(&path).unwrap().len() <= 1 << 20);
    std::fs::remove_file(path).unwrap();
}

/// A pipe, opened for writing by the spool and for reading by a thread.
fn piped(path: &Path) -> (Spool, File) {
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let other = path.to_owned();
    let reader = std::thread::spawn(move || File::open(other).unwrap());
    let spool = Spool::create(path).unwrap();
    std::fs::remove_file(path).unwrap();
    (spool, reader.join().unwrap())
}

#[test]
fn a_pipe_whose_reader_is_gone_ends_the_recording_and_not_the_process() {
    let (mut spool, reader) = piped(&place("gone"));
    drop(reader);
    while spool.write_all(&BLOCK).is_ok() {
        std::thread::yield_now();
    }
}

#[test]
fn a_pipe_whose_reader_sleeps_ends_the_recording_and_stops_nobody() {
    let (mut spool, reader) = piped(&place("asleep"));
    assert!((0..10_000).any(|_| spool.write_all(&BLOCK).is_err()), "blocks that nobody takes pile up for ever");
    drop(reader);
}
