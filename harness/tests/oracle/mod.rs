//! What real Xen 4.17.7 answered to scripts of calls, against what is answered here: line by line the same, or listed in
//! docs/differences.md with the reason.
//!
//! `scripts/` has the scripts, a call a line, `ora.c` their interpreter on Xen's own libraries, `guest.S` the guest, and `recorded/` what the
//! interpreter printed on Xen (built with paging and sharing, on AMD's nested paging, the whole machine emulated), without the consoles'
//! lines in between. `debp` was recorded on Debian's own hypervisor, which has no paging. `smp/` has those of guests with several vCPUs,
//! whose guest is `smp.S`: what a scheduler decides is not compared there.

mod answers;
mod crowd;
mod listed;
mod machine;
mod order;

use crate::support::kernel_maps_write_protected;
use answers::{Answers, answers};
use harness::machine::folder::RunFolder;
use listed::{Line, Listed, listed};
use machine::{Machine, Tools, text};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

/// Scripts that are given to one guest one after the other.
struct Series {
    /// Which guest.
    kind: &'static str,
    vcpus: usize,
    scripts: Vec<Script>,
}

/// A script, and what Xen answered, as often as it was recorded.
struct Script {
    file: String,
    /// Their names, and their files.
    recorded: Vec<(String, String)>,
}

/// Of one vCPU: which of the guest's rounds the scripts went through.
const SINGLE: [(&str, &[&str]); 33] = [
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
    ("m", &["edge"]),
    ("m", &["aftdis"]),
    ("m", &["dis2"]),
    ("m", &["dupl"]),
    ("m", &["reason"]),
    ("m", &["share"]),
    ("m", &["two"]),
    ("m", &["two2"]),
    ("m", &["hole"]),
    ("c", &["deny"]),
    ("c", &["mon2n"]),
    ("m", &["fgnfull"]),
    ("m", &["fgnfull2"]),
    ("m", &["fgnfull3"]),
    ("c", &["full20b"]),
];

/// Of several vCPUs: the script, how many, and the recordings. Schedulers and processors were others in some, which must not matter.
const SEVERAL: [(&str, usize, &[&str]); 29] = [
    ("panic", 2, &["panic2"]),
    ("rings", 4, &["rings4"]),
    ("foreignfull", 4, &["foreignfull4"]),
    ("destroy", 4, &["destroy4"]),
    ("dis", 4, &["dis4"]),
    ("pag_own4", 4, &["pag_own4"]),
    ("pag_same", 2, &["pag_same2"]),
    ("sync", 2, &["sync2"]),
    ("sync", 4, &["sync4"]),
    ("sync", 9, &["sync9", "2cpu_sync9"]),
    ("sync", 12, &["sync12"]),
    ("async", 2, &["async2"]),
    ("async", 4, &["async4"]),
    ("async", 9, &["async9", "2cpu_async9"]),
    ("async", 12, &["async12"]),
    ("dis", 9, &["dis9"]),
    ("destroy", 9, &["destroy9"]),
    ("destroyp", 12, &["destroyp12"]),
    ("foreignfull", 9, &["foreignfull9"]),
    ("pag_own2", 2, &["pag_own2"]),
    ("pag_own9", 9, &["pag_own9", "2cpu_pag_own9"]),
    ("pag_own12", 12, &["pag_own12"]),
    ("pag_same", 4, &["pag_same4", "pag_same4b", "2cpu_pag_same4"]),
    ("pag_same", 9, &["pag_same9", "2cpu_pag_same9"]),
    ("pag_same", 12, &["pag_same12"]),
    ("starve", 9, &["starve9", "starve9_again", "2cpu_starve9"]),
    ("starve", 12, &["starve12"]),
    ("starve1", 9, STARVED),
    ("starvea", 9, &["starvea9"]),
];

const STARVED: &[&str] = &[
    "defweight1_starve9",
    "defweight2_starve9",
    "defweight3_starve9",
    "sched_credit_run1_starve9",
    "sched_credit_run2_starve9",
];

/// How many of each are run each time. All are with `MEM_EVENT_ORACLE=all`, which takes minutes; other words there are names of recordings.
const SHORT: [usize; 2] = [19, 7];

fn chosen(all: Vec<Series>, short: usize) -> Vec<Series> {
    let Ok(words) = std::env::var("MEM_EVENT_ORACLE") else { return all.into_iter().take(short).collect() };
    let is_named = |script: &Script| script.recorded.iter().any(|(name, _)| words.split(',').any(|word| word == name));
    all.into_iter().filter(|series| words == "all" || series.scripts.iter().any(is_named)).collect()
}

