//! Which frames come back with another content than they had when their memory went.

use mem_event::{Gfn, PAGE_SIZE};
use mem_event_plugin::engine::gone::Gone;

const GFN: Gfn = Gfn(5);

#[test]
fn a_frame_that_comes_back_as_it_was_has_not_changed() {
    let mut gone = Gone::default();
    let content = std::array::from_fn(|at| at.to_le_bytes()[0]);
    gone.goes(GFN, &content);
    assert!(!gone.is_back_changed(GFN, &content));
}

#[test]
fn a_frame_that_comes_back_with_one_other_bit_has_changed_wherever_it_is() {
    for at in 0..PAGE_SIZE {
        let mut gone = Gone::default();
        let mut content = [0x90; PAGE_SIZE];
        gone.goes(GFN, &content);
        content[at] ^= 1 << (at % 8);
        assert!(gone.is_back_changed(GFN, &content), "byte {at}");
    }
}

#[test]
fn of_a_frame_that_goes_twice_the_first_content_counts() {
    let mut gone = Gone::default();
    gone.goes(GFN, &[1; PAGE_SIZE]);
    gone.goes(GFN, &[2; PAGE_SIZE]);
    assert!(gone.is_back_changed(GFN, &[2; PAGE_SIZE]));
    assert!(!gone.is_back_changed(GFN, &[3; PAGE_SIZE]), "it is back, and nothing is kept of it");
}
