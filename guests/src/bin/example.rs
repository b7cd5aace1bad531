//! The smallest valid guest: boots, says so, succeeds.
//!
//! Copy it to begin a new one. Replace this text by a page of prose: what hardware does, what Xen does or did wrong, what
//! the guest proves, which symbols and checkpoints it offers. Then do it, then say the verdict; a guest that returns
//! without one is in error.

#![no_std]
#![no_main]

use guest::{println, verdict};

guest::main!(main);

fn main() {
    println!("example: {} vCPUs", guest::smp::vcpus());
    verdict::success();
}