fn single() -> Vec<Series> {
    let script = |name: &&str| Script {
        file: format!("scripts/{name}"),
        recorded: vec![((*name).to_owned(), format!("recorded/{name}.txt"))],
    };
    let series =
        |(kind, names): (&'static str, &[&str])| Series { kind, vcpus: 1, scripts: names.iter().map(script).collect() };
    chosen(SINGLE.into_iter().map(series).collect(), SHORT[0])
}

fn several() -> Vec<Series> {
    let series = |(script, vcpus, names): (&str, usize, &[&str])| {
        let recorded = names.iter().map(|name| ((*name).to_owned(), format!("smp/recorded/{name}.txt")));
        let script = Script { file: format!("smp/scripts/{script}"), recorded: recorded.collect() };
        Series { kind: "s", vcpus, scripts: vec![script] }
    };
    chosen(SEVERAL.into_iter().map(series).collect(), SHORT[1])
}

/// What one script was answered by Xen and here.
struct Compared {
    name: String,
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
fn compared(tools: &Tools, gate: &str, series: &Series) -> Vec<Compared> {
    for _ in 0..20 {
        let machine = Machine::start(tools, series.kind, series.vcpus, gate);
        let mut compared = Vec::new();
        for Script { file, recorded } in &series.scripts {
            let (script, printed) = (text(file), machine.runs(tools, file));
            assert_eq!(order::breaks(&printed), [""; 0], "{file} of {} vCPUs: {printed}", series.vcpus);
            compared.extend(recorded.iter().map(|(name, recorded)| Compared {
                name: name.clone(),
                xen: answers(&script, &text(recorded)),
                here: answers(&script, &printed),
                script: script.clone(),
            }));
        }
        if !compared.iter().any(Compared::is_disturbed) {
            return compared;
        }
    }
    panic!("{:?}: the guest comes in between each time", series.scripts[0].file);
}

/// What differs of a series, in full for who reads it.
fn differences(tools: &Tools, gate: &str, series: &Series) -> BTreeMap<Line, String> {
    let mut differ = BTreeMap::new();
    for Compared { name, script, xen, here } in compared(tools, gate, series) {
        for number in xen.keys().chain(here.keys()).collect::<BTreeSet<_>>() {
            let (xen, here) = (xen.get(number), here.get(number));
            if xen != here {
                let line = script.lines().nth(number - 1).unwrap_or("the mappers in the background");
                let said = |said: Option<&String>| said.map_or("(nothing)", String::as_str).replace('\n', "\n        ");
                let report = format!("{name}:{number} {line}\n  Xen   {}\n  here  {}\n", said(xen), said(here));
                differ.insert((name.clone(), *number), report);
            }
        }
    }
    differ
}

/// How often a series may be played: a script waits fixed times, and on a machine with other work a vCPU comes too late for one of them.
const TURNS: usize = 3;

/// So many series are played beside each other: most of what a script does is to wait.
const PLAYERS: usize = 3;

/// What is otherwise of a series than the document says.
struct Judged {
    /// Lines that differ from Xen and are not listed, in full.
    not_listed: BTreeMap<Line, String>,
    /// Lines that are listed, and are as in Xen.
    equal: Vec<Line>,
}

impl Judged {
    /// A line is answered in another way than in Xen if it is so each time that it is asked, and as in Xen if it is so once.
    fn of(tools: &Tools, gate: &str, series: &Series, listed: &Listed) -> Judged {
        let recorded = series.scripts.iter().flat_map(|script| &script.recorded);
        let names: BTreeSet<&str> = recorded.map(|(name, _)| name.as_str()).collect();
        let is_listed = |line: &Line| listed.differ.contains(line) || listed.may_differ.contains(line);
        let own = || listed.differ.iter().filter(|line| names.contains(line.0.as_str()));
        let mut always = differences(tools, gate, series);
        let mut once: BTreeSet<Line> = always.keys().cloned().collect();
        for _ in 1..TURNS {
            if always.keys().all(is_listed) && own().all(|line| once.contains(line)) {
                break;
            }
            let again = differences(tools, gate, series);
            once.extend(again.keys().cloned());
            always.retain(|line, _| again.contains_key(line));
        }
        always.retain(|line, _| !is_listed(line));
        Judged { not_listed: always, equal: own().filter(|line| !once.contains(line)).cloned().collect() }
    }
}

fn is_as_listed(gate: &str, series: &[Series]) {
    let folder = RunFolder::create().unwrap();
    let Some(tools) = Tools::build(&folder) else { return };
    let document = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/differences.md")).unwrap();
    let listed = listed(&document);
    let next = AtomicUsize::new(0);
    let plays = || std::iter::from_fn(|| series.get(next.fetch_add(1, Ordering::Relaxed)));
    let judged = std::thread::scope(|scope| {
        let player = || scope.spawn(|| plays().map(|series| Judged::of(&tools, gate, series, &listed)).collect());
        let players: Vec<ScopedJoinHandle<'_, Vec<Judged>>> = (0..PLAYERS).map(|_| player()).collect();
        players.into_iter().flat_map(|player| player.join().unwrap()).collect::<Vec<_>>()
    });
    let report: String = judged.iter().flat_map(|it| it.not_listed.values()).map(String::as_str).collect();
    let equal: Vec<&Line> = judged.iter().flat_map(|it| &it.equal).collect();
    assert!(
        report.is_empty(),
        "these differ from Xen under the {gate} and docs/differences.md does not list them:\n{report}"
    );
    assert!(equal.is_empty(), "docs/differences.md lists these, and they are as in Xen under the {gate}: {equal:?}");
}

#[test]
fn each_recorded_answer_of_xen_is_given_here_or_listed_under_the_callback() {
    is_as_listed("callback", &single());
}

#[test]
fn each_recorded_answer_of_xen_is_given_here_or_listed_under_the_mmu() {
    if kernel_maps_write_protected() {
        is_as_listed("mmu", &single());
    }
}

#[test]
fn what_xen_answered_of_several_vcpus_is_answered_here_or_listed_under_the_callback() {
    is_as_listed("callback", &several());
}

#[test]
fn what_xen_answered_of_several_vcpus_is_answered_here_or_listed_under_the_mmu() {
    if kernel_maps_write_protected() {
        is_as_listed("mmu", &several());
    }
}
