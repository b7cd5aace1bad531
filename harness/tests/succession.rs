//! A consumer that dies at a step of the protocol, and its successor: what was outstanding goes on, and the guest ends well.

use crate::support::domain::Domain;
use crate::support::wait_for;
use harness::scenario::external::HandedRing;
use harness::scenario::settings::{
    Consumer, Fault, FaultySettings, ListenerSettings, PagerSettings, PagerStep, Treatment,
};
use mem_event::message::{Call, VcpuState};
use mem_event::{Control, Errno, Gfn, P2mType, Ring};
use mem_event_client::{Channel, RingSettings};
use std::path::Path;
use std::time::Duration;

/// One that brings back what is asked for.
fn pager() -> Consumer {
    Consumer::Pager(PagerSettings::default())
}

/// One that goes through all memory, evicts what it finds, and dies when it comes to a step.
fn dying_pager(step: PagerStep) -> Consumer {
    let (evict_every, dies) = (Some(20), Some(step));
    Consumer::Pager(PagerSettings { evict_every, dies, ..PagerSettings::default() })
}

fn listener() -> Consumer {
    Consumer::Listener(ListenerSettings { treatment: Treatment::Grant, ..ListenerSettings::default() })
}

fn faulty(fault: Fault, at: u64) -> Consumer {
    Consumer::Faulty(FaultySettings { fault, at, ..FaultySettings::default() })
}

fn to_its_end(mut domain: Domain) {
    while domain.go_on(Duration::from_secs(1)) {}
    domain.verdict();
}

/// The guest stands at its first checkpoint with its pages filled while the pager dies.
fn a_guest_outlives_a_pager_that_dies_while_it_evicts(step: PagerStep) {
    let mut domain = Domain::of("page_in", None);
    domain.qemu.qmp.execute("cont").unwrap();
    wait_for("the first checkpoint", &domain.toolstack);
    let dying = domain.join(&dying_pager(step)).unwrap();
    wait_for("its death", dying.wait_for().unwrap());
    let _successor = domain.join(&pager()).unwrap();
    let left = |(_, (kind, _)): &(usize, (P2mType, bool))| *kind == P2mType::RamPagingOut;
    let nominated: Vec<_> = domain.toolstack.types().unwrap().into_iter().enumerate().filter(left).collect();
    assert_eq!(nominated, [], "what was on its way out is out");
    to_its_end(domain);
}

#[test]
fn a_guest_outlives_a_pager_that_dies_with_frames_nominated() {
    a_guest_outlives_a_pager_that_dies_while_it_evicts(PagerStep::Nominated);
}

#[test]
fn a_guest_outlives_a_pager_that_dies_with_frames_copied() {
    a_guest_outlives_a_pager_that_dies_while_it_evicts(PagerStep::Kept);
}

#[test]
fn a_guest_outlives_a_pager_that_dies_with_frames_out() {
    a_guest_outlives_a_pager_that_dies_while_it_evicts(PagerStep::Evicted);
}

/// The guest touches pages that the pager has evicted.
fn a_guest_outlives_a_pager_that_dies_while_it_serves(step: PagerStep) {
    let mut domain = Domain::of("page_in", Some("PAGES"));
    domain.qemu.qmp.execute("cont").unwrap();
    wait_for("the first checkpoint", &domain.toolstack);
    let mut dying = domain.join(&dying_pager(step)).unwrap();
    // Until some of its pages are out, it stands there.
    let is_out = |gfn: &Gfn, types: &[(P2mType, bool)]| types[usize::try_from(gfn.0).unwrap()].0 == P2mType::RamPaged;
    loop {
        let types = domain.toolstack.types().unwrap();
        if domain.watched.iter().any(|gfn| is_out(gfn, &types)) {
            break;
        }
        domain.is_no_hang();
    }
    domain.watched.clear();
    domain.go_on_until_death_of(&mut dying);
    let _successor = domain.join(&pager()).unwrap();
    to_its_end(domain);
}

#[test]
fn a_guest_outlives_a_pager_that_dies_between_take_and_answer() {
    a_guest_outlives_a_pager_that_dies_while_it_serves(PagerStep::Taken);
}

#[test]
fn a_guest_outlives_a_pager_that_dies_between_load_and_answer() {
    a_guest_outlives_a_pager_that_dies_while_it_serves(PagerStep::Loaded);
}

#[test]
fn a_guest_outlives_a_pager_that_dies_between_answer_and_signal() {
    a_guest_outlives_a_pager_that_dies_while_it_serves(PagerStep::Answered);
}

#[test]
fn a_guest_outlives_a_listener_that_dies_between_answer_and_signal() {
    let mut domain = Domain::of("page_in", Some("PAGES"));
    let mut dying = domain.join(&faulty(Fault::DyingAnswered, 3)).unwrap();
    domain.qemu.qmp.execute("cont").unwrap();
    domain.go_on_until_death_of(&mut dying);
    let _successor = domain.join(&listener()).unwrap();
    to_its_end(domain);
}

