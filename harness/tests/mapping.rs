//! Foreign mappings on a real guest: a frame that is paged out comes back first, stays while it is mapped, and is free again when
//! the mapping, or whoever had it, is gone.

use crate::support::{machine, run, scenario, wait_for};
use harness::scenario::{Act, At, ConsumerAct, MemoryAct, Scenario, ScenarioStep};
use mem_event::message::{Call, Notice};
use mem_event::{Control, Errno, Gfn, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};

fn step(at: u64, acts: Vec<Act>) -> ScenarioStep {
    ScenarioStep { at: At::Number(at), vcpu: None, acts }
}

#[test]
fn a_paged_out_frame_is_mapped_after_its_page_in_and_stays_until_it_is_unmapped() {
    const FIRST: &str = "PAGES";
    let out = || -> Act { ConsumerAct::PageOut { frames: FIRST.into() }.into() };
    let map = || -> Act { ConsumerAct::Map { frames: "0x500".into() }.into() };
    let unmap = || -> Act { MemoryAct::Unmap { frames: "0x500".into() }.into() };
    let acts = vec![out(), map(), out(), map(), unmap(), out(), unmap(), out()];
    let (_, sequence) = run(Scenario { steps: vec![step(1, acts)], ..scenario("page_in") });
    let lines: Vec<&str> = sequence.lines().collect();
    assert_eq!(lines[0], "paging  vcpu 0  gfn 0x500 PAGES  p2m_ram_paged  FOREIGN -> load, answer");
    let done = "page out 64 of 64 frames of PAGES, map 0x500, page out 0 of 64 frames of PAGES, map 0x500, \
                unmap 0x500, page out 0 of 64 frames of PAGES, unmap 0x500, page out 1 of 64 frames of PAGES";
    assert_eq!(lines[1], format!("checkpoint 1  vcpu 0  -> {done}"));
    assert_eq!(lines.len(), 2 + 64 + 1, "each page is asked for by the guest once:\n{sequence}");
}

/// The `page_in` guest at its first checkpoint, its pages filled, with a paging ring and another connection.
fn filled() -> (harness::machine::process::Qemu, harness::machine::folder::RunFolder, Channel, Client) {
    let (mut qemu, folder, _) = machine(scenario("page_in"));
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let channel = Channel::enable(&folder.file("socket"), Ring::Paging, RingSettings::default()).unwrap();
    qemu.qmp.execute("cont").unwrap();
    loop {
        wait_for("the first checkpoint", &toolstack);
        if let Some(Notice::Checkpoint { vcpu, .. }) = toolstack.notice().unwrap() {
            assert_eq!(vcpu, VcpuId(0));
            return (qemu, folder, channel, toolstack);
        }
    }
}

const PAGE: Gfn = Gfn(0x500);

#[test]
fn a_mapped_frame_is_not_nominated_and_may_be_read_and_written() {
    let (_qemu, folder, mut channel, _toolstack) = filled();
    let mut mapper = Client::connect(&folder.file("socket")).unwrap();
    assert!(mapper.pin(PAGE).unwrap());
    let nominate = || Control::Nominate { gfn: PAGE };
    assert_eq!(channel.client.control(nominate()).unwrap().unwrap_err().0, Errno::EBUSY);
    let bytes = b"written by a mapper".to_vec();
    mapper.values(&Call::WriteFrame { gfn: PAGE, offset: 8, bytes: bytes.clone() }).unwrap();
    assert_eq!(mapper.read(PAGE, 8, 19).unwrap(), bytes);
    mapper.values(&Call::Control(Control::Unpin { gfn: PAGE })).unwrap();
    channel.client.control(nominate()).unwrap().unwrap();
}

#[test]
fn a_frame_mapped_between_nominate_and_evict_is_not_evicted() {
    let (_qemu, folder, mut channel, _toolstack) = filled();
    let mut mapper = Client::connect(&folder.file("socket")).unwrap();
    channel.client.control(Control::Nominate { gfn: PAGE }).unwrap().unwrap();
    assert!(mapper.pin(PAGE).unwrap());
    assert_eq!(channel.client.control(Control::Evict { gfn: PAGE }).unwrap().unwrap_err().0, Errno::EBUSY);
    assert_eq!(mapper.read(PAGE, 0, 8).unwrap().len(), 8);
}

#[test]
fn the_mappings_of_a_consumer_that_dies_are_gone_with_it() {
    let (_qemu, folder, mut channel, _toolstack) = filled();
    let mut mapper = Client::connect(&folder.file("socket")).unwrap();
    assert!(mapper.pin(PAGE).unwrap() && mapper.pin(PAGE).unwrap());
    drop(mapper);
    // The plugin serves its clients in the order in which they came, so the first call of a later one comes after the end.
    let mut later = Client::connect(&folder.file("socket")).unwrap();
    later.info().unwrap();
    channel.client.control(Control::Nominate { gfn: PAGE }).unwrap().unwrap();
    channel.client.control(Control::Evict { gfn: PAGE }).unwrap().unwrap();
}

#[test]
fn what_a_connection_has_not_mapped_it_cannot_unmap() {
    let (_qemu, folder, mut channel, _toolstack) = filled();
    let mut mapper = Client::connect(&folder.file("socket")).unwrap();
    assert!(mapper.pin(PAGE).unwrap());
    assert_eq!(channel.client.control(Control::Unpin { gfn: PAGE }).unwrap().unwrap_err().0, Errno::EINVAL);
    assert_eq!(channel.client.control(Control::Nominate { gfn: PAGE }).unwrap().unwrap_err().0, Errno::EBUSY);
}

#[test]
fn a_paged_out_frame_is_busy_until_its_pager_has_answered() {
    let (_qemu, folder, mut channel, _toolstack) = filled();
    let mut mapper = Client::connect(&folder.file("socket")).unwrap();
    channel.client.control(Control::Nominate { gfn: PAGE }).unwrap().unwrap();
    let content = channel.client.read(PAGE, 0, 4096).unwrap();
    channel.client.control(Control::Evict { gfn: PAGE }).unwrap().unwrap();
    assert_eq!(mapper.control(Control::Pin { gfn: PAGE }).unwrap().unwrap_err().0, Errno::ENOENT);
    assert_eq!(mapper.control(Control::Pin { gfn: PAGE }).unwrap().unwrap_err().0, Errno::ENOENT);
    let request = channel.take().expect("one request for both");
    assert!(channel.take().is_none());
    channel.client.values(&Call::Load { gfn: PAGE, content: content.clone().into() }).unwrap();
    channel.answer(&request.answer());
    channel.client.control(Control::Resume { ring: Ring::Paging }).unwrap().unwrap();
    assert!(mapper.pin(PAGE).unwrap());
    assert_eq!(mapper.read(PAGE, 0, 4096).unwrap(), content);
}
