//! The shared ring page, held against Xen's ABI and against consumers that do not keep to it.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may stop, and cuts numbers on purpose"
)]

use mem_event::page::{HEADER, Index};
use mem_event::taken::{self, Taken};
use mem_event::{Back, Event, Flags, Front, Gfn, Gla, Layout, PAGE_SIZE, Request, Rights, Ring, RingPage, VcpuId};
use std::sync::atomic::Ordering;

const LAYOUTS: [Layout; 3] = [Layout::Flags16, Layout::Flags32, Layout::VmEvent7];

fn request(number: u64) -> Request {
    Request {
        flags: Flags::VCPU_PAUSED,
        vcpu: VcpuId(3),
        event: Event::Violation {
            gfn: Gfn(number),
            offset: 0x7f8,
            gla: Some(Gla(!number)),
            rights: Rights::W,
            in_gpt: false,
        },
        view: mem_event::ViewId::HOST,
    }
}

fn pair(layout: Layout, slots: u32) -> (Front, Back) {
    let page = RingPage::heap();
    let back = Back::init(page.clone(), Ring::Access, layout, slots).unwrap();
    (Front::new(page, Ring::Access, layout, slots).unwrap(), back)
}

fn drain(front: &mut Front) -> Vec<u64> {
    let mut taken = Vec::new();
    front.poll(None, &mut taken).unwrap();
    std::iter::from_fn(|| front.take(&mut taken)).map(|(_, response)| response.subject()).collect()
}

#[test]
fn a_page_holds_64_slots_of_40_bytes_or_8_of_400() {
    let slots = |layout| Front::new(RingPage::heap(), Ring::Access, layout, 0).unwrap().slots();
    assert_eq!(LAYOUTS.map(slots), [64, 64, 8]);
    assert_eq!(LAYOUTS.map(Layout::slot_bytes), [40, 40, 400]);
}

#[test]
fn a_number_of_slots_that_does_not_fit_is_refused() {
    for (layout, slots) in [(Layout::Flags32, 3), (Layout::Flags32, 128), (Layout::VmEvent7, 16)] {
        let refused = Front::new(RingPage::heap(), Ring::Access, layout, slots).unwrap_err();
        assert!(refused.contains("power of two"), "{refused}");
    }
}

#[test]
fn the_first_slot_is_at_byte_64_and_the_engine_never_writes_bytes_16_to_63() {
    for layout in LAYOUTS {
        let (mut front, mut back) = pair(layout, 0);
        for at in 4..16 {
            back.page().write_header(at, 0xa5a5_a5a5);
        }
        for round in 0..200 {
            front.put(&request(round));
            let request = back.take().unwrap().unwrap();
            back.answer(&request.answer());
            drain(&mut front);
        }
        assert!(back.page().bytes()[16..HEADER].iter().all(|byte| *byte == 0xa5));

        let (mut front, back) = pair(layout, 0);
        front.put(&request(1));
        let bytes = back.page().bytes();
        let slot = mem_event::wire::request_bytes(layout, Ring::Access, &request(1));
        assert_eq!(bytes[HEADER..HEADER + slot.len()], slot);
        assert!(bytes[HEADER + slot.len()..].iter().all(|byte| *byte == 0), "nothing outside of the slot");
        assert_eq!(bytes[..4], [1, 0, 0, 0], "req_prod");
    }
}

#[test]
fn indices_wrap_without_loss_or_reordering() {
    for layout in LAYOUTS {
        let page = RingPage::heap();
        page.preset(0xffff_fff0);
        let mut front = Front::starting_at(page.clone(), Ring::Access, layout, 0, 0xffff_fff0).unwrap();
        let mut back = Back::new(page, Ring::Access, layout, 0).unwrap();
        let (mut put, mut answered) = (0, 0);
        for burst in [8, 3, 8, 1, 5, 8, 8, 7, 8, 8, 8, 8] {
            for _ in 0..burst {
                front.put(&request(put));
                put += 1;
            }
            while let Some(request) = back.take().unwrap() {
                back.answer(&request.answer());
            }
            for gfn in drain(&mut front) {
                assert_eq!(gfn, answered);
                answered += 1;
            }
        }
        assert_eq!((put, answered, front.free()), (80, 80, front.slots()));
        assert_eq!(front.state().req_prod_pvt, 0xffff_fff0_u32.wrapping_add(80));
    }
}

