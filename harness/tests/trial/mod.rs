//! A consumer under test against a recording: the right ones pass, and each that is wrong fails with a sentence that says what and where.
//! Neither QEMU nor a right of the user is needed.

mod broken;
mod world;

use crate::support::{replays, scenario};
use harness::machine::folder::RunFolder;
use harness::run::Job;
use harness::scenario::Scenario;
use harness::scenario::external::External;
use harness::toolstack::log::Silent;
use harness::trial::{self, Options, Tried, command};
use harness::verdict::Kind;
use mem_event::Gpa;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A recorded run of a scenario with its built-in consumers.
struct Recording {
    folder: RunFolder,
}

impl Recording {
    fn of(name: &str) -> Recording {
        Recording::of_changed(name, |_| ())
    }

    fn of_changed(name: &str, change: impl Fn(&mut Scenario)) -> Recording {
        let folder = RunFolder::create().unwrap();
        let mut scenario = scenario(name);
        change(&mut scenario);
        let mut job = Job::new(scenario, None).unwrap();
        job.trace = Some(folder.file("trace"));
        assert_eq!(job.run(&mut Silent, None).unwrap().verdict.kind, Kind::Success);
        Recording { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.file("trace")
    }

    fn with(&self, consumer: &str, change: impl Fn(&mut Options)) -> Tried {
        let mut options = options(consumer);
        change(&mut options);
        let script = command::script(&self.path(), &mut options).unwrap();
        trial::run(&script, &options, None).unwrap()
    }

    fn tries(&self, consumer: &str) -> Tried {
        self.with(consumer, |_| ())
    }
}

/// An hour: a hang is the only thing that takes so long.
fn options(consumer: &str) -> Options {
    let consumer = Some(External::parse(consumer).unwrap());
    Options { consumer, patience: Duration::from_secs(3600), ..Options::default() }
}

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../mem-event/client/examples")
}

/// What is wrong, in words.
fn fault(tried: &Tried) -> &str {
    tried.fault.as_ref().map_or("nothing", |(_, sentence)| sentence)
}

fn passes(tried: &Tried) {
    assert!(tried.is_right(), "{}\n{:?}", fault(tried), tried.difference);
}

/// An example, made of these files, with some text in place of another.
fn changed(folder: &RunFolder, files: [&str; 2], changes: &[(&str, &str)]) -> PathBuf {
    let mut texts = files.map(|name| std::fs::read_to_string(examples().join(name)).unwrap());
    for (from, to) in changes {
        assert_eq!(texts.concat().matches(from).count(), 1, "{from} in {files:?}");
        texts = texts.map(|text| text.replace(from, to));
    }
    for (name, text) in files.iter().zip(texts) {
        std::fs::write(folder.file(name), text).unwrap();
    }
    folder.file(files[0])
}

/// A listener in Python.
fn python(folder: &RunFolder, changes: &[(&str, &str)]) -> String {
    format!("access:flags32=python3 {}", changed(folder, ["listener.py", "mem_event.py"], changes).display())
}

/// A program of an example in C, where Xen's headers are installed.
fn c_compiles(folder: &RunFolder, files: [&str; 2], changes: &[(&str, &str)]) -> Option<PathBuf> {
    if !Path::new("/usr/include/xen/vm_event.h").exists() {
        eprintln!("skipped: Xen's public headers are not installed (ci/setup installs libxen-dev)");
        return None;
    }
    let (source, program) = (changed(folder, files, changes), folder.file("program"));
    let compiled = Command::new("cc").args(["-O2", "-o"]).arg(&program).arg(source).status();
    assert!(compiled.unwrap().success());
    Some(program)
}

/// A listener in C.
fn c(folder: &RunFolder) -> Option<String> {
    let program = c_compiles(folder, ["listener.c", "mem_event.h"], &[])?;
    Some(format!("access:vm_event7={}", program.display()))
}

/// A built-in consumer as a process, in Rust.
fn rust(words: &str) -> String {
    format!("access={} consumer {words}", env!("CARGO_BIN_EXE_mem-event"))
}

#[test]
fn the_right_listener_passes_in_every_language_and_layout() {
    let folder = RunFolder::create().unwrap();
    let program = std::env::current_exe().unwrap();
    let example = program.ancestors().nth(2).unwrap().join("examples/listener");
    for name in ["page_fault", "rights"] {
        let recording = Recording::of(name);
        passes(&recording.tries(&format!("access={}", example.display())));
        passes(&recording.tries(&python(&folder, &[])));
        if let Some(command) = c(&folder) {
            passes(&recording.tries(&command));
        }
    }
}

