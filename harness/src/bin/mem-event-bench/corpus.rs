//! All built-in scenarios against their snapshots, as `mem-event test` runs them.

use crate::figure::Figure;
use crate::qemu;
use anyhow::{Context, ensure};
use serde_json::Value;
use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::time::Instant;

/// What one scenario of a bare-metal guest is to take at most.
const EACH: f64 = 0.4;

/// `mem-event test`: from its start to its last verdict.
pub fn seconds() -> anyhow::Result<Figure> {
    let program = std::env::current_exe()?.with_file_name("mem-event");
    let mut test = Command::new(&program);
    test.args(["test", "--json"]).stderr(Stdio::inherit());
    test.args(qemu::named().into_iter().flat_map(|path| [OsStr::new("--qemu"), path.as_os_str()]));
    let begun = Instant::now();
    let output = test.output().with_context(|| format!("cannot run {}", program.display()))?;
    let took = begun.elapsed().as_secs_f64();
    ensure!(output.status.success(), "mem-event test: {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let all = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let time = |one: &Value| one["seconds"].as_f64().unwrap_or(f64::NAN);
    let name = |one: &Value| format!("{} {:.1} s", one["name"].as_str().unwrap_or_default(), time(one));
    let mut slow: Vec<&Value> = all.iter().filter(|one| time(one) > EACH).collect();
    slow.sort_by(|a, b| time(b).total_cmp(&time(a)));
    let slowest: Vec<String> = slow.iter().take(3).map(|one| name(one)).collect();
    let skipped = all.iter().filter(|one| one["verdict"] == "skip").count();
    let (count, above, slowest) = (all.len(), slow.len(), slowest.join(", "));
    let detail = format!(
        "{count} scenarios, two at a time where there are two cores; {skipped} skipped; {above} took above {EACH} s: {slowest}"
    );
    Ok(Figure { name: "corpus-seconds", value: took, unit: "s", goal: Some(60.0), detail })
}
