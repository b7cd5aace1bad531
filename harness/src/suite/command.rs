//! `mem-event test`

use super::case::{Case, Judged, Settings};
use super::evidence::Place;
use super::snapshot::{self, Seen};
use super::{judge, junit, report};
use crate::machine::qemu::Gate;
use crate::output::{Color, in_ci, print};
use crate::refusal::Refusal;
use crate::run::job::not_seen;
use crate::scenario::Contents;
use crate::scenario::amount::bytes;
use crate::verdict::{Kind, Verdict};
use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::cmp::Reverse;
use std::io::BufRead;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Arguments of `test`.
#[derive(Debug, Args)]
pub struct Test {
    /// Scenarios and folders of them; without one the built-in ones.
    pub paths: Vec<PathBuf>,
    /// Only those whose name holds this text.
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// How many run at a time; by default as many as there are cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// How many times each runs; all runs must give the same sequence.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub repeat: u16,
    /// Take every sequence as the accepted one.
    #[arg(long, conflicts_with = "review")]
    pub accept: bool,
    /// Ask about every sequence that has changed.
    #[arg(long, conflicts_with = "json")]
    pub review: bool,
    /// Write a JUnit report.
    #[arg(long, value_name = "FILE")]
    pub junit: Option<PathBuf>,
    /// Keep the evidence of each failure in this folder: trace, picture, what guest, QEMU and consumers wrote. By default beside the
    /// scenario's snapshot, as NAME.failed; nowhere for built-in scenarios, and with CI=true.
    #[arg(long, value_name = "DIR")]
    pub artifacts: Option<PathBuf>,
    /// Try a scenario that fails so often again. One that then succeeds is told as flaky.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u16,
    /// Begin no further scenario when one has failed.
    #[arg(long)]
    pub fail_fast: bool,
    /// Verdicts and summary as lines of JSON.
    #[arg(long)]
    pub json: bool,
    /// Run them in an order drawn from this number, and not by deadline and name.
    #[arg(long, value_name = "N")]
    pub seed: Option<u32>,
    /// Faults into the consumers' world, drawn from this number: docs/faults.md. The sequence is not compared with the accepted one.
    #[arg(long, value_name = "SEED")]
    pub chaos: Option<u64>,
    /// The same for each number from A to B.
    #[arg(long, value_name = "A..B", conflicts_with = "chaos", value_parser = seeds)]
    pub seeds: Option<RangeInclusive<u64>>,
    /// Only the Kth of N parts: every Nth scenario, from the Kth on.
    #[arg(long, value_name = "K/N")]
    pub partition: Option<Partition>,
    /// Whether frames must come back with the contents that they were evicted with (`check`), or not (`own`); by default as each scenario
    /// says.
    #[arg(long, value_enum, value_name = "WHOSE")]
    pub contents: Option<Contents>,
    /// How large the record of a run may grow, from which its sequence is read; 1 GiB by default.
    #[arg(long, value_name = "SIZE")]
    pub trace_limit: Option<String>,
    /// What stops accesses.
    #[arg(long, value_enum, default_value_t)]
    pub gate: Gate,
    /// The QEMU to use; by default qemu-system-x86_64 in PATH.
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
}

/// One of several parts, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    part: usize,
    of: usize,
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Partition, String> {
        let numbers = text.split_once('/').and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Partition { part, of }),
            _ => Err("write K/N with K from 1 to N".into()),
        }
    }
}

/// `A..B`
fn seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let numbers = text.split_once("..").and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    let range = numbers.filter(|(first, last)| first <= last).map(|(first, last)| first..=last);
    range.ok_or_else(|| "write A..B with A not above B: 1..100 are a hundred".into())
}

