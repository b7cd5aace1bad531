//! The worked examples, each broken in one way by a small change of its text, in C, Python and Rust: `test` and `replay --consumer` both
//! fail it, and both say what is wrong.

use super::{Recording, c_compiles, changed, examples, fault, passes, touched};
use harness::machine::folder::RunFolder;
use harness::scenario::Time;
use harness::scenario::external::External;
use harness::suite::case::{Case, Judged, Settings};
use harness::suite::{self, report};
use harness::trial::Tried;
use harness::verdict::Kind;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

/// A way to be wrong.
struct Broken {
    name: &'static str,
    /// `listener` or `pager`.
    example: &'static str,
    /// The scenario in which it shows.
    scenario: &'static str,
    /// What is changed, in C, Python and Rust.
    changes: [(&'static str, &'static str); 3],
    /// What `replay --consumer` says.
    replayed: &'static [&'static str],
    /// What `test` says.
    tested: &'static [&'static str],
}

const GRANTS_ALL: Broken = Broken {
    name: "grants_all",
    example: "listener",
    scenario: "page_fault",
    changes: [
        ("has | (access->flags & 7)", "has | 7"),
        ("has | rights & RIGHTS", "RIGHTS"),
        ("grant(gfn, rights)", "grant(gfn, rights.union(mem_event::Rights::RWX))"),
    ],
    replayed: &["the answer to: access  vcpu 0  gfn 0x500 WATCHED+0x10", "the frame has the rights rwx", "set-access"],
    tested: &["the sequence has changed", "-> set r, answer", "-> set rwx, answer"],
};

const FORGETS_PAUSED: Broken = Broken {
    name: "forgets_paused",
    example: "listener",
    scenario: "page_fault",
    changes: [
        ("(VM_EVENT_FLAG_VCPU_PAUSED | VM_EVENT_FLAG_FOREIGN)", "VM_EVENT_FLAG_FOREIGN"),
        ("ring.answer(at, request)", "ring.answer(at, (request[0] & ~1,) + request[1:])"),
        (
            "channel.answer(&request.answer());",
            "channel.answer(&mem_event::Response { flags: mem_event::Flags::NONE, ..request.answer() });",
        ),
    ],
    replayed: &["leaves vCPU 0 waiting: it has no flag VCPU_PAUSED", "WATCHED+0x10"],
    tested: &["[no-vcpu-paused]", "lacks VCPU_PAUSED", "WATCHED+0x10"],
};

const ANSWERS_TWICE: Broken = Broken {
    name: "answers_twice",
    example: "listener",
    scenario: "page_fault",
    changes: [
        ("ring->back.rsp_prod_pvt++", "ring->back.rsp_prod_pvt += 2"),
        ("(self.index[RSP_PROD] + 1)", "(self.index[RSP_PROD] + 2)"),
        (
            "channel.answer(&request.answer());",
            "let (ring, settings) = channel.shape();\n\
             let bytes = mem_event::wire::response_bytes(settings.layout, ring, &request.answer());\n\
             channel.back().write_raw(&bytes);\nchannel.back().answer_raw(&bytes);",
        ),
    ],
    replayed: &["1 answer more than requests: whom it names waits for none", "WATCHED+0x10"],
    tested: &["[broken-ring]", "gave more answers than it was asked for"],
};

const LOSES_AN_ANSWER: Broken = Broken {
    name: "loses_an_answer",
    example: "listener",
    scenario: "page_fault",
    changes: [
        ("answer(ring, &request);", "if (request.u.mem_access.offset != 0x20)\n    answer(ring, &request);"),
        ("ring.answer(at, request)", "ring.answer(at, request) if offset != 0x20 else None"),
        (
            "channel.answer(&request.answer());",
            "if matches!(request.event, Event::Violation { offset: 0x20, .. }) {\ncontinue;\n}\n\
             channel.answer(&request.answer());",
        ),
    ],
    replayed: &["no answer came within 5s to the request of step", "WATCHED+0x20"],
    tested: &["[endless-wait]", "no answer to its request", "WATCHED"],
};

