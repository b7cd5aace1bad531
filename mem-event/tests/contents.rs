//! The memory through which a pager hands contents over: what one side writes the other reads, and nobody else has to be trusted.
#![allow(clippy::unwrap_used, reason = "test code")]

use mem_event::contents::{Contents, PLACES};
use mem_event::page::RingPage;
use mem_event::{Errno, Gfn, PAGE_SIZE};

fn content(number: u32) -> [u8; PAGE_SIZE] {
    std::array::from_fn(|at| u8::try_from((at * 7 + number as usize) % 251).unwrap())
}

#[test]
fn a_content_arrives_whole_at_any_number_also_where_numbers_wrap() {
    let (file, _page, engine) = Contents::create().unwrap();
    let consumer = Contents::map(&file).unwrap();
    for number in (0..2 * PLACES).chain(u32::MAX - PLACES..=u32::MAX) {
        assert_eq!(consumer.result(number), Some(Ok(())), "the place is free");
        consumer.put(number, Gfn(u64::from(number) << 20), &content(number));
        assert_eq!(consumer.result(number), None, "nobody took it");
        let (gfn, taken) = engine.take(number);
        assert_eq!((gfn, *taken), (Gfn(u64::from(number) << 20), content(number)));
        engine.finish(number, Ok(()));
    }
}

#[test]
fn each_load_has_a_result_of_its_own() {
    let (file, _page, engine) = Contents::create().unwrap();
    let consumer = Contents::map(&file).unwrap();
    (0..PLACES).for_each(|number| consumer.put(number, Gfn(u64::from(number)), &content(number)));
    let result = |number: u32| {
        if number.is_multiple_of(3) { Ok(()) } else { Err([Errno::ENOENT, Errno::ENOMEM][number as usize % 2]) }
    };
    (0..PLACES).for_each(|number| engine.finish(number, result(number)));
    for number in 0..PLACES {
        assert_eq!(consumer.result(number), Some(result(number)));
        assert_eq!((engine.take(number).0, *engine.take(number).1), (Gfn(u64::from(number)), content(number)));
    }
}

#[test]
fn the_ring_page_lies_before_the_contents_and_a_ring_without_them_has_none() {
    let (file, page, contents) = Contents::create().unwrap();
    contents.put(0, Gfn(u64::MAX), &[0xff; PAGE_SIZE]);
    assert_eq!(*page.bytes(), [0; PAGE_SIZE]);
    assert_eq!(*RingPage::map(&file).unwrap().bytes(), [0; PAGE_SIZE]);
    let (bare, _page) = RingPage::create().unwrap();
    let refused = Contents::map(&bare).unwrap_err().to_string();
    assert!(refused.contains("shorter than 270336 bytes"), "{refused}");
}
