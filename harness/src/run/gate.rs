//! What speaks against the host's MMU as a gate: what a consumer may ask of an event that a vCPU within its block cannot give.

use crate::scenario::{Listening, MemoryAct, Scenario, Then};
use mem_event::{CpuEventKind, Layout, MonitorMode, Rights, Ring};

/// The first reason why `auto` takes the check before instructions for this scenario, if there is one.
#[must_use]
pub fn against_mmu(scenario: &Scenario) -> Option<&'static str> {
    let rules = || scenario.consumers.listener.iter().flat_map(|listener| &listener.rules);
    let external = || scenario.consumers.external.iter();
    let layout = scenario.rings.access.layout.0;
    let looks = |listener: &Listening| !listener.breaks.is_empty() || listener.process;
    if scenario.consumers.listener.iter().any(looks) {
        Some("the listener steps over breaks, or asks each vCPU that it stops for its registers")
    } else if scenario.memory_acts().any(single_steps) {
        Some("the scenario steps vCPUs")
    } else if layout == Layout::VmEvent7 && scenario.needs_gate() {
        Some("requests of vm_event carry all flags, which a vCPU within its block has not")
    } else if !scenario.consumers.xen.is_empty() || external().any(|one| one.rings.is_empty() || one.has(Ring::Access))
    {
        Some("a consumer of its own may step vCPUs or ask for all flags")
    } else if scenario.memory_acts().any(makes_write_only) || rules().any(|rule| sets_write_only(&rule.then)) {
        Some("no mapping can say that a page may be written and not read")
    } else {
        None
    }
}

fn single_steps(act: &MemoryAct) -> bool {
    match act {
        MemoryAct::Monitor { event, mode, .. } => {
            event.0 == CpuEventKind::SingleStep && mode.0 != MonitorMode::Disabled
        }
        MemoryAct::SingleStep { on, .. } => *on,
        _ => false,
    }
}

fn makes_write_only(act: &MemoryAct) -> bool {
    match act {
        MemoryAct::Watch { stop, .. } => is_write_only(stop.0.rights()),
        MemoryAct::SetAccess { access, .. } | MemoryAct::DefaultAccess { access } => is_write_only(access.0.rights()),
        _ => false,
    }
}

fn sets_write_only(then: &Then) -> bool {
    matches!(then, Then::Set(access) if is_write_only(access.0.rights()))
}

fn is_write_only(rights: Rights) -> bool {
    rights.contains(Rights::W) && !rights.contains(Rights::R)
}

#[cfg(test)]
mod tests {
    use super::against_mmu;
    use crate::scenario::external::External;
    use crate::scenario::settings::{Consumer, ListenerSettings, Treatment};
    use crate::scenario::{MemoryAct, Name, Rule, Scenario, Then};
    use mem_event::{AccessType, CpuEventKind, Layout, MonitorMode};

    /// One whose listener watches everything of a page.
    fn plain() -> Scenario {
        let mut scenario = Scenario::bare("page_fault");
        scenario.consumers.listener.get_or_insert_default();
        scenario.start.push(MemoryAct::SetAccess { frames: "0x100".into(), access: Name(AccessType::N) }.into());
        scenario
    }

    fn with(change: impl FnOnce(&mut Scenario)) -> &'static str {
        let mut scenario = plain();
        change(&mut scenario);
        against_mmu(&scenario).unwrap_or_default()
    }

    fn listener(treatment: Treatment) -> Consumer {
        Consumer::Listener(ListenerSettings { treatment, ..ListenerSettings::default() })
    }

    #[test]
    fn nothing_speaks_against_the_hosts_mmu_where_pages_are_only_watched_and_relaxed() {
        assert_eq!(against_mmu(&plain()), None);
        assert_eq!(with(|it| it.consumers.process.push(listener(Treatment::Rearm))), "");
        assert_eq!(with(|it| it.consumers.process.push(listener(Treatment::Once))), "");
        let off = MemoryAct::Monitor {
            event: Name(CpuEventKind::SingleStep),
            mode: Name(MonitorMode::Disabled),
            on_change_only: false,
            ignore: None,
            register: None,
        };
        assert_eq!(with(|it| it.start.push(off.into())), "");
        assert_eq!(with(|it| it.start.push(MemoryAct::SingleStep { vcpu: 0, on: false }.into())), "");
    }

    #[test]
    fn who_steps_wants_all_flags_or_hides_a_page_from_reads_alone_gets_the_check() {
        let on = MemoryAct::Monitor {
            event: Name(CpuEventKind::SingleStep),
            mode: Name(MonitorMode::Sync),
            on_change_only: false,
            ignore: None,
            register: None,
        };
        let stepping = Rule { acts: vec![on], ..Rule::default() };
        let write_only = Rule { then: Then::Set(Name(AccessType::W)), ..Rule::default() };
        let rule = |rule| move |it: &mut Scenario| it.consumers.listener.as_mut().expect("one").rules.push(rule);
        assert!(with(rule(stepping)).contains("steps vCPUs"));
        assert!(with(|it| it.start.push(MemoryAct::SingleStep { vcpu: 0, on: true }.into())).contains("steps vCPUs"));
        assert!(with(|it| it.rings.access.layout = Name(Layout::VmEvent7)).contains("all flags"));
        assert!(with(rule(write_only)).contains("written and not read"));
        assert!(
            with(|it| it.start.push(MemoryAct::DefaultAccess { access: Name(AccessType::Wx) }.into()))
                .contains("written and not read")
        );
    }

    #[test]
    fn a_consumer_of_its_own_speaks_against_it_where_it_may_hold_the_access_ring() {
        let consumer = |text: &str| External::parse(text).expect("a consumer");
        for text in ["access=true", "true"] {
            assert!(with(|it| it.consumers.external.push(consumer(text))).contains("of its own"), "{text}");
        }
        assert_eq!(with(|it| it.consumers.external.push(consumer("paging=true"))), "");
    }
}
