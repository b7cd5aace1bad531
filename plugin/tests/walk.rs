//! The walk of page tables, against tables laid out by hand in a plain map.

use mem_event::{Gpa, Rights};
use mem_event_plugin::insn::nested::AddressSpace;
use mem_event_plugin::insn::walk::{Addressed, GuestFault, Judged, PagingMode, PhysicalAddresses, Tables};
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
    Judged { rights, user: false, alignment_check: false, protection_keys: 0, supervisor_keys: 0 }
}

const fn user(rights: Rights) -> Judged {
    Judged { rights, user: true, alignment_check: false, protection_keys: 0, supervisor_keys: 0 }
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

#[test]
fn without_long_mode_linear_addresses_go_on_at_zero_beyond_4_gib() {
    let mut ram = Ram::default();
    ram.0.insert(0x1020, 0x2000 | PRESENT);
    ram.0.insert(0x1020 + 4 * 8, 0x8000 | PRESENT);
    ram.0.insert(0x2000, 0x3000 | ALL);
    ram.0.insert(0x3000, 0x7000 | ALL);
    let pae = PagingMode { cr3: 0x1020, ..mode(PAE, 0) };
    assert_eq!(pae.translate(&ram, 0x1_0000_0010, user(Rights::R)), Ok(Gpa(0x7010)), "PAE has four first entries");
    let mut ram = Ram::default();
    ram.0.insert(0x1000, 0x2000 | ALL);
    ram.0.insert(0x2000, 0x7000 | ALL);
    assert_eq!(mode(0, 0).translate(&ram, 0x1_0000_0010, user(Rights::R)), Ok(Gpa(0x7010)), "two levels");
}

#[test]
fn a_reserved_bit_of_an_entry_faults_whatever_is_wanted() {
    let forty = PhysicalAddresses { bits: 40, a20_is_off: false };
    let (mut ram, gla) = four_levels(ALL);
    let long = mode(PAE, LONG);
    let faults = |ram: &Ram| {
        [Judged::NOT, kernel(Rights::R), user(Rights::R)]
            .map(|access| long.translate(&Addressed(ram, forty), gla, access).is_err())
    };
    assert_eq!(faults(&ram), [false; 3]);
    for slot in [0x1000 + 256 * 8, 0x2000 + 2 * 8, 0x3000 + 3 * 8, 0x4000 + 3 * 8] {
        let entry = ram.0[&slot];
        ram.0.insert(slot, entry | 1 << 40);
        assert_eq!(faults(&ram), [true; 3], "bit 40 of the entry at {slot:#x}");
        ram.0.insert(slot, entry | 1 << 52);
        assert_eq!(faults(&ram), [false; 3], "bit 52 is the system's");
        ram.0.insert(slot, entry);
    }
    ram.0.insert(0x1000 + 256 * 8, 0x2000 | ALL | LARGE);
    assert_eq!(faults(&ram), [true; 3], "no pages of 512 GiB");
    ram.0.insert(0x1000 + 256 * 8, 0x2000 | ALL);
    ram.0.insert(0x3000 + 3 * 8, 0x60_2000 | ALL | LARGE);
    assert_eq!(faults(&ram), [true; 3], "the address of a page of 2 MiB is a multiple of its size");
    ram.0.insert(0x3000 + 3 * 8, 0x60_1000 | ALL | LARGE);
    assert_eq!(faults(&ram), [false; 3], "bit 12 is of the page's memory type");
}

#[test]
fn the_bit_that_forbids_execution_is_reserved_without_nxe() {
    let (ram, gla) = four_levels(ALL | NX);
    assert!(mode(PAE, LONG).translate(&ram, gla, user(Rights::R)).is_ok());
    let without = mode(PAE, LONG & !(1 << 11));
    assert_eq!(without.translate(&ram, gla, user(Rights::R)), Err(GuestFault));
    assert_eq!(without.translate(&ram, gla, Judged::NOT), Err(GuestFault));
}

#[test]
fn pae_reserves_the_high_bits_of_its_four_entries_and_pse_one_of_a_large_page() {
    let mut ram = Ram::default();
    ram.0.insert(0x1000, 0x2000 | PRESENT | 1 << 52);
    ram.0.insert(0x2000, 0x40_0000 | ALL | LARGE);
    let pae = mode(PAE, 1 << 11);
    assert_eq!(pae.translate(&ram, 0, Judged::NOT), Err(GuestFault));
    ram.0.insert(0x1000, 0x2000 | PRESENT);
    assert_eq!(pae.translate(&ram, 0, Judged::NOT), Ok(Gpa(0x40_0000)));
    ram.0.insert(0x1000, 0x0100_0000 | 1 << 21 | ALL | LARGE);
    assert_eq!(mode(PSE, 0).translate(&ram, 0, Judged::NOT), Err(GuestFault));
}

#[test]
fn the_kernel_s_pages_have_keys_of_their_own() {
    const PKE: u64 = 1 << 22;
    const PKS: u64 = 1 << 24;
    let access = |rights| Judged { supervisor_keys: 0b10 << 6, protection_keys: !0, ..kernel(rights) };
    let (ram, gla) = four_levels(PRESENT | WRITABLE | 3 << 59);
    let on = mode(PAE | PKE | PKS, LONG);
    assert_eq!(on.translate(&ram, gla, access(Rights::W)), Err(GuestFault));
    assert!(on.translate(&ram, gla, access(Rights::R)).is_ok());
    assert!(mode(PAE | PKE, LONG).translate(&ram, gla, access(Rights::W)).is_ok(), "CR4.PKS is off");
    let unprotected = PagingMode { cr0: PROTECTED, ..on };
    assert!(unprotected.translate(&ram, gla, access(Rights::W)).is_ok(), "CR0.WP is off");
}

#[test]
fn without_a20_bit_20_of_each_physical_address_is_0() {
    let off = PhysicalAddresses { bits: 40, a20_is_off: true };
    let real = PagingMode::default();
    assert_eq!(real.translate(&Addressed(&Ram::default(), off), 0x10_0500, Judged::NOT), Ok(Gpa(0x500)));
    let mut ram = Ram::default();
    ram.0.insert(0x1000, 0x10_2000 | ALL);
    ram.0.insert(0x2000, 0x10_7000 | ALL);
    let paged = PagingMode { cr3: 0x10_1000, ..mode(0, 0) };
    assert_eq!(paged.translate(&Addressed(&ram, off), 0x10, Judged::NOT), Ok(Gpa(0x7010)));
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
        let access = Judged { rights, user: on(8), alignment_check: on(9), ..Judged::NOT };
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

#[test]
fn a_guests_guest_is_walked_through_its_own_tables_and_those_of_its_hypervisor() {
    // Its own tables and what they lead to are as far up as its hypervisor's nested tables say: one entry for 1 GiB.
    let (own, gla) = four_levels(ALL);
    let mut ram = Ram(own.0.into_iter().map(|(at, entry)| (at + (1 << 30), entry)).collect());
    ram.0.insert(0x10_0000, 0x10_1000 | ALL);
    ram.0.insert(0x10_1000, 1 << 30 | ALL | LARGE);
    let nested = PagingMode { cr3: 0x10_0000, ..mode(PAE, LONG) };
    let space = AddressSpace { own: mode(PAE, LONG), nested: Some(nested) };
    let write = kernel(Rights::W);
    assert_eq!(space.translate(&ram, gla | 0x123, write), Ok(Gpa(1 << 30 | 0x9123)));
    ram.0.insert(0x10_1000, 1 << 30 | PRESENT | WRITABLE | LARGE);
    assert_eq!(space.translate(&ram, gla, write), Err(GuestFault), "nested tables judge a user's access");
    ram.0.insert(0x10_1000, 1 << 30 | PRESENT | USER | LARGE);
    assert_eq!(space.translate(&ram, gla, write), Err(GuestFault), "read-only for its hypervisor");
    assert_eq!(space.translate(&ram, gla, kernel(Rights::R)), Ok(Gpa(1 << 30 | 0x9000)));
}