/// The seventh page, with what the page before it held.
const LOADS_ITS_NEIGHBOUR: Broken = Broken {
    name: "loads_its_neighbour",
    example: "pager",
    scenario: "page_touch",
    changes: [
        (
            "pread(file, content, PAGE, (off_t)(gfn * PAGE))",
            "pread(file, content, PAGE, (off_t)((gfn - (gfn == FRAME)) * PAGE))",
        ),
        (
            "os.pread(self.file.fileno(), PAGE, gfn * PAGE)",
            "os.pread(self.file.fileno(), PAGE, (gfn - (gfn == FRAME)) * PAGE)",
        ),
        (
            "self.file.read_exact_at(&mut content, place(gfn))",
            "self.file.read_exact_at(&mut content, place(Gfn(gfn.0 - u64::from(gfn.0 == FRAME))))",
        ),
    ],
    replayed: &[
        "(TOUCHED+0x6000) with another content than was evicted in step",
        "it is the content of",
        "(TOUCHED+0x5000)",
    ],
    tested: &["TOUCHED+0x6000 came back with another content: evicted in step", "loaded in step"],
};

/// Besides those of its order a frame of the guest's code.
const EVICTS_TOO_MUCH: Broken = Broken {
    name: "evicts_too_much",
    example: "pager",
    scenario: "page_in",
    changes: [
        ("for (uint64_t gfn = first;", "gone += evict(0x100);\n        for (uint64_t gfn = first;"),
        ("gone = sum(map(self.evict,", "gone = self.evict(0x100) + sum(map(self.evict,"),
        ("(first.0..first.0 + count).map(Gfn)", "[0x100].into_iter().chain(first.0..first.0 + count).map(Gfn)"),
    ],
    replayed: &["a frame is evicted that nobody ordered to be", "frame 0x100"],
    tested: &["the sequence has changed", "page out 65 of 64 frames of PAGES"],
};

const ALL: [Broken; 6] =
    [GRANTS_ALL, FORGETS_PAUSED, ANSWERS_TWICE, LOSES_AN_ANSWER, LOADS_ITS_NEIGHBOUR, EVICTS_TOO_MUCH];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    C,
    Python,
    Rust,
}

impl Broken {
    fn change(&self, language: Language, frame: u64) -> (String, String) {
        let (from, to) = self.changes[language as usize];
        (from.to_owned(), to.replace("FRAME", &frame.to_string()))
    }
}

/// A consumer's command with the rings that it is handed, right or broken.
fn command(folder: &RunFolder, broken: &Broken, language: Language, frame: Option<u64>) -> Option<String> {
    let name = broken.example;
    let change = frame.map(|frame| broken.change(language, frame));
    let changes: Vec<(&str, &str)> = change.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let (ring, source) = (if name == "pager" { "paging" } else { "access" }, |ending| format!("{name}.{ending}"));
    Some(match language {
        Language::C => {
            let program = c_compiles(folder, [&source("c"), "mem_event.h"], &changes)?;
            format!("{ring}:vm_event7={}", program.display())
        }
        Language::Python => {
            let script = changed(folder, [&source("py"), "mem_event.py"], &changes);
            format!("{ring}:flags32=python3 {}", script.display())
        }
        Language::Rust if frame.is_some() => format!("{ring}={}", in_rust().join(broken.name).display()),
        Language::Rust => {
            let program = std::env::current_exe().unwrap();
            format!("{ring}={}", program.ancestors().nth(2).unwrap().join("examples").join(name).display())
        }
    })
}

/// The frame that each change in Rust means: they are built at once, before anything runs.
fn frame(broken: &Broken) -> u64 {
    static TOUCHED: OnceLock<u64> = OnceLock::new();
    if broken.scenario == "page_touch" {
        *TOUCHED.get_or_init(|| touched(&Recording::of("page_touch")).0) + 6
    } else {
        0
    }
}

