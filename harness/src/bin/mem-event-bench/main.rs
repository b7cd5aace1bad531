//! Measures, and holds the figures against their goals. Prints a table and writes `target/bench/results.json`.
//!
//! What is compared is measured side by side, alternating, in one run, and medians count: the machine may be slow or busy,
//! but it is so for both.

mod bare;
mod boots;
mod cores;
mod corpus;
mod engine;
mod figure;
mod page_in;
mod ping;
mod qemu;
mod round_trip;
mod served;
mod simulation;
mod xen_tool;

use anyhow::Context;
use clap::Parser;
use figure::Figure;
use std::path::{Path, PathBuf};

const RESULTS: &str = "target/bench/results.json";

/// Measures, and holds the figures against their goals.
#[derive(Debug, Parser)]
struct Arguments {
    /// The QEMU to measure in; by default qemu-system-x86_64 in PATH.
    #[arg(long, value_name = "PATH")]
    qemu: Option<PathBuf>,
    /// Parts of the names of rows; all rows if there is none.
    rows: Vec<String>,
}

fn main() -> anyhow::Result<()> {
    // The other process of a measurement is this program, too.
    let words: Vec<String> = std::env::args().skip(1).collect();
    match &words[..] {
        [role, order] if role == "served" => return served::main(order),
        [role, core] if role == "ping" => return ping::main(core),
        _ => {}
    }
    let Arguments { qemu, rows: wanted } = Arguments::parse();
    if let Some(path) = qemu {
        qemu::choose(path);
    }
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|one| name.contains(one.as_str()));
    let mut figures: Vec<Figure> = Vec::new();
    if is_wanted("scenario-seconds") {
        figures.push(boots::scenario_seconds()?);
    }
    if is_wanted("corpus-seconds") {
        figures.push(corpus::seconds()?);
    }
    figures.extend(page_in::ratios(is_wanted)?);
    if is_wanted("roundtrip-spin-us") {
        figures.push(round_trip::spin()?);
    }
    if is_wanted("roundtrip-mmu-ratio") {
        figures.push(round_trip::mmu_ratio()?);
    }
    if is_wanted("roundtrip-sleep-ratio") {
        figures.push(round_trip::sleep_ratio()?);
    }
    if is_wanted("events-per-second-8-vcpus") {
        figures.push(round_trip::eight_vcpus()?);
    }
    for row in round_trip::ALONE.into_iter().filter(|(name, _)| is_wanted(name)) {
        figures.push(round_trip::alone(row)?);
    }
    for row in round_trip::GRANTS.into_iter().filter(|(name, ..)| is_wanted(name)) {
        figures.push(round_trip::grant(row)?);
    }
    figures.extend(xen_tool::rows(is_wanted)?);
    figures.extend(linux(is_wanted)?);
    println!("{}", figure::table(&figures));
    let mut rows = figures.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    if engine::NAMES.into_iter().any(is_wanted) {
        let engine = engine::rows()?;
        println!("{}", engine::table(&engine));
        rows.extend(engine);
    }
    if is_wanted(simulation::NAME) {
        let row = [simulation::row()];
        println!("{}", engine::table(&row));
        rows.extend(row);
    }
    if let Some(folder) = Path::new(RESULTS).parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(&rows)?;
    std::fs::write(RESULTS, text + "\n").with_context(|| format!("cannot write {RESULTS}"))?;
    println!("written to {RESULTS}");
    Ok(())
}

/// The rows that boot Linux.
fn linux(is_wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<Figure>> {
    let mut figures = boots::linux(&is_wanted)?;
    if is_wanted("record-overhead") {
        figures.push(boots::record_overhead()?);
    }
    if is_wanted("contents-overhead") {
        figures.push(boots::contents_overhead()?);
    }
    if is_wanted("linux-paged") {
        figures.push(boots::paged()?);
    }
    for row in boots::ALL_WATCHED.into_iter().filter(|(name, ..)| is_wanted(name)) {
        figures.push(boots::all_watched(row)?);
    }
    Ok(figures)
}