#[test]
fn a_listener_that_dies_or_ends_is_named_with_how_it_ended() {
    let recording = Recording::of("page_fault");
    let dies = r#"access=sh -c 'echo >/proc/self/fd/$MEM_EVENT_READY_FD; exit 7'"#;
    assert!(fault(&recording.tries(dies)).contains("exit status: 7"));
    assert!(fault(&recording.tries(&rust("faulty --fault dying"))).contains("signal: 9"));
}

#[test]
fn a_listener_that_changes_nothing_is_told_that_the_request_comes_again() {
    let recording = Recording::of("page_fault");
    let tried = recording.tries(&rust("listener --treatment log"));
    assert!(fault(&tried).starts_with("the same request was answered 65 times and comes again"), "{}", fault(&tried));
}

/// The frames that the scenario page_touch pages out, as the pager's arguments.
fn touched(recording: &Recording) -> (u64, u64) {
    let tape = mem_event::trace::Tape::open(recording.path()).unwrap();
    let symbol = tape.header().symbols.iter().find(|symbol| symbol.name == "TOUCHED").unwrap();
    (Gpa(symbol.gpa).gfn().0, symbol.size / 4096)
}

#[test]
fn what_a_consumer_did_becomes_a_recording_that_replays_and_that_it_passes() {
    let (recording, folder) = (Recording::of("page_fault"), RunFolder::create().unwrap());
    let command = python(&folder, &[("has | rights & RIGHTS", "RIGHTS")]);
    let mut options = options(&command);
    let script = command::script(&recording.path(), &mut options).unwrap();
    let accepted = folder.file("accepted");
    assert!(!trial::run(&script, &options, Some(&accepted)).unwrap().is_right());
    assert!(replays(&accepted) > 5);
    let script = command::script(&accepted, &mut options).unwrap();
    passes(&trial::run(&script, &options, None).unwrap());
}

#[test]
fn seeds_of_chaos_find_nothing_in_right_consumers() {
    let (listened, paged) = (Recording::of("smp_storm"), Recording::of("page_touch"));
    let folder = RunFolder::create().unwrap();
    for seed in 0..5 {
        let of_seed = |options: &mut Options| options.chaos = Some(seed);
        passes(&listened.with(&python(&folder, &[]).replace(":flags32", ""), of_seed));
        passes(&paged.with(&world::pager("paging"), of_seed));
    }
}

#[test]
fn the_shortest_recording_that_a_consumer_fails_is_kept_and_the_right_one_passes_it() {
    let (recording, folder) = (Recording::of("rights"), RunFolder::create().unwrap());
    let wrong = ("has | rights & RIGHTS", "RIGHTS if rights & 2 else has | rights & RIGHTS");
    let command = python(&folder, &[wrong]);
    let shortest = folder.file("shortest");
    let program = env!("CARGO_BIN_EXE_mem-event");
    let minimise = |trace: &Path, command: &str| {
        let mut program = Command::new(program);
        program.arg("minimise").arg(trace).args(["--consumer", command, "--output"]).arg(&shortest);
        program.output().unwrap()
    };
    let said = minimise(&recording.path(), &command);
    assert!(said.status.success(), "{said:?}");
    let steps = replays(&shortest);
    assert!(steps <= 10 && steps < replays(&recording.path()) / 4, "{steps} steps: {said:?}");
    let mut options = options(&command);
    let script = command::script(&shortest, &mut options).unwrap();
    assert!(!trial::run(&script, &options, None).unwrap().is_right());
    let right = python(&folder, &[]);
    options.consumer = Some(External::parse(&right).unwrap());
    passes(&trial::run(&script, &options, None).unwrap());
    assert_eq!(minimise(&recording.path(), &right).status.code(), Some(5));
}

#[test]
fn an_ordinary_user_without_qemu_tries_a_consumer() {
    let recording = Recording::of("page_fault");
    let folder = RunFolder::create().unwrap();
    let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
    open(&folder.file(""));
    for (from, name) in [(recording.path(), "trace"), (env!("CARGO_BIN_EXE_mem-event").into(), "mem-event")] {
        // By a process of its own: a program that another thread starts meanwhile would hold the file open for writing.
        assert!(Command::new("cp").arg(from).arg(folder.file(name)).status().unwrap().success());
        open(&folder.file(name));
    }
    let consumer = format!("access={} consumer listener --treatment grant", folder.file("mem-event").display());
    let as_nobody = rustix::process::geteuid().is_root();
    let setpriv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env"];
    let words = if as_nobody { &setpriv[..] } else { &["env"] };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg("PATH=").arg(format!("TMPDIR={}", folder.file("").display()));
    command.arg(folder.file("mem-event")).arg("replay").arg(folder.file("trace")).args(["--consumer", &consumer]);
    let said = command.output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout);
    assert!(said.status.success() && text.ends_with("no difference\n"), "{said:?}");
}
