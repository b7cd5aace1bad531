//! Asking a device, reading and writing it. One of the files with unsafe code: functions that C calls.

#![allow(unsafe_code, reason = "functions by the C library's names, which call the C library's own; argued below")]

use super::{missing, result};
use crate::descriptor::{self, Kind};
use crate::{device, real};
use libc::{c_int, c_ulong, c_void, size_t, ssize_t};
use std::os::fd::BorrowedFd;
use xen::errno::Errno;

/// A descriptor of the caller's, for as long as its call lasts.
fn borrowed<'a>(fd: c_int) -> BorrowedFd<'a> {
    // SAFETY: the caller asks something of this descriptor, which was opened here and has not been closed; a caller that closes it
    // meanwhile gets the kernel's EBADF, since nothing here owns it.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: c_ulong, argument: *mut c_void) -> c_int {
    if let Some(kind) = descriptor::kind(fd) {
        // The kernel looks at 32 bits.
        let request = request & c_ulong::from(u32::MAX);
        return result(device::ask(kind, borrowed(fd), request, argument.expose_provenance() as u64));
    }
    match real::ioctl() {
        // SAFETY: these are the caller's own arguments; what it left out the C library does not look at.
        Some(ioctl) => unsafe { ioctl(fd, request, argument) },
        None => missing(),
    }
}

fn length(bytes: Result<usize, Errno>) -> ssize_t {
    bytes.map_or_else(
        |errno| {
            real::set_errno(errno.0);
            -1
        },
        |bytes| ssize_t::try_from(bytes).unwrap_or(ssize_t::MAX),
    )
}

#[unsafe(no_mangle)]
unsafe extern "C" fn read(fd: c_int, buffer: *mut c_void, bytes: size_t) -> ssize_t {
    if let Some(Kind::Evtchn(set)) = descriptor::kind(fd) {
        return length(device::read_ports(set, borrowed(fd), buffer.expose_provenance() as u64, bytes));
    }
    match real::read() {
        // SAFETY: these are the caller's own arguments.
        Some(read) => unsafe { read(fd, buffer, bytes) },
        None => missing() as ssize_t,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, buffer: *const c_void, bytes: size_t) -> ssize_t {
    if let Some(Kind::Evtchn(set)) = descriptor::kind(fd) {
        return length(device::write_ports(set, borrowed(fd), buffer.expose_provenance() as u64, bytes));
    }
    match real::write() {
        // SAFETY: these are the caller's own arguments.
        Some(write) => unsafe { write(fd, buffer, bytes) },
        None => missing() as ssize_t,
    }
}
