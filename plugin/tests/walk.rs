//! The walk of page tables, against tables laid out by hand in a plain map.

use mem_event::{Gpa, Rights};
use mem_event_plugin::insn::walk::{GuestFault, Judged, PagingMode, Tables};
use std::collections::HashMap;

#[derive(Default)]
struct Ram(HashMap<u64, u64>);

impl Tables for Ram {
    fn entry(&self, address: Gpa, size: u8) -> Option<u64> {
        let value = self.0.get(&address.0).copied().unwrap_or(0);
        Some(if size == 4 { value & 0xffff_ffff } else { value })
    }
}

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const USER: u64 = 4;
const LARGE: u64 = 1 << 7;
const NX: u64 = 1 << 63;
const ALL: u64 = PRESENT | WRITABLE | USER;

const PROTECTED: u64 = 1 | 1 << 31;
const WRITE_PROTECT: u64 = 1 << 16;
const PSE: u64 = 1 << 4;
const PAE: u64 = 1 << 5;
const LA57: u64 = 1 << 12;
const SMEP: u64 = 1 << 20;
const SMAP: u64 = 1 << 21;
const LONG: u64 = 1 << 10 | 1 << 11;

fn mode(cr4: u64, efer: u64) -> PagingMode {
    PagingMode { cr0: PROTECTED | WRITE_PROTECT, cr3: 0x1000, cr4, efer }
}

const fn kernel(rights: Rights) -> Judged {
    Judged { rights, user: false, alignment_check: false, protection_keys: 0 }
}

const fn user(rights: Rights) -> Judged {
    Judged { rights, user: true, alignment_check: false, protection_keys: 0 }
}

/// Four levels from 0x1000 down to a page at 0x9000, for linear address 0x8081_0060_3000 + offset.
fn four_levels(last: u64) -> (Ram, u64) {
    let gla = 1 << 47 | 2 << 30 | 3 << 21 | 3 << 12;
    let mut ram = Ram::default();
    ram.0.insert(0x1000 + 256 * 8, 0x2000 | ALL);
    ram.0.insert(0x2000 + 2 * 8, 0x3000 | ALL);
    ram.0.insert(0x3000 + 3 * 8, 0x4000 | ALL);
    ram.0.insert(0x4000 + 3 * 8, 0x9000 | last);
    (ram, gla | 0xffff_0000_0000_0000)
}

#[test]
fn without_paging_an_address_is_itself() {
    let mode = PagingMode { cr0: 1, ..PagingMode::default() };
    assert_eq!(mode.translate(&Ram::default(), 0x1234_5678, kernel(Rights::W)), Ok(Gpa(0x1234_5678)));
    let mode = PagingMode { cr0: 1 << 31, ..PagingMode::default() };
    assert_eq!(mode.translate(&Ram::default(), 0x777, kernel(Rights::R)), Ok(Gpa(0x777)), "PG without PE is off");
}

#[test]
fn four_levels_reach_the_page() {
    let (ram, gla) = four_levels(ALL);
    assert_eq!(mode(PAE, LONG).translate(&ram, gla | 0xabc, user(Rights::RW)), Ok(Gpa(0x9abc)));
    assert_eq!(mode(PAE, LONG).translate(&ram, gla + 0x1000, user(Rights::R)), Err(GuestFault));
}

#[test]
fn five_levels_reach_the_page() {
    let (mut ram, gla) = four_levels(ALL);
    ram.0.insert(0x8000 + 7 * 8, 0x1000 | ALL);
    let mode = PagingMode { cr3: 0x8000, ..mode(PAE | LA57, LONG) };
    let gla = gla & 0xffff_ffff_ffff | 7 << 48;
    assert_eq!(mode.translate(&ram, gla | 5, user(Rights::R)), Ok(Gpa(0x9005)));
}

