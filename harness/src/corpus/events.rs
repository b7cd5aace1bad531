//! The scenarios that go through the kinds of events, each with a guest of its own.

use super::{described, set, step, with_slots};
use crate::scenario::{Act, Rule, Scenario, Then};
use mem_event::{AccessType, CpuEventKind, MonitorMode, Reason, VcpuId};

/// Each case begins with no right on either symbol's pages and takes what it needs, access by access.
pub(super) fn operands() -> Scenario {
    Scenario {
        cpu: Some("max".into()),
        access: with_slots(0),
        steps: vec![
            step(1, vec![set("SOURCE", AccessType::N), set("WATCHED", AccessType::N)]),
            step(2, vec![set("SOURCE", AccessType::Rwx), set("WATCHED", AccessType::Rwx)]),
        ],
        rules: vec![Rule { then: Then::Grant, ..Rule::default() }],
        ..described("operands", "every kind of memory operand: which addresses, which rights, in which order")
    }
}

/// The modes by the checkpoint's number. Breakpoints and steps have no old value, so "changes only" is not for them.
pub(super) fn cpu_events() -> Scenario {
    let monitor = |kind, mode, on_change_only| Act::Monitor { kind, mode, on_change_only };
    let all = |mode, on_change_only| {
        let kinds = CpuEventKind::ALL.into_iter().filter(|kind| *kind != CpuEventKind::SingleStep);
        kinds.map(|kind| monitor(kind, mode, on_change_only && kind != CpuEventKind::Int3)).collect()
    };
    let single_step = |on| Act::SingleStep { vcpu: VcpuId(0), on };
    let steps_sync = monitor(CpuEventKind::SingleStep, MonitorMode::Sync, false);
    let steps_off = monitor(CpuEventKind::SingleStep, MonitorMode::Disabled, false);
    let on_read =
        |page: &str, acts| Rule { range: Some(page.into()), reason: Some(Reason::Violation), acts, ..Rule::default() };
    Scenario {
        access: with_slots(0),
        steps: vec![
            step(1, all(MonitorMode::Disabled, false)),
            step(2, all(MonitorMode::Async, false)),
            step(3, all(MonitorMode::Sync, false)),
            step(4, all(MonitorMode::Sync, true)),
            step(5, vec![set("STEP_A", AccessType::N), steps_sync.clone()]),
            step(6, vec![set("STEP_B", AccessType::N), steps_off.clone()]),
            step(7, vec![steps_off]),
        ],
        rules: vec![
            on_read("STEP_A", vec![single_step(true)]),
            on_read("STEP_B", vec![steps_sync, single_step(true)]),
            Rule {
                range: Some("steps_end".into()),
                reason: Some(Reason::SingleStep),
                acts: vec![single_step(false)],
                ..Rule::default()
            },
        ],
        ..described("cpu_events", "control registers, model-specific registers, breakpoints and steps, in each mode")
    }
}

/// Each case begins with no right on the pages that it names by its number.
pub(super) fn interrupts() -> Scenario {
    let watch = |at, range| step(at, vec![set(range, AccessType::N)]);
    Scenario {
        access: with_slots(0),
        steps: vec![
            watch(1, "STACK"),
            watch(2, "IDT"),
            watch(3, "TSS"),
            watch(4, "GDT"),
            watch(5, "TABLE"),
            step(6, Vec::new()),
        ],
        rules: vec![Rule { then: Then::Grant, ..Rule::default() }],
        ..described("interrupts", "what the processor touches by itself: stacks, descriptors, page tables")
    }
}

/// Code that is rewritten through another address, loses its right to run, or reaches into a page without it.
pub(super) fn self_modify() -> Scenario {
    Scenario {
        access: with_slots(0),
        steps: vec![
            step(1, vec![set("CODE", AccessType::Rx)]),
            step(2, vec![set("CODE", AccessType::Rw)]),
            step(3, vec![set("REACHES+0x1000", AccessType::Rw)]),
            step(4, vec![set("DATA", AccessType::N)]),
            step(5, Vec::new()),
        ],
        rules: vec![
            Rule { range: Some("DATA".into()), acts: vec![set("CODE", AccessType::Rw)], ..Rule::default() },
            Rule { then: Then::Grant, ..Rule::default() },
        ],
        ..described("self_modify", "code rewritten through another address, code without the right to run")
    }
}

/// A device writes into frames that are watched, and into frames that are paged out.
pub(super) fn dma() -> Scenario {
    Scenario {
        access: with_slots(0),
        paging: with_slots(0),
        steps: vec![
            // The descriptor's page makes no event; it is watched all the time so that instructions are.
            step(1, vec![set("WATCHED", AccessType::N), set("DESCRIPTOR", AccessType::Rw)]),
            step(2, vec![Act::PageOut { range: "PAGED".into() }]),
            step(3, Vec::new()),
        ],
        ..described("dma", "a device writes into a watched page and into a paged-out one")
    }
}

/// Before each mode the pages are watched anew.
pub(super) fn modes() -> Scenario {
    Scenario {
        access: with_slots(0),
        steps: vec![step(1, vec![set("0x20..0x28", AccessType::N)]), step(2, vec![set("0x20..0x28", AccessType::Rwx)])],
        rules: vec![Rule { then: Then::Grant, ..Rule::default() }],
        ..described(
            "modes",
            "real mode, 32-bit code without paging, compatibility mode: addresses by segments, wrapped, on watched pages",
        )
    }
}

/// Before each case the page is watched anew, whoever may use it by the guest's own tables.
pub(super) fn privilege() -> Scenario {
    Scenario {
        cpu: Some("max".into()),
        access: with_slots(0),
        steps: vec![step(1, vec![set("WATCHED", AccessType::N)]), step(2, vec![set("WATCHED", AccessType::Rwx)])],
        rules: vec![Rule { then: Then::Grant, ..Rule::default() }],
        ..described("privilege", "ring 3, read-only pages, SMAP, SMEP, no-execute: the guest's page fault comes first")
    }
}
