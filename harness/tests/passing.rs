//! While some frames may not be executed, blocks of those frames are looked at before they run, and others are not: QEMU has every instruction of
//! a block that a plugin looks at leave what it read or wrote.

use crate::support::{kernel_maps_write_protected, linux_with_a_frame_that_may, looked_at, run_by_the_mmu};
use mem_event::AccessType;

#[test]
fn of_frames_that_may_be_executed_no_block_is_looked_at() {
    if !kernel_maps_write_protected() {
        return;
    }
    let outcome = run_by_the_mmu(linux_with_a_frame_that_may(AccessType::Rw), "registers=auto");
    let (among, chosen) = looked_at(&outcome.said);
    // The first ones, by which the plugin finds its way, and those at whose begin a page ends.
    assert!(among > 10_000 && chosen < among / 20, "{chosen} of {among}");
}
