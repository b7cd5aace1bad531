//! The engine's own benches, which print a JSON object a line: run here so that one file holds all results.

use anyhow::{Context, ensure};
use serde_json::Value;
use std::process::{Command, Stdio};

/// The rows that they print.
pub const NAMES: [&str; 9] = [
    "engine-events-per-second",
    "p2m-check-ns",
    "ring-events-per-second",
    "engine-vs-c",
    "engine-two-threads",
    "engine-round-trip-ns",
    "replay-steps-per-second",
    "seek-ms",
    "record-ns-per-step",
];

/// Runs `cargo bench` on the engine.
///
/// # Errors
/// No cargo, or a bench that fails.
pub fn rows() -> anyhow::Result<Vec<Value>> {
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "-q", "--locked", "-p", "mem-event"]).stderr(Stdio::inherit());
    let output = cargo.output().context("cannot run cargo bench; the engine's figures need cargo and the source")?;
    ensure!(output.status.success(), "cargo bench of the engine: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| line.starts_with('{'));
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("not a row: {line}"))).collect()
}

/// The rows as a table.
pub fn table(rows: &[Value]) -> String {
    let field = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let mut text = String::new();
    for row in rows {
        let value = row["value"].as_f64().map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"));
        let [name, unit, goal, detail] = ["name", "unit", "goal", "detail"].map(|name| field(row, name));
        text += &format!("{name:<27} {value:>14} {goal:>12}  {unit:<20} {detail}\n");
    }
    text
}