#[test]
fn free_slots_are_counted_by_the_engines_own_numbers_only() {
    let (mut front, mut back) = pair(Layout::Flags32, 4);
    for (step, free) in [3, 2, 1, 0].into_iter().enumerate() {
        front.put(&request(step as u64));
        back.page().store(Index::ReqProd, 0xdead_0000, Ordering::Relaxed);
        back.page().store(Index::ReqEvent, 0xdead_0000, Ordering::Relaxed);
        assert_eq!((front.free(), front.outstanding()), (free, 4 - free));
    }
    back.page().store(Index::ReqProd, 4, Ordering::Relaxed);
    for free in 1..=4 {
        let request = back.take().unwrap().unwrap();
        back.answer(&request.answer());
        assert_eq!(front.free(), free - 1, "a response frees nothing before it is taken");
        assert_eq!(drain(&mut front), [u64::from(free) - 1]);
        assert_eq!(front.free(), free);
    }
}

#[test]
#[should_panic(expected = "a put without a free slot")]
fn a_put_on_a_full_ring_is_a_broken_invariant() {
    let (mut front, _back) = pair(Layout::Flags32, 1);
    front.put(&request(0));
    front.put(&request(1));
}

#[test]
fn a_producer_index_ahead_of_what_is_due_takes_nothing() {
    for (put, answered, lie) in [(0, 0, 1), (2, 0, 3), (2, 1, 3), (2, 2, 3), (2, 1, 0), (4, 0, 0x8000_0000), (4, 4, 3)]
    {
        let (mut front, mut back) = pair(Layout::Flags32, 4);
        for number in 0..put {
            front.put(&request(number));
        }
        for _ in 0..answered {
            let request = back.take().unwrap().unwrap();
            back.answer(&request.answer());
        }
        drain(&mut front);
        let before = front.state();
        back.set_rsp_prod(lie);
        let mut taken = Vec::new();
        let broken = front.poll(None, &mut taken).unwrap_err();
        assert_eq!((broken.rsp_prod, broken.rsp_cons), (lie, before.rsp_cons));
        assert_eq!(front.take(&mut taken), None);
        assert_eq!(front.state(), before);
        assert_eq!(taken::records(&taken).collect::<Vec<_>>(), [Taken::Broken(Ring::Access, lie)]);
    }
}

#[test]
fn a_ring_on_a_page_full_of_garbage_takes_nothing() {
    let page = RingPage::heap();
    for at in 0..16 {
        page.write_header(at, 0x5bd1_e995_u32.wrapping_mul(at as u32 + 1));
    }
    for at in 0..(PAGE_SIZE - HEADER) / 8 {
        page.write_word(at, u64::MAX / (at as u64 + 1));
    }
    for layout in LAYOUTS {
        let mut front = Front::new(page.clone(), Ring::Access, layout, 0).unwrap();
        let mut taken = Vec::new();
        assert!(front.poll(None, &mut taken).is_err());
        assert_eq!(front.take(&mut taken), None);
        assert_eq!(front.free(), front.slots());
    }
}

#[test]
fn requests_never_carry_bytes_of_what_was_in_the_slot_before() {
    for layout in LAYOUTS {
        let (mut front, mut back) = pair(layout, 1);
        front.put(&request(0));
        back.answer_raw(&[]);
        for at in 0..layout.slot_bytes() / 8 {
            back.page().write_word(at, u64::MAX);
        }
        drain(&mut front);
        front.put(&request(7));
        let slot = &back.page().bytes()[HEADER..HEADER + layout.slot_bytes()];
        assert_eq!(slot, mem_event::wire::request_bytes(layout, Ring::Access, &request(7)));
        if layout == Layout::VmEvent7 {
            assert!(slot[16..24].iter().chain(&slot[52..]).all(|byte| *byte == 0), "padding and registers");
        }
    }
}

#[test]
fn what_is_taken_is_the_slots_bytes_in_order() {
    let (mut front, mut back) = pair(Layout::Flags16, 2);
    front.put(&request(1));
    front.put(&request(2));
    back.answer_raw(&[0xab; 40]);
    back.answer_raw(&[0xcd; 40]);
    let mut bytes = Vec::new();
    assert_eq!(front.poll(None, &mut bytes), Ok(2));
    assert_eq!(front.take(&mut bytes).unwrap().0, 0);
    assert_eq!(front.take(&mut bytes).unwrap().0, 1);
    let expected = [Taken::Slot(Ring::Access, &[0xab; 40]), Taken::Slot(Ring::Access, &[0xcd; 40])];
    assert_eq!(taken::records(&bytes).collect::<Vec<_>>(), expected);
    assert_eq!(back.page().load(Index::RspEvent, Ordering::Relaxed), 3);
}

