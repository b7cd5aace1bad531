//! What stands behind the paging ring's page: contents, whose they are, how many there are.

use super::live::Live;
use super::scribbler::Scribbler;
use crate::support::storm::Storm;
use mem_event::message::{Call, frame_of_byte};
use mem_event::multicall::{Multicall, PLACES};
use mem_event::{AccessType, Control, Gfn, Layout, PAGE_SIZE, Ring};
use mem_event_client::Client;
use mem_event_fuzz::Target;
use rustix::fd::OwnedFd;
use std::collections::BTreeSet;

/// The page that three vCPUs use without end, whatever it holds; the fourth waits for an answer that does not come.
fn used(storm: &mut Storm) -> Gfn {
    storm.set_of("RACED", AccessType::Rwx);
    storm.frame("RACED")
}

/// The paging ring on this connection, anew, and the frame gone; `None` where no vCPU has used it yet, or QEMU is ending.
fn take_ring(storm: &mut Storm, pager: &mut Client, gfn: Gfn) -> Option<[OwnedFd; 3]> {
    let descriptors = pager.enable(Control::Enable { ring: Ring::Paging, layout: Layout::Flags32, slots: 4 }).ok()?;
    // Whoever touches a frame that is nominated brings it back.
    storm.qemu.qmp.execute("stop").ok()?;
    let gone = [Control::Nominate { gfn }, Control::Evict { gfn }].map(|control| pager.control(control));
    storm.qemu.qmp.execute("cont").ok()?;
    gone.into_iter().all(|done| done.is_ok_and(|done| done.is_ok())).then_some(descriptors)
}

/// The frame comes back, and the ring ends; false where QEMU is ending.
fn give_back(pager: &mut Client, gfn: Gfn) -> bool {
    // It may be there: what was handed over is as good a content as this.
    let load = pager.call(&Call::Load { gfn, content: vec![0; PAGE_SIZE].into() });
    load.is_ok() && pager.control(Control::Disable { ring: Ring::Paging, drain: false }).is_ok()
}

/// What became of the contents in words: all that any place says.
fn results(page: &OwnedFd) -> String {
    let contents = Multicall::map(page, Ring::Paging).unwrap();
    let results: BTreeSet<String> = (0..PLACES).map(|number| format!("{:?}", contents.result(number))).collect();
    results.into_iter().collect::<Vec<_>>().join(" ")
}

/// Words that a run puts in: the frame, and counts that run on by one.
fn words(gfn: Gfn) -> Vec<Vec<u8>> {
    let [low, high, ..] = gfn.0.to_le_bytes();
    vec![vec![1, 0, low, high], vec![129, 0, 1, 0], vec![65, 0, 0, 0]]
}

#[test]
fn the_contents_behind_a_live_paging_rings_page_may_be_anything() {
    let (mut live, mut scribbler) = (Live::new(), Scribbler::start());
    let gfn = used(live.storm().0);
    let [low, high, ..] = gfn.0.to_le_bytes();
    let seeds = vec![
        // A content, its count, an answer to what is asked; twice the same; one of no frame; a count that runs ahead.
        vec![1, 0, low, high, 129, 0, 1, 0, 64, 0, 0, 0],
        vec![1, 0, low, high, 1, 1, low, high, 129, 0, 2, 0, 64, 0, 0, 0],
        vec![1, 0, 0, 255, 129, 0, 1, 0, 9, 1, 3, 200],
        vec![209, 3, 255, 255, 217, 0, 1, 0, 8, 0, 3, 0],
    ];
    let mut target = Target::new("contents", seeds, 150);
    (target.words, target.longest) = (words(gfn), 64 * 4);
    let mut pager = None;
    target.run(|bytes| {
        let (storm, is_new) = live.storm();
        if is_new {
            pager = None;
            assert_eq!(used(storm), gfn, "the same guest has the same pages");
        }
        let Some(client) = pager.take().or_else(|| Client::connect(&storm.socket()).ok()) else {
            return format!("no connection {}", live.goes_on());
        };
        let client = pager.insert(client);
        let Some([page, _, signal]) = take_ring(storm, client, gfn) else {
            let there = give_back(client, gfn);
            return format!("no ring {there} {}", live.goes_on());
        };
        scribbler.shows(&page);
        scribbler.writes(bytes, &signal);
        // Contents that nobody answered for are taken before this call.
        let types = client.bytes(&Call::Types { first: gfn });
        let kind = types.ok().and_then(|types| frame_of_byte(types[0]));
        let reports = storm.toolstack.vcpus().unwrap_or_default();
        let vcpus: Vec<_> = reports.iter().map(|report| report.state).collect();
        let said = results(&page);
        let there = give_back(client, gfn);
        let goes_on = live.goes_on();
        format!("{there} {goes_on} {kind:?} {vcpus:?} {said}")
    });
}
