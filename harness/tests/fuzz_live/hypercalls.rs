//! Hypercalls of a tool that has gone wild, through the library that is preloaded: neither the tool nor its connection ends of them.

use crate::support::xen::{Domain, Release};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::Scenario;
use std::process::Command;
use std::time::{Duration, Instant};

/// Calls of one tool.
const CALLS: &str = "5000";
/// Tools, where nobody asks for more.
const TOOLS: u64 = 6;

/// A guest that runs for ever.
fn endless() -> Domain {
    let mut scenario = Scenario::bare("endless");
    scenario.consumers.listener.get_or_insert_default();
    scenario.consumers.pager.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    (job.gate, job.plugin) = (Gate::Callback, vec!["foreign=map".into()]);
    Domain::of(job)
}

#[test]
fn no_hypercalls_end_the_tool_that_makes_them_or_its_connection() {
    let folder = RunFolder::create().unwrap();
    let program = folder.file("hypercalls");
    let mut cc = Command::new("cc");
    cc.args(["-O1", "-Wall", "-Werror", "-o"]).arg(&program);
    cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/images/hypercalls.c"));
    assert!(cc.status().unwrap().success(), "the tool does not build");
    let tool = Release::own(program);
    let seconds = std::env::var("MEM_EVENT_FUZZ_SECONDS").ok().map(|text| text.parse().unwrap());
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    for seed in (1..).take_while(|seed| end.map_or(*seed <= TOOLS, |end| Instant::now() < end)) {
        let mut domain = endless();
        let (status, text) = domain.tool("hypercalls", &tool, &[&seed.to_string(), CALLS]).ended();
        assert_eq!(status.code(), Some(0), "with {seed}: {text}");
        assert!(text.contains("domain 1 is there"), "with {seed}: {text}\n{}", domain.qemu.errors());
        // Whatever was asked for, the domain answers others as well.
        domain.toolstack.info().unwrap();
        assert!(!domain.qemu.errors().contains("panicked"), "with {seed}: {}", domain.qemu.errors());
        domain.qemu.kill();
    }
}