#[test]
fn a_successor_gets_the_requests_that_its_predecessor_did_not_answer() {
    let (mut front, mut back) = pair(Layout::Flags32, 4);
    (1..=3).for_each(|number| _ = front.put(&request(number)));
    let first = back.take().unwrap().unwrap();
    back.take().unwrap();
    back.answer(&first.answer());
    drop(back);
    let mut back = Back::new(front.page().clone(), Ring::Access, Layout::Flags32, 4).unwrap();
    let next: Vec<u64> = std::iter::from_fn(|| back.take().unwrap()).map(|request| request.event.subject()).collect();
    assert_eq!(next, [2, 3]);
}

#[test]
fn two_mappings_of_a_ring_page_are_one_page() {
    let (fd, page) = RingPage::create().unwrap();
    let mut front = Front::new(page, Ring::Access, Layout::VmEvent7, 0).unwrap();
    let mut back = Back::init(RingPage::map(&fd).unwrap(), Ring::Access, Layout::VmEvent7, 0).unwrap();
    front.put(&request(5));
    let got = back.take().unwrap().unwrap();
    assert_eq!(got, request(5));
    back.answer(&got.answer());
    assert_eq!(drain(&mut front), [5]);
}

#[test]
fn a_file_that_could_be_cut_is_no_ring_page() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
    let open = memfd_create("open", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&open, 4096).unwrap();
    assert!(RingPage::map(&open).unwrap_err().to_string().contains("sealed"));
    let short = memfd_create("short", MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&short, 4095).unwrap();
    fcntl_add_seals(&short, SealFlags::SHRINK).unwrap();
    assert!(RingPage::map(&short).unwrap_err().to_string().contains("4096"));
    assert!(RingPage::map(std::fs::File::open("/proc/self/exe").unwrap()).is_err());
}

#[test]
fn a_request_is_whole_when_its_index_is_seen() {
    let (fd, page) = RingPage::create().unwrap();
    let mut back = Back::init(RingPage::map(&fd).unwrap(), Ring::Access, Layout::Flags32, 4).unwrap();
    let mut front = Front::new(page, Ring::Access, Layout::Flags32, 4).unwrap();
    const EVENTS: u64 = 200_000;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..EVENTS {
                let got = loop {
                    match back.take().unwrap() {
                        Some(request) => break request,
                        None => std::thread::yield_now(),
                    }
                };
                assert_eq!(got, request(number), "a torn or repeated request");
                back.answer(&got.answer());
            }
        });
        let (mut put, mut taken) = (0, Vec::new());
        let mut answered = 0;
        while answered < EVENTS {
            while put < EVENTS && front.free() > 0 {
                front.put(&request(put));
                put += 1;
            }
            if front.poll(None, &mut taken).unwrap() == 0 {
                std::thread::yield_now();
            }
            while let Some((_, response)) = front.take(&mut taken) {
                assert_eq!(response, request(answered).answer(), "a torn or repeated response");
                answered += 1;
            }
            taken.clear();
        }
    });
}

#[test]
fn an_echo_answers_with_the_bytes_that_came() {
    for layout in LAYOUTS {
        let (mut front, mut back) = pair(layout, 2);
        assert!(!back.echo(), "nothing waits");
        front.put(&request(1));
        front.put(&request(2));
        assert!(back.echo() && back.echo() && !back.echo());
        let mut taken = Vec::new();
        assert_eq!(front.poll(None, &mut taken), Ok(2));
        let answers = [front.take(&mut taken), front.take(&mut taken)];
        assert_eq!(answers.map(|it| it.unwrap().1), [request(1).answer(), request(2).answer()]);
        assert_eq!((front.layout(), front.free()), (layout, 2));
        let page = front.into_page();
        assert_eq!(
            (page.load(Index::RspProd, Ordering::Relaxed), page.load(Index::ReqEvent, Ordering::Relaxed)),
            (2, 3)
        );
        assert!(format!("{page:?}").contains("req_prod: 2"));
    }
}
