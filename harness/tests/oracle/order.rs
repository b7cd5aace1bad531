//! Each vCPU's own order: the values that a vCPU writes to CR3 are told one after the other, none twice and none left out.

use std::collections::BTreeMap;

/// Where a vCPU's requests are not in its order, from what the interpreter printed. Between two lines that take requests without naming
/// them, or that turn events on or off, nothing is left out.
pub fn breaks(printed: &str) -> Vec<String> {
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    let mut found = Vec::new();
    for line in printed.lines().map(|line| line.trim_start_matches(['|', ' '])) {
        let new = match line.split(':').next().unwrap_or_default() {
            "look" => line,
            word if word.starts_with("step ") || word.starts_with("ansk ") || word == "steal" => {
                line.split_once("new:").map_or("", |(_, new)| new)
            }
            word if word.starts_with("flags")
                || word.starts_with('v')
                || word.starts_with('#')
                || word.starts_with("ring") =>
            {
                ""
            }
            _ => {
                last.clear();
                ""
            }
        };
        for (vcpu, value) in new.split_whitespace().filter_map(written) {
            // A vCPU counts to 0xfff, and begins again with 0.
            if last.insert(vcpu, value).is_some_and(|before| (before + 1) & 0xfff != value) {
                found.push(format!("vCPU {vcpu}'s {value:#x} in: {line}"));
            }
        }
    }
    found
}

/// The vCPU and its count of `v3:3001000/0`.
fn written(word: &str) -> Option<(u64, u64)> {
    let (value, rest) = word.split_once(':')?.1.split_once('/')?;
    let value = u64::from_str_radix(value, 16).ok()?;
    // A frame's number is no value that is written to CR3.
    (!rest.contains('/')).then_some((value >> 24, value >> 12 & 0xfff))
}