#[test]
fn what_a_listener_had_mapped_when_it_died_can_be_paged_out() {
    let mut domain = Domain::of("page_in", Some("PAGES"));
    let _pager = domain.join(&pager()).unwrap();
    let mut dying = domain.join(&faulty(Fault::DyingMapped, 3)).unwrap();
    domain.qemu.qmp.execute("cont").unwrap();
    domain.go_on_until_death_of(&mut dying);
    // The successor joins when the plugin has seen the end of the one before, and with it of its mappings.
    let _successor = domain.join(&listener()).unwrap();
    let third = domain.watched[2];
    let nominated = domain.toolstack.control(Control::Nominate { gfn: third }).unwrap();
    assert!(!matches!(nominated, Err((Errno::EBUSY, _))), "frame {third} is still mapped: {nominated:?}");
    to_its_end(domain);
}

#[test]
fn those_who_wait_for_slots_and_answers_when_a_listener_dies_all_go_on() {
    let mut domain = Domain::of("smp_storm", Some("STORM"));
    let mut few = faulty(Fault::Silent, 1).external(Path::new(env!("CARGO_BIN_EXE_mem-event"))).unwrap();
    few.rings = vec![HandedRing { ring: Ring::Access, layout: Some(mem_event::Layout::Flags32), slots: 4 }];
    let mut silent = domain.join_as(&few).unwrap();
    domain.qemu.qmp.execute("cont").unwrap();
    let waiting = |domain: &mut Domain, wanted| {
        domain.toolstack.vcpus().unwrap().iter().filter(|report| report.state == wanted).count()
    };
    while waiting(&mut domain, VcpuState::Slot) < 4 {
        assert!(domain.go_on(Duration::from_millis(1)), "nobody waits");
    }
    silent.kill();
    // A ring that has lost its consumer hands no slots out: who had none waits for a consumer.
    while waiting(&mut domain, VcpuState::Consumer) < 4 {
        assert!(domain.go_on(Duration::from_millis(1)), "nobody waits");
    }
    assert_eq!(waiting(&mut domain, VcpuState::Answer), 4, "requests that nobody answered are kept");
    let _successor = domain.join(&listener()).unwrap();
    to_its_end(domain);
}

/// A peer that ends with replies unread makes the next read of its socket an error; what it had sent is there all the same.
#[test]
fn what_a_pager_asked_for_before_it_died_is_done() {
    let mut domain = Domain::of("page_in", None);
    let first = Gfn(0x500);
    let socket = domain.folder.file("socket");
    let mut hasty = Channel::enable(&socket, Ring::Paging, RingSettings::default()).unwrap();
    domain.qemu.qmp.execute("cont").unwrap();
    wait_for("the first checkpoint", &domain.toolstack);
    let content = hasty.client.read(first, 0, 4096).unwrap();
    hasty.client.send(&Call::Info).unwrap();
    wait_for("a reply that it does not read", &hasty.client);
    // Work for some time: what comes last is still to be read when it dies.
    for _ in 0..30 {
        hasty.client.send(&Call::Types { first: Gfn(0) }).unwrap();
    }
    hasty.client.send(&Call::Control(Control::Nominate { gfn: first })).unwrap();
    hasty.client.send(&Call::Control(Control::Evict { gfn: first })).unwrap();
    drop(hasty);
    // Refused where the frame is not out.
    let _knowing = domain.load_by_hand(first, content);
    to_its_end(domain);
}

#[test]
fn a_successor_without_the_page_file_names_what_is_lost_and_harms_nothing() {
    let mut domain = Domain::of("page_in", None);
    let first = Gfn(0x500);
    let socket = domain.folder.file("socket");
    let mut careless = Channel::enable(&socket, Ring::Paging, RingSettings::default()).unwrap();
    domain.qemu.qmp.execute("cont").unwrap();
    wait_for("the first checkpoint", &domain.toolstack);
    careless.client.control(Control::Nominate { gfn: first }).unwrap().unwrap();
    let content = careless.client.read(first, 0, 4096).unwrap();
    careless.client.control(Control::Evict { gfn: first }).unwrap().unwrap();
    drop(careless);
    let said = domain.folder.file("said");
    let mut external = pager().external(Path::new(env!("CARGO_BIN_EXE_mem-event"))).unwrap();
    external.command += &format!(" 2>{}", said.display());
    let mut successor = domain.join_as(&external).unwrap();
    assert!(domain.go_on(Duration::from_millis(1)));
    crate::support::file_holds(
        &said,
        "frame 0x500 cannot be brought back: its content went with a pager that handed no page file",
    );
    successor.kill();
    // Whoever has the content brings it back.
    let _knowing = domain.load_by_hand(first, content);
    to_its_end(domain);
}
