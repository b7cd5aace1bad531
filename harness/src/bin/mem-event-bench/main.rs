//! Measures, and holds the figures against their goals. Prints a table and writes `target/bench/results.json`.
//!
//! What is compared is measured side by side, alternating, in one run, and medians count: the machine may be slow or busy,
//! but it is so for both.

mod bare;
mod boots;
mod engine;
mod figure;
mod page_in;

use anyhow::Context;
use figure::Figure;
use std::path::Path;

const RESULTS: &str = "target/bench/results.json";

fn main() -> anyhow::Result<()> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|one| name.contains(one.as_str()));
    let mut figures: Vec<Figure> = Vec::new();
    if is_wanted("scenario-seconds") {
        figures.push(boots::scenario_seconds()?);
    }
    if is_wanted("page-in-ratio") {
        figures.push(page_in::ratio()?);
    }
    figures.extend(boots::linux(is_wanted)?);
    println!("{}", figure::table(&figures));
    let mut rows = figures.iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
    if engine::NAMES.into_iter().any(is_wanted) {
        let engine = engine::rows()?;
        println!("{}", engine::table(&engine));
        rows.extend(engine);
    }
    if let Some(folder) = Path::new(RESULTS).parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let text = serde_json::to_string_pretty(&rows)?;
    std::fs::write(RESULTS, text + "\n").with_context(|| format!("cannot write {RESULTS}"))?;
    println!("written to {RESULTS}");
    Ok(())
}
