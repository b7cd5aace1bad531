//! The walk of the guest's page tables: no paging, 32-bit, PAE, 4-level and 5-level, with large pages.
//!
//! The walk answers two questions about an access before it happens: will the guest's own tables let it pass (if not, the
//! guest's page fault comes first and the p2m is never asked), and which guest-physical address does it reach.

use mem_event::{Gpa, Rights};

/// Reads the guest's page tables.
pub trait Tables {
    /// The little-endian number of `size` (4 or 8) bytes at a guest-physical address; `None` where no RAM is.
    fn entry(&self, address: Gpa, size: u8) -> Option<u64>;

    /// Which physical addresses the processor has.
    fn addresses(&self) -> PhysicalAddresses {
        PhysicalAddresses::ALL
    }
}

/// Which physical addresses a processor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PhysicalAddresses {
    /// How many bits an address has, at most 52. A higher one of an entry is reserved.
    pub bits: u8,
    /// Whether bit 20 of each address is held at 0.
    pub a20_is_off: bool,
}

impl PhysicalAddresses {
    /// As many as entries have room for: no bit is reserved, and none is held.
    pub const ALL: PhysicalAddresses = PhysicalAddresses { bits: 52, a20_is_off: false };

    fn reserved(self) -> u64 {
        FRAME & !((1 << self.bits.min(52)) - 1)
    }

    fn reached(self, address: u64) -> Gpa {
        Gpa(address & !(u64::from(self.a20_is_off) << 20))
    }
}

/// The page tables of a processor that has these physical addresses.
#[derive(Clone, Copy, Debug)]
pub struct Addressed<'a, T>(pub &'a T, pub PhysicalAddresses);

impl<T: Tables> Tables for Addressed<'_, T> {
    fn entry(&self, address: Gpa, size: u8) -> Option<u64> {
        self.0.entry(address, size)
    }

    fn addresses(&self) -> PhysicalAddresses {
        self.1
    }
}

/// The registers that govern paging.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PagingMode {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

const CR0_PE: u64 = 1;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PSE: u64 = 1 << 4;
const CR4_PAE: u64 = 1 << 5;
const CR4_LA57: u64 = 1 << 12;
const CR4_SMEP: u64 = 1 << 20;
const CR4_SMAP: u64 = 1 << 21;
const CR4_PKE: u64 = 1 << 22;
const CR4_PKS: u64 = 1 << 24;
const EFER_LMA: u64 = 1 << 10;
const EFER_NXE: u64 = 1 << 11;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 52 to 62, which only the four entries of PAE's top level reserve.
const HIGH: u64 = 0x7ff << 52;
/// Of a large page's entry, beside the address.
const PAT: u64 = 1 << 12;
/// Of the entry of a 4 MiB page.
const RESERVED_4_MIB: u64 = 1 << 21;
/// The first of the four bits of a protection key.
const KEY: u32 = 59;
/// Bits 12 to 51: where an entry points.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// An access as the guest's tables judge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged {
    /// What is wanted.
    pub rights: Rights,
    /// Whether the code runs at privilege level 3.
    pub user: bool,
    /// Whether RFLAGS.AC lets the kernel touch user pages.
    pub alignment_check: bool,
    /// PKRU: which protection keys of user pages forbid data accesses (even bits) or writes (odd bits); 0 where it cannot be had.
    pub protection_keys: u32,
    /// IA32_PKRS: the same of the kernel's pages; 0 where it cannot be had.
    pub supervisor_keys: u32,
}

impl Judged {
    /// No judgement: an access that every entry which leads on lets pass.
    pub const NOT: Judged =
        Judged { rights: Rights::NONE, user: false, alignment_check: true, protection_keys: 0, supervisor_keys: 0 };
}

/// The guest's own tables stop the access: a page fault (or a walk into what is no RAM), not an EPT violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestFault;

/// The shape of one kind of page table.
struct Shape {
    levels: u32,
    /// Index bits a level.
    bits: u32,
    entry: u8,
    /// The highest level, counted from 1 at the last, whose entries may be large pages.
    large_up_to: u32,
    /// Whether the top level's entries carry rights (PAE's four do not).
    top_has_rights: bool,
}

impl PagingMode {
    /// Whether the processor is in long mode.
    pub fn is_long(&self) -> bool {
        self.efer & EFER_LMA != 0
    }

    fn shape(&self) -> Option<Shape> {
        if self.cr0 & CR0_PE == 0 || self.cr0 & CR0_PG == 0 {
            return None;
        }
        Some(if self.is_long() {
            let levels = if self.cr4 & CR4_LA57 != 0 { 5 } else { 4 };
            Shape { levels, bits: 9, entry: 8, large_up_to: 3, top_has_rights: true }
        } else if self.cr4 & CR4_PAE != 0 {
            Shape { levels: 3, bits: 9, entry: 8, large_up_to: 2, top_has_rights: false }
        } else {
            let large_up_to = if self.cr4 & CR4_PSE != 0 { 2 } else { 1 };
            Shape { levels: 2, bits: 10, entry: 4, large_up_to, top_has_rights: true }
        })
    }

    fn root(&self, shape: &Shape) -> u64 {
        if shape.top_has_rights { self.cr3 & FRAME } else { self.cr3 & 0xffff_ffe0 }
    }

