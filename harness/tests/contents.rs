//! Contents handed over by shared memory on a real guest: they are there before the answer takes effect, each says what became of it, and
//! a pager that lies about them harms nobody but itself.

use crate::support::{break_and_disable, machine, scenario, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::verdict::{Kind, Verdict};
use mem_event::message::{Call, Notice};
use mem_event::multicall::PLACES;
use mem_event::{Control, Errno, Gfn, P2mType, PAGE_SIZE, Request, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use rustix::event::{PollFd, PollFlags};
use std::collections::HashMap;

/// A guest whose pages are filled and gone, and their contents.
struct PagedOut {
    qemu: Qemu,
    folder: RunFolder,
    channel: Channel,
    toolstack: Client,
    contents: HashMap<Gfn, [u8; PAGE_SIZE]>,
}

fn paged_out() -> PagedOut {
    let (mut qemu, folder, job) = machine(scenario("page_in"));
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Paging, RingSettings::default()).unwrap();
    qemu.qmp.execute("cont").unwrap();
    while !matches!(toolstack.notice().unwrap(), Some(Notice::Checkpoint { .. })) {
        wait_for("the first checkpoint", &toolstack);
    }
    let pages = job.symbols().find("PAGES").unwrap().clone();
    let mut contents = HashMap::new();
    for gfn in (pages.gpa.gfn().0..).take(usize::try_from(pages.size).unwrap() / PAGE_SIZE).map(Gfn) {
        channel.client.control(Control::Nominate { gfn }).unwrap().unwrap();
        let content = channel.client.read(gfn, 0, u16::try_from(PAGE_SIZE).unwrap()).unwrap();
        contents.insert(gfn, content.try_into().unwrap());
        channel.client.control(Control::Evict { gfn }).unwrap().unwrap();
    }
    toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    PagedOut { qemu, folder, channel, toolstack, contents }
}

impl PagedOut {
    /// Serves the guest to its end, which must be a good one: it sums its pages. How many requests there were.
    fn serve(mut self, mut answer: impl FnMut(&mut Channel, &Request, &[u8; PAGE_SIZE])) -> usize {
        let mut requests = 0;
        loop {
            while let Some(request) = self.channel.take() {
                answer(&mut self.channel, &request, &self.contents[&request.frame().unwrap()]);
                requests += 1;
                self.channel.answer(&request.answer());
                self.channel.kick().unwrap();
            }
            let mut waited = [PollFd::new(&self.channel, PollFlags::IN), PollFd::new(&self.toolstack, PollFlags::IN)];
            rustix::event::poll(&mut waited, None).unwrap();
            let heard = !waited[1].revents().is_empty();
            self.channel.clear_signal();
            while heard && let Ok(Some(notice)) = self.toolstack.notice() {
                if let Notice::Checkpoint { vcpu, .. } = notice {
                    self.toolstack.values(&Call::Release { vcpu }).unwrap();
                }
            }
            if self.toolstack.has_ended() {
                break;
            }
        }
        wait_for("the guest's end", &self.qemu);
        self.qemu.wait().unwrap();
        let verdict = Verdict::on_console(&self.qemu.console()).expect("a verdict");
        assert_eq!(verdict.kind, Kind::Success, "{verdict}");
        requests
    }
}

#[test]
fn contents_are_there_before_the_answer_takes_effect() {
    let guest = paged_out();
    let pages = guest.contents.len();
    let mut loads = Vec::new();
    let requests = guest.serve(|channel, request, content| {
        let number = channel.load(request.frame().unwrap(), content).unwrap();
        loads.push(number);
        // That of the request before was taken at its answer: its vCPU would not have come here.
        assert!(loads.iter().rev().skip(1).all(|earlier| channel.became(*earlier) == Some(Ok(()))));
    });
    assert_eq!((requests, loads.len()), (pages, pages));
}

#[test]
fn only_the_first_content_of_a_frame_counts_and_a_frame_that_is_there_takes_none() {
    let guest = paged_out();
    let mut before = Gfn(0);
    guest.serve(|channel, request, content| {
        let right = channel.load(request.frame().unwrap(), content).unwrap();
        let again = channel.load(request.frame().unwrap(), &[0xee; PAGE_SIZE]).unwrap();
        let there = channel.load(std::mem::replace(&mut before, request.frame().unwrap()), &[0xee; PAGE_SIZE]).unwrap();
        let nowhere = channel.load(Gfn(u64::MAX >> 12), &[0xee; PAGE_SIZE]).unwrap();
        // A call on the connection comes after what was handed over.
        channel.client.info().unwrap();
        assert_eq!(channel.became(right), Some(Ok(())));
        assert_eq!(channel.became(again), Some(Ok(())), "ignored, as by Xen where there is a frame");
        assert_eq!(channel.became(there), Some(Err(Errno::ENOENT)));
        assert!(matches!(channel.became(nowhere), Some(Err(_))));
    });
}

#[test]
fn no_more_loads_are_under_way_than_there_are_places() {
    let mut guest = paged_out();
    for number in 0..PLACES {
        assert_eq!(guest.channel.load(Gfn(0), &[0; PAGE_SIZE]), Some(number));
    }
    // Either the engine has taken none yet, or it took all: a vCPU's event may have made it look.
    let next = guest.channel.load(Gfn(0), &[0; PAGE_SIZE]);
    guest.channel.client.info().unwrap();
    assert!(next.is_none() || guest.channel.became(0).is_some());
    assert!(guest.channel.load(Gfn(0), &[0; PAGE_SIZE]).is_some(), "all were taken before the call");
    guest.serve(|channel, request, content| {
        channel.load(request.frame().unwrap(), content).unwrap();
    });
}

#[test]
fn a_count_that_runs_ahead_loads_nothing_and_the_pager_can_go_on() {
    let mut guest = paged_out();
    let gfn = *guest.contents.keys().min().unwrap();
    let number = guest.channel.load(gfn, &[0xee; PAGE_SIZE]).unwrap();
    guest.channel.back().calls(number.wrapping_sub(5));
    guest.channel.client.info().unwrap();
    assert_eq!(guest.channel.became(number), Some(Err(Errno::EINVAL)));
    // It goes by calls from then on.
    guest.serve(|channel, request, content| {
        channel
            .client
            .values(&Call::Load { gfn: request.frame().unwrap(), content: content.as_slice().into() })
            .unwrap();
    });
}

/// They were taken before the calls that the service found waiting, all at once: a call that was sent after a load, while those before it
/// were served, was answered first, and its pager took the content for lost.
#[test]
fn contents_come_before_a_call_that_is_sent_after_them_while_others_are_served() {
    /// Calls that take a while to serve.
    const BEFORE: usize = 4;
    let mut guest = paged_out();
    let client = &mut guest.channel;
    for _ in 0..500 {
        (0..BEFORE).for_each(|_| client.client.send(&Call::Types { first: Gfn(0) }).unwrap());
        let number = client.load(Gfn(0), &[0; PAGE_SIZE]).expect("a place");
        client.client.send(&Call::Info).unwrap();
        (0..=BEFORE).for_each(|_| drop(client.client.reply().unwrap()));
        assert!(client.became(number).is_some(), "the call that was sent after load {number} was answered before it");
    }
    guest.serve(|channel, request, content| {
        channel.load(request.frame().unwrap(), content).unwrap();
    });
}

/// What was handed over behind an old ring's page was loaded, and its content came from one who is not the pager any more.
#[test]
fn a_pager_whose_ring_broke_and_is_anothers_by_now_loads_nothing() {
    let mut guest = paged_out();
    break_and_disable(&mut guest.channel, &mut guest.toolstack);
    let socket = guest.folder.file("socket");
    let successor = Channel::enable(&socket, Ring::Paging, RingSettings::default()).unwrap();
    let mut predecessor = std::mem::replace(&mut guest.channel, successor);
    // The last that the guest will touch.
    let gfn = *guest.contents.keys().max().unwrap();
    let number = predecessor.load(gfn, &[0xee; PAGE_SIZE]).unwrap();
    predecessor.client.info().unwrap();
    assert_eq!(predecessor.became(number), None);
    let types = guest.toolstack.types().unwrap();
    assert_eq!(types[usize::try_from(gfn.0).unwrap()].0, P2mType::RamPaged);
    guest.serve(|channel, request, content| {
        channel.load(request.frame().unwrap(), content).unwrap();
    });
}
