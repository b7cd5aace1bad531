//! Every access that an instruction does is foreseen, whatever the instruction and its form.

mod going;
mod report;
mod table;

use going::Going;
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
    let alike = [table::encodings(64), table::encodings(32), table::encodings(16), table::of_ring_0()];
    let going = going::all();
    let (job, outcome) = run(alike.each_ref().map(Vec::as_slice), &going);
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}\n{}", outcome.verdict, outcome.console);
    let vectors = report::vectors(&outcome.console);
    assert_eq!(vectors.len(), alike.iter().map(Vec::len).sum::<usize>() + going.len(), "the guest tells of each");
    let line = outcome.said.lines().find(|line| line.contains("done but not predicted")).unwrap();
    let not_foreseen: u64 = line.rsplit(", ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(not_foreseen, 0, "{}", outcome.said);
    if qemu::version(&job.qemu) == Some(DOCUMENTED) {
        let going: Vec<Encoding> = going.into_iter().map(|going| going.encoding).collect();
        let mut vectors = vectors.as_slice();
        let columns = alike.iter().chain([&going]).map(|encodings| {
            let (own, others) = vectors.split_at(encodings.len());
            vectors = others;
            (encodings.as_slice(), own)
        });
        hold(&report::document(&columns.collect::<Vec<_>>(), not_foreseen));
    }
}

fn run(alike: [&[Encoding]; 4], going: &[Going]) -> (Job, Outcome) {
    let folder = RunFolder::create().unwrap();
    let file = folder.file("table");
    std::fs::write(&file, table::file(alike, going)).unwrap();
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
