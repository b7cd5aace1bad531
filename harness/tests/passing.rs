//! While some frames may not be executed, blocks of those frames are looked at before they run, and others are not: QEMU has every instruction of
//! a block that a plugin looks at leave what it read or wrote.

use crate::support::{kernel_maps_write_protected, linux_with_a_frame_that_may, run_by_the_mmu};
use mem_event::AccessType;

#[test]
fn of_frames_that_may_be_executed_no_block_is_looked_at() {
    if !kernel_maps_write_protected() {
        return;
    }
    let outcome = run_by_the_mmu(linux_with_a_frame_that_may(AccessType::Rw), "registers=auto");
    let line = outcome.said.lines().find(|line| line.ends_with("were looked at")).expect("a line that tells how many");
    let numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
    let [among, chosen]: [u64; 2] = numbers.collect::<Vec<_>>().try_into().unwrap();
    // The first ones, by which the plugin finds its way, and those at whose begin a page ends.
    assert!(among > 10_000 && chosen < among / 20, "{chosen} of {among}");
}
