//! Every access that an instruction does is foreseen, whatever the instruction and its form.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod report;
mod table;

use harness::machine::folder::RunFolder;
use harness::machine::qemu;
use harness::run::{Job, Outcome};
use harness::scenario::Scenario;
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use std::path::Path;
use table::Encoding;

const SCENARIO: &str = r#"
version = 1
about = "Instructions, each run once"
deadline = "300s"
[machine]
guest = "encodings"
cpu = "max"
"#;

/// The QEMU whose numbers the document has.
const DOCUMENTED: (u32, u32) = (10, 0);

#[test]
fn every_access_of_every_instruction_is_foreseen() {
    let (of_64, of_32) = (table::encodings(64), table::encodings(32));
    let (job, outcome) = run(&of_64, &of_32);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}\n{}", outcome.verdict, outcome.console);
    let vectors = report::vectors(&outcome.console);
    assert_eq!(vectors.len(), of_64.len() + of_32.len(), "the guest tells of each");
    let line = outcome.said.lines().find(|line| line.contains("done but not predicted")).unwrap();
    let not_foreseen: u64 = line.rsplit(", ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(not_foreseen, 0, "{}", outcome.said);
    if qemu::version(&job.qemu) == Some(DOCUMENTED) {
        let (first, second) = vectors.split_at(of_64.len());
        hold(&report::document((&of_64, first), (&of_32, second), not_foreseen));
    }
}

fn run(of_64: &[Encoding], of_32: &[Encoding]) -> (Job, Outcome) {
    let folder = RunFolder::create().unwrap();
    let file = folder.file("table");
    std::fs::write(&file, table::file(of_64, of_32)).unwrap();
    let mut job = Job::new(Scenario::parse(Path::new("encodings.toml"), SCENARIO.to_owned()).unwrap(), None).unwrap();
    job.verify = true;
    let loader = format!("loader,file={},addr={:#x},force-raw=on", file.display(), table::TABLE);
    job.extra = vec!["-device".into(), loader.into()];
    let outcome = job.run(&mut Silent, None).unwrap();
    (job, outcome)
}

/// Compares with `docs/instructions.md`, or writes it.
fn hold(document: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/instructions.md");
    if std::env::var_os("MEM_EVENT_INSTRUCTIONS").is_some_and(|what| what == "write") {
        std::fs::write(&path, document).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differences = similar::TextDiff::from_lines(written.as_str(), document);
    let differences = differences.unified_diff().context_radius(1).to_string();
    assert!(
        written == document,
        "docs/instructions.md is not what came out; MEM_EVENT_INSTRUCTIONS=write\n{differences}"
    );
}