#[test]
fn large_pages_end_the_walk() {
    let mut ram = Ram::default();
    ram.0.insert(0x1000, 0x2000 | ALL);
    ram.0.insert(0x2000 + 8, 0x4000_0000 | ALL | LARGE);
    ram.0.insert(0x2000 + 16, 0x3000 | ALL);
    ram.0.insert(0x3000 + 8, 0x60_0000 | ALL | LARGE);
    let mode = mode(PAE, LONG);
    assert_eq!(mode.translate(&ram, 0x4765_4321, user(Rights::R)), Ok(Gpa(0x4765_4321)), "1 GiB");
    assert_eq!(mode.translate(&ram, 0x8020_1234 + 0x2_0000, user(Rights::R)), Ok(Gpa(0x62_1234)), "2 MiB");
}

#[test]
fn thirty_two_bit_tables_have_two_levels_and_pse_36() {
    let mut ram = Ram::default();
    ram.0.insert(0x1000 + 4, 0x2000 | ALL);
    ram.0.insert(0x2000 + 8, 0x0123_4000 | ALL);
    ram.0.insert(0x1000 + 8, 0x0100_0000 | 0x5 << 13 | ALL | LARGE);
    let small = PagingMode { cr4: 0, efer: 0, ..mode(0, 0) };
    assert_eq!(small.translate(&ram, 0x0040_2077, user(Rights::W)), Ok(Gpa(0x0123_4077)));
    let large = PagingMode { cr4: PSE, ..small };
    assert_eq!(large.translate(&ram, 0x0080_1003, user(Rights::W)), Ok(Gpa(0x5_0100_1003)));
}

#[test]
fn pae_directory_pointers_carry_no_rights() {
    let mut ram = Ram::default();
    ram.0.insert(0x1020 + 8, 0x2000 | PRESENT);
    ram.0.insert(0x2000, 0x3000 | ALL);
    ram.0.insert(0x3000, 0x4_5678_9000 | ALL);
    let mode = PagingMode { cr3: 0x1020, ..mode(PAE, 0) };
    assert_eq!(mode.translate(&ram, 0x4000_0010, user(Rights::W)), Ok(Gpa(0x4_5678_9010)));
}

/// Every combination of page rights, mode bits and access, against the rules of the manual in a line each.
#[test]
fn rights_are_judged_as_the_manual_says() {
    for bits in 0..1usize << 10 {
        let on = |bit: u32| bits >> bit & 1 != 0;
        let last =
            PRESENT | if on(0) { WRITABLE } else { 0 } | if on(1) { USER } else { 0 } | if on(2) { NX } else { 0 };
        let (ram, gla) = four_levels(last);
        let mut mode = mode(PAE, LONG);
        mode.cr0 = PROTECTED | if on(3) { WRITE_PROTECT } else { 0 };
        mode.cr4 |= if on(4) { SMAP } else { 0 } | if on(5) { SMEP } else { 0 };
        let rights = [Rights::R, Rights::W, Rights::RW, Rights::X][bits >> 6 & 3];
        let access = Judged { rights, user: on(8), alignment_check: on(9), protection_keys: 0 };
        let (writes, executes) = (rights.contains(Rights::W), rights == Rights::X);
        let faults = if access.user {
            !on(1) || writes && !on(0) || executes && on(2)
        } else {
            writes && !on(0) && on(3)
                || executes && (on(2) || on(1) && on(5))
                || !executes && on(1) && on(4) && !access.alignment_check
        };
        assert_eq!(mode.translate(&ram, gla, access).is_err(), faults, "{last:#x} {mode:x?} {access:?}");
    }
}

#[test]
fn rights_of_upper_levels_count() {
    let (mut ram, gla) = four_levels(ALL);
    ram.0.insert(0x3000 + 3 * 8, 0x4000 | PRESENT | USER);
    assert_eq!(mode(PAE, LONG).translate(&ram, gla, user(Rights::W)), Err(GuestFault));
    ram.0.insert(0x3000 + 3 * 8, 0x4000 | ALL | NX);
    assert_eq!(mode(PAE, LONG).translate(&ram, gla, user(Rights::X)), Err(GuestFault));
    assert!(mode(PAE, LONG).translate(&ram, gla, user(Rights::W)).is_ok());
}
