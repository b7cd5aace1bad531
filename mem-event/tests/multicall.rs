//! The memory through which a consumer hands calls over: what one side writes the other reads, and nobody else has to be trusted.
#![allow(clippy::unwrap_used, reason = "test code")]

use mem_event::message::Call;
use mem_event::multicall::{INLINE, MOST_FRAMES, Multicall, PLACES, takes};
use mem_event::page::{Index, RingPage};
use mem_event::{AccessType, Control, Errno, Gfn, PAGE_SIZE, Ring};

fn content(number: u32) -> [u8; PAGE_SIZE] {
    std::array::from_fn(|at| u8::try_from((at * 7 + number as usize) % 251).unwrap())
}

fn load(number: u32) -> Call {
    Call::Load { gfn: Gfn(u64::from(number) << 20), content: content(number).into() }
}

/// What may be handed over, with payloads of every length.
fn short(number: u32) -> Call {
    let gfn = Gfn(u64::from(number) + 7);
    match number % 3 {
        0 => Call::Control(Control::SetAccess { first: gfn, count: MOST_FRAMES, access: AccessType::Rx }),
        1 => Call::WriteFrame { gfn, offset: 4080, bytes: (0..).take(number as usize % (INLINE + 1)).collect() },
        _ => Call::Control(Control::SetAccess { first: gfn, count: 1, access: AccessType::Rwx }),
    }
}

#[test]
fn a_call_arrives_whole_at_any_number_also_where_numbers_wrap() {
    for (ring, call) in [(Ring::Paging, load as fn(u32) -> Call), (Ring::Paging, short), (Ring::Access, short)] {
        let (file, _page, engine) = Multicall::create(ring).unwrap();
        let consumer = Multicall::map(&file, ring).unwrap();
        for number in (0..2 * PLACES).chain(u32::MAX - PLACES..=u32::MAX) {
            assert_eq!(consumer.result(number), Some(Ok(())), "the place is free");
            assert!(consumer.put(number, &call(number)));
            assert_eq!(consumer.result(number), None, "nobody took it");
            assert_eq!(engine.take(number), Ok(call(number)));
            engine.finish(number, Ok(()));
        }
    }
}

#[test]
fn a_load_without_a_copy_is_the_call() {
    let (_file, _page, calls) = Multicall::create(Ring::Paging).unwrap();
    assert!(calls.put_load(5, Gfn(5 << 20), &content(5)));
    assert_eq!(calls.take(5), Ok(load(5)));
}

#[test]
fn each_call_has_a_result_of_its_own() {
    let (file, _page, engine) = Multicall::create(Ring::Paging).unwrap();
    let consumer = Multicall::map(&file, Ring::Paging).unwrap();
    (0..PLACES).for_each(|number| assert!(consumer.put(number, &load(number))));
    let result = |number: u32| {
        if number.is_multiple_of(3) { Ok(()) } else { Err([Errno::ENOENT, Errno::ENOMEM][number as usize % 2]) }
    };
    (0..PLACES).for_each(|number| engine.finish(number, result(number)));
    for number in 0..PLACES {
        assert_eq!(consumer.result(number), Some(result(number)));
        assert_eq!(engine.take(number), Ok(load(number)));
    }
}

#[test]
fn what_has_no_room_is_not_handed_over() {
    let (_file, page, access) = Multicall::create(Ring::Access).unwrap();
    assert!(!access.put(0, &load(0)), "this ring has no contents");
    let long = Call::WriteFrame { gfn: Gfn(1), offset: 0, bytes: vec![0; INLINE + 1] };
    assert!(!access.put(0, &long));
    assert_eq!(access.result(0), Some(Ok(())), "the place is as it was");
    assert_eq!(page.load(Index::Calls, std::sync::atomic::Ordering::Relaxed), 0);
}

#[test]
fn what_takes_long_or_gives_something_back_is_for_the_connection() {
    let frames = |count| Call::Control(Control::SetAccess { first: Gfn(0), count, access: AccessType::N });
    assert!(takes(&frames(MOST_FRAMES)) && !takes(&frames(MOST_FRAMES + 1)));
    for call in [
        Call::Info,
        Call::EndTrace,
        Call::Control(Control::GetAccess { gfn: Gfn(0) }),
        Call::Control(Control::Disable { ring: Ring::Access, drain: false }),
    ] {
        assert!(!takes(&call), "{call}");
    }
}

#[test]
fn an_entry_that_is_no_call_says_so() {
    let (file, _page, calls) = Multicall::create(Ring::Access).unwrap();
    let entry = |bytes: &[u8]| rustix::io::pwrite(&file, bytes, PAGE_SIZE as u64).unwrap();
    // An operation that there is not; more payload than an entry has room for; a load where there are no contents.
    for head in [[0xff, 0xff, 0, 0], [6, 0, 17, 0], [7, 0, 0, 0]] {
        assert_eq!(entry(&head), 4);
        assert!(calls.take(0).is_err(), "{head:?}");
    }
}

#[test]
fn the_ring_page_lies_before_the_calls_and_a_file_without_them_has_none() {
    let (file, page, calls) = Multicall::create(Ring::Paging).unwrap();
    assert!(calls.put_load(0, Gfn(u64::MAX), &[0xff; PAGE_SIZE]));
    assert_eq!(*page.bytes(), [0; PAGE_SIZE]);
    assert_eq!(*RingPage::map(&file).unwrap().bytes(), [0; PAGE_SIZE]);
    let (bare, _page) = RingPage::create().unwrap();
    for (ring, length) in [(Ring::Paging, 270336), (Ring::Access, 8192), (Ring::Sharing, 8192)] {
        let refused = Multicall::map(&bare, ring).unwrap_err().to_string();
        assert!(refused.contains(&format!("shorter than {length} bytes")), "{refused}");
    }
}