    /// The guest-physical address that an access reaches.
    ///
    /// # Errors
    /// The guest's own tables forbid it.
    pub fn translate(&self, tables: &impl Tables, gla: u64, access: Judged) -> Result<Gpa, GuestFault> {
        let addresses = tables.addresses();
        let Some(shape) = self.shape() else { return Ok(addresses.reached(gla & 0xffff_ffff)) };
        if shape.levels > 3 && !is_canonical(gla, shape.levels) {
            return Err(GuestFault);
        }
        // Without long mode there are no others, and PAE's top level has four entries.
        let gla = if shape.levels > 3 { gla } else { gla & 0xffff_ffff };
        let mut table = self.root(&shape);
        let mut allowed = WRITABLE | USER;
        let mut no_execute = false;
        for level in (1..=shape.levels).rev() {
            let shift = 12 + (level - 1) * shape.bits;
            let index = gla >> shift & ((1 << shape.bits) - 1);
            let address = addresses.reached(table + index * u64::from(shape.entry));
            let entry = tables.entry(address, shape.entry).ok_or(GuestFault)?;
            let is_large = level > 1 && level <= shape.large_up_to && entry & LARGE != 0;
            if entry & PRESENT == 0 || entry & self.reserved(&shape, level, is_large, addresses) != 0 {
                return Err(GuestFault);
            }
            if level < shape.levels || shape.top_has_rights {
                allowed &= entry;
                no_execute |= entry & NO_EXECUTE != 0;
            }
            if level == 1 || is_large {
                let key = if shape.levels > 3 { entry >> KEY & 15 } else { 0 };
                self.judge(allowed, no_execute, key, access)?;
                return Ok(addresses.reached(page(entry, shift, &shape) | gla & ((1 << shift) - 1)));
            }
            table = entry & FRAME;
        }
        Err(GuestFault)
    }

    /// The bits that no entry of this level may have.
    fn reserved(&self, shape: &Shape, level: u32, is_large: bool, addresses: PhysicalAddresses) -> u64 {
        if shape.entry == 4 {
            return if is_large { RESERVED_4_MIB } else { 0 };
        }
        let no_execute = if self.efer & EFER_NXE == 0 { NO_EXECUTE } else { 0 };
        let of_level = match level {
            4.. => LARGE,
            _ if level == shape.levels && !shape.top_has_rights => NO_EXECUTE | HIGH,
            _ if is_large => ((1 << (12 + (level - 1) * shape.bits)) - 1) & FRAME & !PAT,
            _ => 0,
        };
        addresses.reserved() | no_execute | of_level
    }

    /// Whether the kernel's pages have protection keys.
    pub fn has_supervisor_keys(&self) -> bool {
        self.cr4 & CR4_PKS != 0 && self.efer & EFER_LMA != 0
    }

    /// Whether user pages have protection keys.
    pub fn has_protection_keys(&self) -> bool {
        self.cr4 & CR4_PKE != 0 && self.efer & EFER_LMA != 0
    }

    fn judge(&self, allowed: u64, no_execute: bool, key: u64, access: Judged) -> Result<(), GuestFault> {
        let user_page = allowed & USER != 0;
        let kernel = !access.user;
        let write_ok = allowed & WRITABLE != 0 || kernel && self.cr0 & CR0_WP == 0;
        let execute = access.rights.contains(Rights::X);
        let data = !access.rights.without(Rights::X).is_empty();
        let stopped = access.user && !user_page
            || access.rights.contains(Rights::W) && !write_ok
            || execute && no_execute && self.efer & EFER_NXE != 0
            || execute && kernel && user_page && self.cr4 & CR4_SMEP != 0
            || data && kernel && user_page && self.cr4 & CR4_SMAP != 0 && !access.alignment_check
            || data && self.key_forbids(key, user_page, access);
        if stopped { Err(GuestFault) } else { Ok(()) }
    }

    fn key_forbids(&self, key: u64, user_page: bool, access: Judged) -> bool {
        let keys = match user_page {
            true if self.has_protection_keys() => access.protection_keys,
            false if self.has_supervisor_keys() => access.supervisor_keys,
            _ => return false,
        };
        let (no_access, no_write) = (keys >> (2 * key) & 1, keys >> (2 * key + 1) & 1);
        let judges_writes = access.user || self.cr0 & CR0_WP != 0;
        no_access != 0 || no_write != 0 && judges_writes && access.rights.contains(Rights::W)
    }
}

/// Whether the bits above those that are translated repeat the highest of these; else it is no address.
fn is_canonical(gla: u64, levels: u32) -> bool {
    let unused = 64 - (12 + 9 * levels);
    (gla << unused).cast_signed() >> unused == gla.cast_signed()
}

/// Where a last-level or large entry's page begins.
fn page(entry: u64, shift: u32, shape: &Shape) -> u64 {
    if shape.entry == 4 && shift > 12 {
        // 4 MiB pages keep address bits 32 to 39 in bits 13 to 20 (PSE-36).
        return entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32;
    }
    let frame = if shape.entry == 4 { entry & 0xffff_f000 } else { entry & FRAME };
    frame & !((1 << shift) - 1)
}
