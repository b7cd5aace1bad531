//! What stands on the access ring's page.

use super::live::Live;
use super::scribbler::Scribbler;
use crate::support::storm::Storm;
use mem_event::message::Call;
use mem_event::page::{Index, RingPage};
use mem_event::{AccessType, Control, Layout, Ring};
use mem_event_client::Client;
use mem_event_fuzz::Target;
use rustix::fd::OwnedFd;
use std::sync::atomic::Ordering;

/// A ring of the live domain, and the descriptors that came with it.
struct Held {
    _client: Client,
    page: OwnedFd,
    signal: OwnedFd,
}

/// Ends the ring that is there and begins one of our own; `None` where QEMU is ending.
fn take_ring(storm: &mut Storm) -> Option<Held> {
    // Without a ring nobody would stop the guest.
    storm.qemu.qmp.execute("stop").ok()?;
    // There is none where it ended with its consumer.
    let _ = storm.toolstack.control(Control::Disable { ring: Ring::Access, drain: true }).ok()?;
    let mut client = Client::connect(&storm.socket()).ok()?;
    let enable = Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 4 };
    let [page, _, signal] = client.enable(enable).ok()?;
    storm.set(AccessType::N);
    storm.qemu.qmp.execute("cont").ok()?;
    Some(Held { _client: client, page, signal })
}

#[test]
fn the_ring_page_of_a_live_domain_may_hold_anything() {
    let seeds = vec![
        vec![200, 0, 1, 0, 64, 0, 0, 0, 200, 1, 1, 1, 64, 0, 0, 0],
        vec![8, 0, 1, 0, 112, 3, 9, 0, 64, 0, 0, 0],
        vec![0, 3, 1, 0, 0, 4, 1, 0, 3, 2, 255, 255],
        vec![200, 2, 17, 3, 8, 0, 3, 0, 200, 3, 255, 11, 64, 0, 0, 0],
    ];
    let (mut live, mut scribbler) = (Live::new(), Scribbler::start());
    let (mut held, mut breaks) = (None::<Held>, 0);
    let mut target = Target::new("ring page", seeds, 150);
    target.longest = 64 * 4;
    target.run(|bytes| {
        let (storm, is_new) = live.storm();
        if is_new {
            (held, breaks) = (None, 0);
        }
        if held.is_none() {
            held = take_ring(storm);
            if let Some(held) = &held {
                scribbler.shows(&held.page);
            }
        }
        let Some(ring) = &held else {
            return format!("no ring{}", if live.goes_on() { "" } else { "; another guest" });
        };
        let page = RingPage::map(&ring.page).unwrap();
        let before = page.load(Index::ReqProd, Ordering::Acquire);
        scribbler.writes(bytes, &ring.signal);
        let events = page.load(Index::ReqProd, Ordering::Acquire).wrapping_sub(before).min(40);
        // Takes what the signals did not bring about yet, so that it is this input's.
        let resumed = storm.toolstack.values(&Call::Control(Control::Resume { ring: Ring::Access }));
        let reports = storm.toolstack.vcpus().unwrap_or_default();
        let vcpus: Vec<_> = reports.iter().map(|report| report.state).collect();
        let broken = storm.qemu.errors().matches("the access ring is broken").count();
        let how = if resumed.is_err() {
            "gone"
        } else if broken > breaks {
            "broken"
        } else {
            "stands"
        };
        breaks = broken;
        if how != "stands" {
            held = None;
        }
        let goes_on = live.goes_on();
        format!("{how} {goes_on} {} {vcpus:?}", ".".repeat(usize::try_from(events).unwrap_or(0)))
    });
}