/// Where the broken examples in Rust are, as programs of one crate beside this one.
fn in_rust() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("broken");
        std::fs::create_dir_all(folder.join("src")).unwrap();
        let text = std::fs::read_to_string(workspace.join("Cargo.toml")).unwrap();
        let version = |name: &str| text.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap();
        let path = |name: &str| workspace.join(name).canonicalize().unwrap();
        let mut manifest = format!(
            "[package]\nname = \"broken\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n[dependencies]\n{}\n{}\n\
             mem-event = {{ path = {:?} }}\nmem-event-client = {{ path = {:?} }}\n",
            version("anyhow"),
            version("rustix"),
            path("mem-event"),
            path("mem-event/client"),
        );
        for broken in &ALL {
            let source = std::fs::read_to_string(examples().join(broken.example).with_extension("rs")).unwrap();
            let (from, to) = broken.change(Language::Rust, frame(broken));
            assert_eq!(source.matches(&from).count(), 1, "{from} in {}", broken.example);
            let file = folder.join(format!("src/{}.rs", broken.name));
            let changed = source.replace(&from, &to);
            if std::fs::read_to_string(&file).ok().as_ref() != Some(&changed) {
                std::fs::write(&file, changed).unwrap();
            }
            writeln!(manifest, "[[bin]]\nname = \"{0}\"\npath = \"src/{0}.rs\"", broken.name).unwrap();
        }
        std::fs::write(folder.join("Cargo.toml"), manifest).unwrap();
        std::fs::copy(workspace.join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
        let built = Command::new("cargo")
            .args(["build", "--quiet", "--offline", "--manifest-path"])
            .arg(folder.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", folder.join("target"))
            .env_remove("RUSTFLAGS")
            .output()
            .unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        folder.join("target/debug")
    })
}

