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
use xen::tool::Frame;

/// The pages that a call is about.
fn pages(address: *mut c_void, length: size_t) -> Range<u64> {
    let start = address.expose_provenance() as u64;
    let end = start.saturating_add(length as u64).checked_next_multiple_of(PAGE);
    start..end.unwrap_or(u64::MAX)
}

/// Nothing more is put into these pages; the frames that the tool has there.
fn forget(pages: &Range<u64>) -> Vec<Frame> {
    if !region::any() {
        return Vec::new();
    }
    with(|layer| layer.regions.remove(pages)).unwrap_or_default()
}

/// Frames that the tool sees no more: only now may they go.
fn release(frames: &[Frame]) {
    if !frames.is_empty() {
        let _ = with(|layer| layer.xen.unmapped(frames));
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
                    release(&forget(&pages(mapped, length)));
                }
                return mapped;
            }
            let flags = flags & !libc::MAP_TYPE | RESERVED;
            // SAFETY: the caller asked for a mapping at this place; what it gets there is memory of its own.
            let mapped = unsafe { map(address, length, libc::PROT_NONE, flags, -1, 0) };
            if mapped != libc::MAP_FAILED {
                let wanted = ProtFlags::from_bits_truncate(protection.cast_unsigned());
                let gone = with(|layer| layer.regions.add(pages(mapped, length), wanted));
                release(&gone.unwrap_or_default());
            }
            mapped
        })+
    };
}

map!(mmap mmap64);

#[unsafe(no_mangle)]
unsafe extern "C" fn munmap(address: *mut c_void, length: size_t) -> c_int {
    let Some(munmap) = real::munmap() else { return missing() };
    // Before the pages go: another thread may reserve them as soon as they have. What the kernel refuses takes none away.
    let is_aligned = (address.expose_provenance() as u64).is_multiple_of(PAGE) && length > 0;
    let gone = if is_aligned { forget(&pages(address, length)) } else { Vec::new() };
    // SAFETY: these are the caller's own arguments.
    let result = unsafe { munmap(address, length) };
    release(&gone);
    result
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
    let from = pages(address, length);
    // A frame stays where the tool has mapped it.
    if region::any() && with(|layer| layer.regions.has_frames(&from)) == Some(true) {
        real::set_errno(libc::EINVAL);
        return libc::MAP_FAILED;
    }
    // What is mapped there moves; nothing more is put there.
    forget(&from);
    // SAFETY: these are the caller's own arguments; what it left out the C library does not look at.
    unsafe { mremap(address, length, wanted, flags, to) }
}
