//! What xen-access prints in each of its modes on one guest, with the binaries of each release, against what was accepted. Addresses and frames
//! are of one build of the guest, so they are told as `#`.

use crate::support::xen::{Domain, releases};
use mem_event::{AccessType, CpuEventKind, MonitorMode};
use mem_event_client::Client;
use std::collections::BTreeSet;

/// The words after which an address, an offset or a frame stands.
const ADDRESSES: [&str; 7] = ["GFN", "(offset", "gla", "rip=", "gfn=", "max_gpfn = ", "gfn "];

/// How lines begin of which each kind is told once: how many there are, and in which order, is of one build too.
const ONCE: [&str; 3] = ["PAGE ACCESS: ", "Singlestep: ", "\tSwitching "];

/// A line without what is of one build.
fn plain(line: &str) -> String {
    let mut plain = line.to_owned();
    for word in ADDRESSES {
        let Some(at) = plain.find(word) else { continue };
        let from = at + word.len();
        let digits = |text: &str| text.chars().take_while(|letter| letter.is_ascii_hexdigit()).count();
        let spaces = plain[from..].len() - plain[from..].trim_start_matches([' ', 'x']).len();
        let start = from + spaces;
        let end = start + digits(&plain[start..]);
        if end > start {
            plain.replace_range(start..end, "#");
        }
    }
    plain
}

/// The text without what is of one build. Which pages are touched, and in which order, is of one build too, so of accesses each kind is
/// told once; of the tool's other lines those that come
/// again in a row.
fn plainly(text: &str) -> String {
    // The tool says so before some events or before each, as they come; where views are switched it is nearly each.
    let is_once = |line: &String| {
        ONCE.iter().any(|start| line.starts_with(start))
            || line == "Got event from Xen" && text.contains("starting altp2m")
    };
    // 4.17 alone sets the rights of each frame of its view; 4.20 goes by the view's default.
    let text = text.lines().filter(|line| !line.starts_with("Setting altp2m ")).collect::<Vec<_>>().join("\n");
    let (accesses, mut rest): (Vec<String>, Vec<String>) = text.lines().map(plain).partition(is_once);
    rest.dedup_by(|next, line| next == line && !line.starts_with("mem-event xen:"));
    let accesses: BTreeSet<String> = accesses.into_iter().collect();
    accesses.into_iter().chain(rest).collect::<Vec<_>>().join("\n")
}

/// Whether a mode's events are asked for.
fn is_ready(mode: &str, domain: &mut Client, last: mem_event::Gfn) -> bool {
    let reports = |domain: &mut Client, kind| {
        let monitors = domain.monitors().unwrap();
        monitors.iter().any(|monitor| monitor.kind == kind && monitor.mode == MonitorMode::Sync)
    };
    match mode {
        "write" => domain.access(last).unwrap() == AccessType::Rx,
        "exec" => domain.access(last).unwrap() == AccessType::Rw,
        "breakpoint" => reports(domain, CpuEventKind::Int3),
        "cpuid" => reports(domain, CpuEventKind::Cpuid),
        "debug" => reports(domain, CpuEventKind::Debug),
        "desc_access" => reports(domain, CpuEventKind::Descriptor),
        // What it does last before it serves its ring.
        "altp2m_write" | "altp2m_exec" => reports(domain, CpuEventKind::SingleStep),
        _ => reports(domain, CpuEventKind::Cr4),
    }
}

fn prints(mode: &str) {
    for release in releases("xen-access") {
        // The guest, and its last checkpoint.
        let (guest, end) = match mode {
            "cpuid" | "desc_access" => ("exits", 5),
            "debug" => ("debug_trap", 5),
            // Each instruction of it is an event.
            "altp2m_exec" => ("cpu_events", 2),
            _ => ("cpu_events", 7),
        };
        let mut domain = Domain::start(guest);
        let last = domain.last_frame();
        let mut tool = domain.tool("xen-access", &release, &["1", mode]);
        domain.until(&mut tool, |toolstack| is_ready(mode, toolstack, last));
        domain.run_to(end);
        // Its last calls are to end single steps of 32 vCPUs, of which most are not there: what that one says is how it ends, as on Xen.
        let text = tool.interrupted(if mode.starts_with("altp2m") { -1 } else { 0 });
        domain.is_left_alone();
        domain.ends_well();
        insta::with_settings!({
            snapshot_path => "xen_access",
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!(mode, plainly(&text)) });
    }
}

macro_rules! modes {
    ($($mode:ident),+) => {$(
        #[test]
        fn $mode() {
            prints(stringify!($mode));
        }
    )+};
}

modes! { write, exec, breakpoint, write_ctrlreg_cr4, altp2m_write, altp2m_exec, debug, cpuid, desc_access }