fn says(text: &str, due: &[&str]) {
    for part in due {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

fn is_failed_by_replay(broken: &Broken, language: Language) {
    let (recording, folder) = (Recording::of(broken.scenario), RunFolder::create().unwrap());
    let Some(right) = command(&folder, broken, language, None) else { return };
    passes(&recording.tries(&right));
    let wrong = command(&folder, broken, language, Some(frame(broken))).unwrap();
    let loses = broken.name == LOSES_AN_ANSWER.name;
    let patience = Duration::from_secs(if loses { 5 } else { 3600 });
    let tried: Tried = recording.with(&wrong, |options| options.patience = patience);
    let difference = tried.difference.as_ref().map(ToString::to_string).unwrap_or_default();
    assert!(!tried.is_right());
    says(&format!("{}\n{difference}", fault(&tried)), broken.replayed);
}

/// Judged as `test` does it, against what the right one gave. One that leaves its guest waiting is found at the deadline: on a busy machine
/// the guest may not have come so far when a short one passes.
fn is_failed_by_test(broken: &Broken, language: Language) {
    let folder = RunFolder::create().unwrap();
    let Some(right) = command(&folder, broken, language, None) else { return };
    let mut scenario = crate::support::scenario(broken.scenario);
    scenario.consumers.external = vec![External::parse(&right).unwrap()];
    let mut case = Case { scenario, file: None, accepted: None, broken: None };
    let judge = |case: &Case| suite::judge(case, &Settings { repeat: 1, ..Settings::default() }, None);
    case.accepted = judge(&case).sequence;
    let again = judge(&case);
    assert_eq!(again.verdict.kind, Kind::Success, "{}\n{}", again.verdict, report::difference(&again, false));
    let wrong = command(&folder, broken, language, Some(frame(broken))).unwrap();
    case.scenario.consumers.external = vec![External::parse(&wrong).unwrap()];
    let mut said = String::new();
    for deadline in [2, 10, 120].map(Duration::from_secs) {
        case.scenario.deadline = Time(deadline);
        let judged: Judged = judge(&case);
        assert!(judged.has_failed(), "{} passes", broken.name);
        said = format!("{}\n{}\n{:?}", judged.verdict, report::difference(&judged, false), judged.explained);
        if broken.tested.iter().all(|part| said.contains(part)) {
            return;
        }
    }
    says(&said, broken.tested);
}

/// One test for each way and language: `replay` and `test`.
macro_rules! broken {
    ($($name:ident: $broken:ident, $language:ident, $way:ident;)*) => { $(
        #[test]
        fn $name() {
            $way(&$broken, Language::$language);
        }
    )* };
}

broken! {
    replay_fails_a_listener_in_c_that_grants_all: GRANTS_ALL, C, is_failed_by_replay;
    replay_fails_a_listener_in_python_that_grants_all: GRANTS_ALL, Python, is_failed_by_replay;
    replay_fails_a_listener_in_rust_that_grants_all: GRANTS_ALL, Rust, is_failed_by_replay;
    test_fails_a_listener_in_c_that_grants_all: GRANTS_ALL, C, is_failed_by_test;
    test_fails_a_listener_in_python_that_grants_all: GRANTS_ALL, Python, is_failed_by_test;
    test_fails_a_listener_in_rust_that_grants_all: GRANTS_ALL, Rust, is_failed_by_test;
    replay_fails_a_listener_in_c_that_forgets_paused: FORGETS_PAUSED, C, is_failed_by_replay;
    replay_fails_a_listener_in_python_that_forgets_paused: FORGETS_PAUSED, Python, is_failed_by_replay;
    replay_fails_a_listener_in_rust_that_forgets_paused: FORGETS_PAUSED, Rust, is_failed_by_replay;
    test_fails_a_listener_in_c_that_forgets_paused: FORGETS_PAUSED, C, is_failed_by_test;
    test_fails_a_listener_in_python_that_forgets_paused: FORGETS_PAUSED, Python, is_failed_by_test;
    test_fails_a_listener_in_rust_that_forgets_paused: FORGETS_PAUSED, Rust, is_failed_by_test;
    replay_fails_a_listener_in_c_that_answers_twice: ANSWERS_TWICE, C, is_failed_by_replay;
    replay_fails_a_listener_in_python_that_answers_twice: ANSWERS_TWICE, Python, is_failed_by_replay;
    replay_fails_a_listener_in_rust_that_answers_twice: ANSWERS_TWICE, Rust, is_failed_by_replay;
    test_fails_a_listener_in_c_that_answers_twice: ANSWERS_TWICE, C, is_failed_by_test;
    test_fails_a_listener_in_python_that_answers_twice: ANSWERS_TWICE, Python, is_failed_by_test;
    test_fails_a_listener_in_rust_that_answers_twice: ANSWERS_TWICE, Rust, is_failed_by_test;
    replay_fails_a_listener_in_c_that_loses_an_answer: LOSES_AN_ANSWER, C, is_failed_by_replay;
    replay_fails_a_listener_in_python_that_loses_an_answer: LOSES_AN_ANSWER, Python, is_failed_by_replay;
    replay_fails_a_listener_in_rust_that_loses_an_answer: LOSES_AN_ANSWER, Rust, is_failed_by_replay;
    test_fails_a_listener_in_c_that_loses_an_answer: LOSES_AN_ANSWER, C, is_failed_by_test;
    test_fails_a_listener_in_python_that_loses_an_answer: LOSES_AN_ANSWER, Python, is_failed_by_test;
    test_fails_a_listener_in_rust_that_loses_an_answer: LOSES_AN_ANSWER, Rust, is_failed_by_test;
    replay_fails_a_pager_in_c_that_loads_its_neighbour: LOADS_ITS_NEIGHBOUR, C, is_failed_by_replay;
    replay_fails_a_pager_in_python_that_loads_its_neighbour: LOADS_ITS_NEIGHBOUR, Python, is_failed_by_replay;
    replay_fails_a_pager_in_rust_that_loads_its_neighbour: LOADS_ITS_NEIGHBOUR, Rust, is_failed_by_replay;
    test_fails_a_pager_in_c_that_loads_its_neighbour: LOADS_ITS_NEIGHBOUR, C, is_failed_by_test;
    test_fails_a_pager_in_python_that_loads_its_neighbour: LOADS_ITS_NEIGHBOUR, Python, is_failed_by_test;
    test_fails_a_pager_in_rust_that_loads_its_neighbour: LOADS_ITS_NEIGHBOUR, Rust, is_failed_by_test;
    replay_fails_a_pager_in_c_that_evicts_too_much: EVICTS_TOO_MUCH, C, is_failed_by_replay;
    replay_fails_a_pager_in_python_that_evicts_too_much: EVICTS_TOO_MUCH, Python, is_failed_by_replay;
    replay_fails_a_pager_in_rust_that_evicts_too_much: EVICTS_TOO_MUCH, Rust, is_failed_by_replay;
    test_fails_a_pager_in_c_that_evicts_too_much: EVICTS_TOO_MUCH, C, is_failed_by_test;
    test_fails_a_pager_in_python_that_evicts_too_much: EVICTS_TOO_MUCH, Python, is_failed_by_test;
    test_fails_a_pager_in_rust_that_evicts_too_much: EVICTS_TOO_MUCH, Rust, is_failed_by_test;
}
