//! The page's tables: who waited for whom, and the longest waits.

use super::words::{class, instruction, place, whom};
use crate::output::escaped;
use crate::trace::export::timeline::{Timeline, Waited};
use crate::trace::row::duration;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Waits in the table.
const LISTED: usize = 25;

#[derive(Default)]
struct Sum {
    total: u64,
    count: u64,
    longest: u64,
    class: &'static str,
}

fn sums(timeline: &Timeline) -> Vec<((u32, String), Sum)> {
    let mut sums: BTreeMap<(u32, String), Sum> = BTreeMap::new();
    for Waited { wait, .. } in &timeline.waits {
        let sum = sums.entry((wait.vcpu, wait.whom())).or_default();
        let length = wait.length(timeline.last);
        (sum.total, sum.count) = (sum.total + length, sum.count + 1);
        sum.longest = sum.longest.max(length);
        if sum.class != "endless" {
            sum.class = class(wait);
        }
    }
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(_, sum)| (sum.class != "endless", std::cmp::Reverse(sum.total)));
    sums
}

/// Who waited for whom.
pub(super) fn who(timeline: &Timeline) -> String {
    let sums = sums(timeline);
    let most = sums.iter().map(|(_, sum)| sum.total).max().unwrap_or(1).max(1);
    let mut text = "<h2>Which vCPU waited, for what, how long</h2>\n<div class=\"wide\"><table><tr><th>vCPU<th>for<th class=\"number\">times\
                    <th class=\"number\">in all<th class=\"number\">longest<th style=\"width:30%\"></tr>\n"
        .to_owned();
    for ((vcpu, whom), sum) in &sums {
        let _ = writeln!(
            text,
            "<tr><td>vCPU {vcpu}<td>{}<td class=\"number\">{}<td class=\"number\">{}<td class=\"number\">{}\
             <td><span class=\"bar {}\" style=\"width:{:.1}%\"></span></tr>",
            escaped(whom),
            sum.count,
            duration(sum.total),
            duration(sum.longest),
            sum.class,
            sum.total as f64 * 100.0 / most as f64
        );
    }
    text + "</table></div>\n"
}

/// Those that did not end, and then the longest.
pub(super) fn longest(timeline: &Timeline, waits: &[&Waited]) -> String {
    let mut text = "<h2>The longest waits</h2>\n<div class=\"wide\"><table><tr><th class=\"number\">how long<th class=\"number\">at<th>who\
                    <th>for<th>frame<th>instruction<th class=\"number\">steps</tr>\n"
        .to_owned();
    for Waited { wait, .. } in waits.iter().take(LISTED) {
        let end = wait.end.map_or_else(|| "never ended".to_owned(), |(step, _)| step.to_string());
        let bad = if wait.end.is_none() { " class=\"bad\"" } else { "" };
        let _ = writeln!(
            text,
            "<tr{bad}><td class=\"number\">{}<td class=\"number\">{}<td>vCPU {}<td>{}<td>{}<td>{}<td class=\"number\">{} – {end}</tr>",
            duration(wait.length(timeline.last)),
            duration(wait.begin),
            wait.vcpu,
            escaped(&whom(wait)),
            escaped(&place(wait, timeline)),
            instruction(wait, timeline),
            wait.step
        );
    }
    text + "</table></div>\n"
}
