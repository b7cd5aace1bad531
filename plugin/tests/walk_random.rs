//! The walk against a plain model: random pages are laid out as tables of a random mode, with rights spread over the levels at
//! random, and what the walk says of random accesses must be what the page was meant to be and the manual says of it.

#![allow(clippy::cast_possible_truncation, reason = "what is cast was cut to fit")]

use mem_event::{Gpa, Rights};
use mem_event_plugin::insn::walk::{GuestFault, Judged, PagingMode, Tables};
use std::collections::HashMap;

const ROUNDS: u64 = 100_000;

/// Splitmix64.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.bits().is_multiple_of(count)
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[(self.bits() % among.len() as u64) as usize]
    }
}

#[derive(Default)]
struct Ram(HashMap<u64, u64>);

impl Tables for Ram {
    fn entry(&self, address: Gpa, size: u8) -> Option<u64> {
        let value = *self.0.get(&address.0)?;
        Some(if size == 4 { value & 0xffff_ffff } else { value })
    }
}

/// How addresses are translated: index bits of each level from the first, bytes an entry, and the levels (counted from the last as 1)
/// that may map large pages.
struct Format {
    index_bits: &'static [u32],
    entry: u64,
    large: &'static [usize],
    cr4: u64,
    efer: u64,
}

const FORMATS: [Format; 5] = [
    Format { index_bits: &[10, 10], entry: 4, large: &[], cr4: 0, efer: 0 },
    Format { index_bits: &[10, 10], entry: 4, large: &[2], cr4: 1 << 4, efer: 0 },
    Format { index_bits: &[2, 9, 9], entry: 8, large: &[2], cr4: 1 << 5, efer: 0 },
    Format { index_bits: &[9, 9, 9, 9], entry: 8, large: &[2, 3], cr4: 1 << 5, efer: 1 << 10 },
    Format { index_bits: &[9, 9, 9, 9, 9], entry: 8, large: &[2, 3], cr4: 1 << 5 | 1 << 12, efer: 1 << 10 },
];

const WP: u64 = 1 << 16;
const SMEP: u64 = 1 << 20;
const SMAP: u64 = 1 << 21;
const PKE: u64 = 1 << 22;
const PKS: u64 = 1 << 24;
const NXE: u64 = 1 << 11;

/// What a page is meant to be.
struct Page {
    present: bool,
    writable: bool,
    user: bool,
    executable: bool,
    key: u32,
    gpa: u64,
}

/// Lays one page out, and says what it is.
fn lay_out(random: &mut Random, format: &Format, gla: u64, ram: &mut Ram, root: u64) -> Page {
    let levels = format.index_bits.len();
    let last = if random.one_in(3) && !format.large.is_empty() { random.pick(format.large) } else { 1 };
    let key = if levels > 3 { (random.bits() & 15) as u32 } else { 0 };
    let mut page = Page { present: true, writable: true, user: true, executable: true, key, gpa: 0 };
    let mut below: u32 = 12 + format.index_bits.iter().sum::<u32>();
    let mut table = root;
    for (number, bits) in format.index_bits.iter().enumerate() {
        let level = levels - number;
        below -= bits;
        let slot = table + (gla >> below & ((1 << bits) - 1)) * format.entry;
        // PAE's four first entries say where, and nothing else.
        let says = !(levels == 3 && number == 0);
        let (absent, read_only, kernel, data) =
            (random.one_in(40), random.one_in(8), random.one_in(8), format.entry == 8 && random.one_in(8));
        page.present &= !absent;
        page.writable &= !(says && read_only);
        page.user &= !(says && kernel);
        page.executable &= !(says && data);
        let mut entry = u64::from(!absent) | 0x60;
        if says {
            entry |= u64::from(!read_only) << 1 | u64::from(!kernel) << 2 | u64::from(data) << 63;
        }
        if level == last {
            let frame_bits = if format.entry == 4 { 32 } else { 44 };
            let size = 1u64 << below;
            let base = random.bits() & ((1 << frame_bits) - 1) & !(size - 1);
            page.gpa = base | gla & (size - 1);
            let large = u64::from(level > 1) << 7;
            ram.0.insert(slot, entry | large | base | u64::from(key) << 59);
            break;
        }
        table = 0x10_0000 * (number as u64 + 2);
        ram.0.insert(slot, entry | table);
    }
    page
}

