//! What real Xen 4.17.7 answered to scripts of calls, against what is answered here: line by line the same, or listed in
//! docs/differences.md with the reason.
//!
//! `scripts/` has the scripts, a call a line, `ora.c` their interpreter on Xen's own libraries, `guest.S` the guest, and `recorded/` what the
//! interpreter printed on Xen (built with paging and sharing, on AMD's nested paging, the whole machine emulated), without the consoles'
//! lines in between. `debp` was recorded on Debian's own hypervisor, which has no paging.

mod answers;
mod listed;
mod machine;

use crate::support::kernel_maps_write_protected;
use answers::{Answers, answers};
use harness::machine::folder::RunFolder;
use listed::{Line, listed};
use machine::{Machine, Tools, text};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Scripts that were given to one guest one after the other, and which of the guest's rounds that went through.
const SERIES: [(&str, &[&str]); 18] = [
    ("m", &["pag1"]),
    ("m", &["pag1b", "pag2"]),
    ("m", &["pag3"]),
    ("m", &["pag4"]),
    ("m", &["crash"]),
    ("m", &["crash2"]),
    ("m", &["drop"]),
    ("m", &["fgn_touch"]),
    ("m", &["sleep"]),
    ("m", &["debp"]),
    ("c", &["full"]),
    ("c", &["mon1"]),
    ("c", &["mon2"]),
    ("c", &["mon3"]),
    ("m", &["rings"]),
    ("m", &["noflag"]),
    ("c", &["mondis2"]),
    ("c", &["monclear"]),
];

/// What one script was answered by Xen and here.
struct Compared {
    name: &'static str,
    script: String,
    xen: Answers,
    here: Answers,
}

impl Compared {
    /// The guest has touched a frame between its nomination and its eviction, where it had not on Xen: what follows is another story.
    fn is_disturbed(&self) -> bool {
        let refused = |said: &String| said.contains("evict 0x") && said.contains("EBUSY");
        self.here.iter().any(|(line, said)| refused(said) && self.xen.get(line) != Some(said))
    }
}

/// Gives a guest the scripts of a series, and a new guest, where one came in between.
fn compared(tools: &Tools, gate: &str, (kind, names): (&str, &[&'static str])) -> Vec<Compared> {
    for _ in 0..20 {
        let machine = Machine::start(tools, kind, gate);
        let compared = |name: &&'static str| {
            let script = text(&format!("scripts/{name}"));
            let xen = answers(&script, &text(&format!("recorded/{name}.txt")));
            let here = answers(&script, &machine.runs(tools, name));
            Compared { name, script, xen, here }
        };
        let series: Vec<_> = names.iter().map(compared).collect();
        if !series.iter().any(Compared::is_disturbed) {
            return series;
        }
    }
    panic!("{names:?}: the guest comes in between each time");
}

/// The lines that are answered in another way, in full for who reads it.
fn differences(tools: &Tools, gate: &str) -> (BTreeSet<Line>, String) {
    let (mut differ, mut report) = (BTreeSet::new(), String::new());
    for Compared { name, script, xen, here } in SERIES.into_iter().flat_map(|series| compared(tools, gate, series)) {
        for number in xen.keys().chain(here.keys()).collect::<BTreeSet<_>>() {
            let (xen, here) = (xen.get(number), here.get(number));
            if xen != here {
                let line = script.lines().nth(number - 1).unwrap_or("the mappers in the background");
                let said = |said: Option<&String>| said.map_or("(nothing)", String::as_str).replace('\n', "\n        ");
                writeln!(report, "{name}:{number} {line}\n  Xen   {}\n  here  {}", said(xen), said(here)).unwrap();
                differ.insert((name.to_owned(), *number));
            }
        }
    }
    (differ, report)
}

fn is_as_listed(gate: &str) {
    let folder = RunFolder::create().unwrap();
    let Some(tools) = Tools::build(&folder) else { return };
    let (differ, report) = differences(&tools, gate);
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/differences.md")).unwrap();
    let listed = listed(&document);
    let not_listed: Vec<_> =
        differ.iter().filter(|line| !listed.differ.contains(line) && !listed.may_differ.contains(line)).collect();
    let equal: Vec<_> = listed.differ.difference(&differ).collect();
    assert!(
        not_listed.is_empty(),
        "these differ from Xen and docs/differences.md does not list them: {not_listed:?}\n{report}"
    );
    assert!(equal.is_empty(), "docs/differences.md lists these, and they are as in Xen: {equal:?}\n{report}");
}

#[test]
fn each_recorded_answer_of_xen_is_given_here_or_listed_under_the_callback() {
    is_as_listed("callback");
}

#[test]
fn each_recorded_answer_of_xen_is_given_here_or_listed_under_the_mmu() {
    if kernel_maps_write_protected() {
        is_as_listed("mmu");
    }
}
