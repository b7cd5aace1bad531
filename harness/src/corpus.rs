//! The built-in scenarios, one a built-in guest, and Linux under a paging target.

mod events;

use crate::scenario::{Act, Rule, Scenario, Step, Then};
use mem_event::{AccessType, Layout, Rights};
use mem_event_client::channel::RingSettings;
use std::time::Duration;

/// All of them.
#[must_use]
pub fn all() -> Vec<Scenario> {
    vec![
        events::cpu_events(),
        events::dma(),
        example(),
        events::interrupts(),
        events::modes(),
        events::operands(),
        page_cross(),
        page_fault(),
        page_in(),
        page_touch(),
        events::privilege(),
        read_write(),
        rights(),
        events::self_modify(),
        smp_storm(),
    ]
}

/// The one with this name.
#[must_use]
pub fn find(name: &str) -> Option<Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

fn set(range: &str, access: AccessType) -> Act {
    Act::SetAccess { range: range.into(), access }
}

fn step(at: u64, acts: Vec<Act>) -> Step {
    Step { at, vcpu: None, acts }
}

fn described(guest: &str, about: &str) -> Scenario {
    Scenario { about: about.into(), ..Scenario::bare(guest) }
}

fn with_slots(slots: u32) -> Option<RingSettings> {
    Some(RingSettings { layout: Layout::Flags32, slots })
}

fn example() -> Scenario {
    described("example", "boots and says so; no ring, no event")
}

/// While the vCPU is stopped the listener changes what a read and an addition will see, and looks at what a write has not
/// done yet. The rights after each answer are such that the next kind of access is stopped too.
fn read_write() -> Scenario {
    const PAGE: &str = "WATCHED";
    let rule =
        |rights, acts, then| Rule { rights: Some(rights), range: Some(PAGE.into()), acts, then, ..Rule::default() };
    let write = |offset, value| Act::Write { range: PAGE.into(), offset, value };
    let expect = |offset, value| Act::Expect { range: PAGE.into(), offset, value };
    Scenario {
        access: with_slots(0),
        steps: vec![
            step(1, vec![set(PAGE, AccessType::N)]),
            step(
                2,
                vec![set("TWICE_DATA", AccessType::Wx), set("DATA_A", AccessType::Wx), set("DATA_B", AccessType::Wx)],
            ),
        ],
        rules: vec![
            rule(Rights::R, vec![write(0x10, 0x1122_3344_5566_7788)], Then::Set(AccessType::R)),
            rule(Rights::W, vec![expect(0x20, 0xaaaa_aaaa_aaaa_aaaa)], Then::Set(AccessType::W)),
            rule(Rights::RW, vec![expect(0x30, 0x4000), write(0x30, 0x1000)], Then::Relax),
        ],
        ..described(
            "read_write",
            "before means before: reads, writes and read-modify-writes of a watched page; aliased code",
        )
    }
}

fn page_in() -> Scenario {
    Scenario {
        paging: with_slots(0),
        steps: vec![step(1, vec![Act::PageOut { range: "PAGES".into() }])],
        ..described(
            "page_in",
            "pages filled, paged out at a checkpoint, read again: each is asked for once, and the sum is right",
        )
    }
}

fn page_touch() -> Scenario {
    Scenario {
        paging: with_slots(0),
        steps: vec![step(1, vec![Act::PageOut { range: "TOUCHED".into() }])],
        ..described("page_touch", "256 pages paged out and touched once each, with the time that it takes")
    }
}

fn page_cross() -> Scenario {
    use AccessType::{N, Rwx};
    // `CROSS` names both pages: both are set to the left one's rights, then the right one to its own.
    let watch = |at, left, right| step(at, vec![set("CROSS", left), set("CROSS+0x1000", right)]);
    let watches = [(Rwx, Rwx), (N, Rwx), (Rwx, N), (N, N)];
    let steps = (1..).zip(watches.into_iter().cycle().take(8)).map(|(at, (left, right))| watch(at, left, right));
    Scenario {
        access: with_slots(0),
        steps: steps.collect(),
        ..described("page_cross", "one access over the border of two pages, of which none, either or both are watched")
    }
}

fn page_fault() -> Scenario {
    Scenario {
        access: with_slots(0),
        steps: vec![step(1, vec![set("WATCHED", AccessType::N)])],
        rules: vec![Rule { then: Then::Grant, ..Rule::default() }],
        ..described("page_fault", "a guest's own page fault comes before the violation of the frame behind it")
    }
}

fn rights() -> Scenario {
    let step_for = |at: u64| {
        let bits = u8::try_from(at - 1).unwrap_or(0);
        step(at, vec![set("WATCHED", AccessType::from_number(bits).unwrap_or_default())])
    };
    Scenario {
        access: with_slots(0),
        steps: (1..=8).map(step_for).collect(),
        rules: vec![Rule { then: Then::Grant, ..Rule::default() }],
        ..described("rights", "a read, a write and a fetch under each of the eight combinations of rights")
    }
}

fn smp_storm() -> Scenario {
    Scenario {
        vcpus: 8,
        access: with_slots(4),
        steps: vec![step(1, vec![set("STORM", AccessType::N)])],
        deadline: Duration::from_secs(120),
        ..described(
            "smp_storm",
            "eight vCPUs hit watched pages at once, with four slots: every event is delivered exactly once",
        )
    }
}

/// Linux with a busybox init that fills and verifies files in memory.
#[must_use]
pub fn linux() -> Scenario {
    Scenario {
        memory: 512 << 20,
        deadline: Duration::from_secs(300),
        ..described("linux", "Debian's cloud kernel fills files in memory, verifies them twice, powers off")
    }
}
