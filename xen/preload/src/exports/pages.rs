//! Mapping and unmapping. One of the files with unsafe code: functions that C calls.

#![allow(unsafe_code, reason = "functions by the C library's names, which call the C library's own; argued below")]

use super::missing;
use crate::descriptor::{self, Kind};
use crate::layer::with;
use crate::mapping::PAGE;
use crate::{real, region};
use libc::{c_int, c_void, off_t, size_t};
use rustix::mm::ProtFlags;
use std::ops::Range;

/// The pages that a call is about.
fn pages(address: *mut c_void, length: size_t) -> Range<u64> {
    let start = address.expose_provenance() as u64;
    let end = start.saturating_add(length as u64).checked_next_multiple_of(PAGE);
    start..end.unwrap_or(u64::MAX)
}

fn forget(pages: &Range<u64>) {
    if region::any() {
        let _ = with(|layer| layer.regions.remove(pages));
    }
}

/// Reserves pages, which cannot be touched until frames are mapped there.
const RESERVED: c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;

macro_rules! map {
    ($($name:ident)+) => {
        $(#[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            address: *mut c_void, length: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t,
        ) -> *mut c_void {
            let Some(map) = real::$name() else {
                missing();
                return libc::MAP_FAILED;
            };
            let is_xens = flags & libc::MAP_ANONYMOUS == 0 && descriptor::kind(fd) == Some(Kind::Privcmd);
            if !is_xens {
                // SAFETY: these are the caller's own arguments.
                let mapped = unsafe { map(address, length, protection, flags, fd, offset) };
                if mapped != libc::MAP_FAILED {
                    forget(&pages(mapped, length));
                }
                return mapped;
            }
            let flags = flags & !libc::MAP_TYPE | RESERVED;
            // SAFETY: the caller asked for a mapping at this place; what it gets there is memory of its own.
            let mapped = unsafe { map(address, length, libc::PROT_NONE, flags, -1, 0) };
            if mapped != libc::MAP_FAILED {
                let wanted = ProtFlags::from_bits_truncate(protection.cast_unsigned());
                let _ = with(|layer| layer.regions.add(pages(mapped, length), wanted));
            }
            mapped
        })+
    };
}

map!(mmap mmap64);

#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(address: *mut c_void, length: size_t) -> c_int {
    let Some(munmap) = real::munmap() else { return missing() };
    // Before the pages go: another thread may reserve them as soon as they have.
    forget(&pages(address, length));
    // SAFETY: these are the caller's own arguments.
    unsafe { munmap(address, length) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn mremap(
    address: *mut c_void,
    length: size_t,
    wanted: size_t,
    flags: c_int,
    to: *mut c_void,
) -> *mut c_void {
    let Some(mremap) = real::mremap() else {
        missing();
        return libc::MAP_FAILED;
    };
    // What is mapped there moves; nothing more is put there.
    forget(&pages(address, length));
    // SAFETY: these are the caller's own arguments; what it left out the C library does not look at.
    unsafe { mremap(address, length, wanted, flags, to) }
}