/// Runs it.
///
/// # Errors
/// A path or a scenario is wrong, none is left to run, or a file cannot be written.
pub fn test(arguments: &Test, color: Color) -> anyhow::Result<u8> {
    let cases = chosen(arguments)?;
    if (arguments.accept || arguments.review) && arguments.paths.is_empty() {
        let what = "the snapshots of the built-in scenarios are in this program";
        return Err(
            Refusal::usage(what, "name the folder of the scenarios, as in: mem-event test snapshots --accept").into()
        );
    }
    let repeat = usize::from(arguments.repeat);
    let trace_limit = arguments.trace_limit.as_deref().map(bytes).transpose()?;
    let Test { qemu, gate, retries, contents, .. } = arguments;
    let (qemu, gate, retries, contents) = (qemu.clone(), *gate, *retries, *contents);
    let settings = Settings { qemu, gate, plugin: Vec::new(), contents, repeat, retries, trace_limit };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = arguments.jobs.map_or(cores, usize::from);
    let (colours, count) = (color.is_on(), cases.len());
    let mut all = run(cases, &settings, jobs, arguments, colours)?;
    for (case, judged) in all.iter_mut().filter(|(_, judged)| judged.acceptable) {
        // A folder that cannot be written is this scenario's matter: the others, and the report, are not lost to it.
        if let Err(error) = settle(case, judged, arguments, colours) {
            let worse = if arguments.accept { Kind::Error } else { judged.verdict.kind };
            judged.verdict = Verdict::new(worse, format!("{}; {error:#}", judged.verdict.reason));
            eprintln!("mem-event: {}: {error:#}", case.scenario.name);
        }
    }
    if let Some(path) = &arguments.junit {
        std::fs::write(path, junit::report(&all)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if !arguments.json {
        print(&(report::summary(&all, count) + "\n"))?;
    }
    if all.is_empty() {
        // A part of a suite that has fewer scenarios than parts.
        return Ok(Kind::Success.exit_code());
    }
    let worst = all.iter().map(|(_, judged)| judged.verdict.kind).filter(|kind| *kind != Kind::Skip).max();
    Ok(worst.unwrap_or(Kind::Skip).exit_code())
}

fn chosen(arguments: &Test) -> Result<Vec<Case>, Refusal> {
    let mut cases = super::cases(&arguments.paths)?;
    if let Some(text) = &arguments.filter {
        cases.retain(|case| case.scenario.name.contains(text.as_str()));
    }
    let seeds = arguments.seeds.clone().or(arguments.chaos.map(|seed| seed..=seed));
    if let Some(seeds) = seeds {
        cases = cases.iter().flat_map(|case| seeds.clone().map(|seed| case.with_faults(seed))).collect();
    }
    if let Some(Partition { part, of }) = arguments.partition {
        cases = cases.into_iter().skip(part - 1).step_by(of).collect();
    }
    if let Some(seed) = arguments.seed {
        // A checksum of seed and name is as good as a draw.
        cases.sort_by_key(|case| crc32fast::hash(format!("{seed} {}", case.scenario.name).as_bytes()));
    } else {
        // What may take long begins first, lest it be alone in the end.
        cases.sort_by_key(|case| Reverse(case.scenario.deadline.0));
    }
    if cases.is_empty() && arguments.partition.is_none() {
        return Err(Refusal::usage("no scenario is left to run", "see `mem-event list`, or use another --filter"));
    }
    Ok(cases)
}

/// Runs all, some at a time; each verdict is shown when it is there. In the order of the cases.
fn run(
    cases: Vec<Case>,
    settings: &Settings,
    jobs: usize,
    arguments: &Test,
    colours: bool,
) -> anyhow::Result<Vec<(Case, Judged)>> {
    let bar = if arguments.json { ProgressBar::hidden() } else { ProgressBar::new(cases.len() as u64) };
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        bar.set_style(style);
    }
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done: Mutex<Vec<(usize, Judged)>> = Mutex::new(Vec::new());
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(cases.len()) {
            scope.spawn(|| {
                while let Some((index, case)) = {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(index).map(|case| (index, case)).filter(|_| !stopped.load(Ordering::Relaxed))
                } {
                    bar.set_message(case.scenario.name.clone());
                    let evidence = Place::of(case, arguments.artifacts.as_deref(), in_ci());
                    let judged = judge(case, settings, evidence.as_ref());
                    stopped.fetch_or(arguments.fail_fast && judged.has_failed(), Ordering::Relaxed);
                    let shown = if arguments.json {
                        report::json(case, &judged) + "\n"
                    } else {
                        // What one is asked about is shown with the question.
                        let is_asked = arguments.review && judged.acceptable;
                        let difference = if is_asked { String::new() } else { report::difference(&judged, colours) };
                        report::line(case, &judged) + "\n" + &difference
                    };
                    let Ok(mut done) = done.lock() else { return };
                    if let (Err(error), Ok(mut failed)) = (bar.suspend(|| print(&shown)), failed.lock()) {
                        *failed = Some(error);
                    }
                    bar.inc(1);
                    done.push((index, judged));
                }
            });
        }
    });
    bar.finish_and_clear();
    if let Some(error) = failed.into_inner().unwrap_or_default() {
        return Err(error);
    }
    let mut done = done.into_inner().unwrap_or_default();
    done.sort_by_key(|(index, _)| *index);
    // With --fail-fast some have no verdict.
    let mut cases: Vec<Option<Case>> = cases.into_iter().map(Some).collect();
    let judged = done.into_iter().filter_map(|(index, judged)| Some((cases.get_mut(index)?.take()?, judged)));
    Ok(judged.collect())
}

/// What becomes of a sequence that differs from its snapshot.
fn settle(case: &Case, judged: &mut Judged, arguments: &Test, colours: bool) -> anyhow::Result<()> {
    let (Some(file), Some(sequence)) = (&case.file, &judged.sequence) else { return Ok(()) };
    let not_seen = not_seen(&judged.said);
    let seen = Seen { sequence, not_seen: not_seen.as_deref() };
    let take = arguments.accept || arguments.review && asked(case, judged, colours)?;
    if !take {
        // What runs for CI changes no checkout: there is nobody to look at the file.
        return if in_ci() { Ok(()) } else { snapshot::propose(file, &case.scenario, &seen) };
    }
    snapshot::accept(file, &case.scenario, &seen)?;
    if let Some(folder) = judged.evidence.take() {
        Place(folder).clear();
    }
    let warning = if report::has_event(sequence) { "" } else { ": a sequence without any event" };
    print(&format!("accepted  {}{warning}\n", case.scenario.name))?;
    judged.verdict = Verdict::new(Kind::Success, "accepted");
    Ok(())
}

fn asked(case: &Case, judged: &Judged, colours: bool) -> anyhow::Result<bool> {
    let difference = report::difference(judged, colours);
    print(&format!("\n{}:\n{difference}accept? [y/N] ", case.scenario.name))?;
    std::io::Write::flush(&mut std::io::stdout())?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("y"))
}

#[cfg(test)]
mod tests {
    use super::Partition;

    #[test]
    fn a_partition_is_one_of_several() {
        assert_eq!("2/3".parse(), Ok(Partition { part: 2, of: 3 }));
        for text in ["0/3", "4/3", "1/0", "x", "1", "/"] {
            assert!(text.parse::<Partition>().is_err(), "{text}");
        }
    }
}
