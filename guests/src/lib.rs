//! The runtime of the bare-metal guests: from PVH entry to a verdict, and nothing a guest does not need.
//!
//! A guest is one file in `src/bin/`, one behaviour, one ELF. It opens with a page of prose (what hardware does, what
//! Xen does, what this proves), then does it in few lines, then says its verdict. The life of a guest:
//!
//! 1. QEMU's `-kernel` finds the Xen note and enters `pvh_entry` in 32-bit protected mode (`boot`).
//! 2. Long mode, first 4 GiB mapped to themselves, accessed and dirty bits already set, so that walking the tables
//!    never writes to them ([`tables`]).
//! 3. Exceptions get handlers ([`idt`]); the guest's `main` runs on the boot vCPU, the others sleep until
//!    [`smp::start`].
//! 4. At points that matter the guest says "here" ([`checkpoint()`]): the harness arms watches or evicts pages there.
//! 5. The last line on the serial port is the verdict, and the exit port ends QEMU ([`verdict`]).
//!
//! Interrupts stay disabled for the whole life. Nothing here knows of a consumer, a plugin or an event: without the
//! plugin every guest runs as on any PC and succeeds.
//!
//! Accesses whose sequence matters are made by [`access`], one fixed instruction each; memory that scenarios name by
//! symbol is [`page::Pages`], alone on its pages.

#![no_std]

pub mod access;
pub mod apic;
mod boot;
mod checkpoint;
mod code;
pub mod cpu;
pub mod disk;
pub mod fwcfg;
pub mod idt;
mod mem;
pub mod other_frame;
pub mod page;
pub mod pci;
pub mod port;
pub mod segments;
pub mod serial;
pub mod smp;
pub mod tables;
pub mod verdict;
pub mod virtio;
pub mod virtio_disk;

pub use checkpoint::checkpoint;

/// Names the function that is the guest: `guest::main!(main);`, where `main` is `fn()`.
///
/// A `main` that returns has reported nothing, which is an error.
#[macro_export]
macro_rules! main {
    ($main:path) => {
        /// Called by the runtime on the boot vCPU.
        #[unsafe(no_mangle)]
        extern "C" fn guest_main() {
            let main: fn() = $main;
            main();
        }
    };
}

/// Says in the guest's image what it needs besides a processor, memory and a serial port: `guest::needs!(disk);` is the symbol `needs_disk`.
/// A guest may skip a machine without it, as `ci/guests` knows.
///
/// | need | what |
/// |---|---|
/// | `disk`, `network` | a device that it finds on a PCI bus |
/// | `plugged_vcpu` | a vCPU that comes while it runs |
/// | `table` | instructions in memory, by the machine's loader |
/// | `consumer` | somebody who ends it: it is not booted alone |
#[macro_export]
macro_rules! needs {
    ($($need:ident),+) => {
        $(core::arch::global_asm!(concat!(".global needs_", stringify!($need), "\n.set needs_", stringify!($need), ", 1"));)+
    };
}