/// Intel's manual, volume 3, "Determination of access rights", sentence by sentence.
fn allowed(page: &Page, mode: &PagingMode, access: &Judged) -> bool {
    let supervisor = !access.user;
    let (reads, writes, fetches) =
        (access.rights.contains(Rights::R), access.rights.contains(Rights::W), access.rights.contains(Rights::X));
    let (register, enabled) = if page.user { (access.protection_keys, PKE) } else { (access.supervisor_keys, PKS) };
    let keys = mode.cr4 & enabled != 0 && mode.efer & 1 << 10 != 0;
    let (no_access, no_write) = (register >> (2 * page.key) & 1 == 1, register >> (2 * page.key + 1) & 1 == 1);
    let may_data = match (supervisor, page.user) {
        (true, false) => true,
        (true, true) => mode.cr4 & SMAP == 0 || access.alignment_check,
        (false, user) => user,
    } && !(keys && no_access);
    let write_protected = !supervisor || mode.cr0 & WP != 0;
    let may_write = may_data && (page.writable || !write_protected) && !(keys && no_write && write_protected);
    let may_fetch = match (supervisor, page.user) {
        (true, false) => true,
        (true, true) => mode.cr4 & SMEP == 0,
        (false, user) => user,
    } && page.executable;
    // Without EFER.NXE the bit that forbids execution is reserved.
    page.present
        && (page.executable || mode.efer & NXE != 0)
        && (!reads || may_data)
        && (!writes || may_write)
        && (!fetches || may_fetch)
}

#[test]
fn the_walk_says_what_the_manual_says() {
    let mut random = Random(7);
    let (mut reached, mut refused) = (0, 0);
    for round in 0..ROUNDS {
        let format = &FORMATS[(random.bits() % 5) as usize];
        let width = 12 + format.index_bits.iter().sum::<u32>();
        let low = random.bits() & ((1u64 << width) - 1);
        let is_long = format.index_bits.len() > 3;
        let gla =
            if is_long { (low << (64 - width)).cast_signed().wrapping_shr(64 - width).cast_unsigned() } else { low };
        let mut choose = |bits: u64| if random.one_in(2) { bits } else { 0 };
        let mode = PagingMode {
            cr0: 1 << 31 | 1 | choose(WP),
            cr3: 0x10_0000 | choose(0x18),
            cr4: format.cr4 | choose(SMEP) | choose(SMAP) | choose(PKE) | choose(PKS),
            efer: format.efer | choose(NXE),
        };
        // PAE's root may lie on any 32 bytes.
        let root = if format.index_bits.len() == 3 { mode.cr3 & !31 } else { 0x10_0000 };
        let mut ram = Ram::default();
        let page = lay_out(&mut random, format, gla, &mut ram, root);
        let rights = random.pick(&[Rights::R, Rights::W, Rights::RW, Rights::X]);
        let access = Judged {
            rights,
            user: random.one_in(2),
            alignment_check: random.one_in(2),
            protection_keys: (random.bits() & random.bits() & 0xffff_ffff) as u32,
            supervisor_keys: (random.bits() & random.bits() & 0xffff_ffff) as u32,
        };
        let due = if allowed(&page, &mode, &access) { Ok(Gpa(page.gpa)) } else { Err(GuestFault) };
        reached += u64::from(due.is_ok());
        refused += u64::from(due.is_err());
        assert_eq!(mode.translate(&ram, gla, access), due, "round {round}: {gla:#x} {mode:x?} {access:?}");
        if is_long {
            let elsewhere = gla ^ 1 << (width + (random.bits() % u64::from(64 - width)) as u32);
            assert_eq!(mode.translate(&ram, elsewhere, Judged::NOT), Err(GuestFault), "{elsewhere:#x} is no address");
        }
    }
    assert!(reached > ROUNDS / 10 && refused > ROUNDS / 10, "{reached} reached, {refused} refused");
}
