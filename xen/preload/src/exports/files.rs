//! Opening, duplicating, closing. One of the files with unsafe code: functions that C calls.

#![allow(unsafe_code, reason = "functions by the C library's names, which call the C library's own; argued below")]
#![allow(clippy::missing_safety_doc, reason = "each has the contract of the C library's function of its name")]

use super::{missing, result};
use crate::environment::environment;
use crate::{descriptor, device, memory, real};
use libc::{FILE, c_char, c_int, mode_t};

/// Defines functions that open a path: `NAME(arguments before the path; path; flags; arguments behind them)`.
macro_rules! open {
    ($($name:ident($($before:ident: $type:ty)?; $path:ident; $flags:ident; $($mode:ident)?))+) => {
        $(#[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            $($before: $type,)? $path: *const c_char, $flags: c_int $(, $mode: mode_t)?
        ) -> c_int {
            if let Some(opened) = device::open($path.expose_provenance() as u64, $flags) {
                return result(opened);
            }
            match real::$name() {
                // SAFETY: these are the caller's own arguments, in the caller's order.
                Some(open) => unsafe { open($($before,)? $path, $flags $(, $mode)?) },
                None => missing(),
            }
        })+
    };
}

open! {
    open(; path; flags; mode)
    open64(; path; flags; mode)
    openat(folder: c_int; path; flags; mode)
    openat64(folder: c_int; path; flags; mode)
    __open_2(; path; flags;)
    __open64_2(; path; flags;)
    __openat_2(folder: c_int; path; flags;)
    __openat64_2(folder: c_int; path; flags;)
}

/// A stream of a file that tells of the hypervisor; `None` for any other path.
fn stream(path: *const c_char, mode: *const c_char) -> Option<*mut FILE> {
    let path = memory::text(path.expose_provenance() as u64, 64)?;
    let text = environment()?.version.file(&path)?;
    let reads = memory::text(mode.expose_provenance() as u64, 16).is_some_and(|mode| mode.starts_with('r'));
    let fd = result(device::file(&text, if reads { libc::O_RDONLY } else { libc::O_RDWR }));
    if fd < 0 {
        return Some(std::ptr::null_mut());
    }
    // SAFETY: the descriptor is new and nobody else's, and the mode is a text that ends with a zero.
    Some(unsafe { libc::fdopen(fd, c"r".as_ptr()) })
}

macro_rules! stream {
    ($($name:ident)+) => {
        $(#[unsafe(no_mangle)]
        unsafe extern "C" fn $name(path: *const c_char, mode: *const c_char) -> *mut FILE {
            if environment().is_some() && let Some(stream) = stream(path, mode) {
                return stream;
            }
            match real::$name() {
                // SAFETY: these are the caller's own arguments.
                Some(open) => unsafe { open(path, mode) },
                None => {
                    missing();
                    std::ptr::null_mut()
                }
            }
        })+
    };
}

stream!(fopen fopen64);

#[unsafe(no_mangle)]
unsafe extern "C" fn close(fd: c_int) -> c_int {
    if descriptor::kind(fd).is_some() {
        device::closed(fd);
    }
    match real::close() {
        // SAFETY: this is the caller's own argument.
        Some(close) => unsafe { close(fd) },
        None => missing(),
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup(fd: c_int) -> c_int {
    let Some(dup) = real::dup() else { return missing() };
    // SAFETY: this is the caller's own argument.
    let new = unsafe { dup(fd) };
    device::duplicated(fd, new);
    new
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup2(fd: c_int, to: c_int) -> c_int {
    let Some(dup2) = real::dup2() else { return missing() };
    // SAFETY: these are the caller's own arguments.
    let new = unsafe { dup2(fd, to) };
    device::duplicated(fd, new);
    new
}

#[unsafe(no_mangle)]
unsafe extern "C" fn dup3(fd: c_int, to: c_int, flags: c_int) -> c_int {
    let Some(dup3) = real::dup3() else { return missing() };
    // SAFETY: these are the caller's own arguments.
    let new = unsafe { dup3(fd, to, flags) };
    device::duplicated(fd, new);
    new
}

macro_rules! control {
    ($($name:ident)+) => {
        $(#[unsafe(no_mangle)]
        unsafe extern "C" fn $name(fd: c_int, command: c_int, argument: usize) -> c_int {
            let Some(control) = real::$name() else { return missing() };
            // SAFETY: these are the caller's own arguments; what it left out the C library does not look at.
            let value = unsafe { control(fd, command, argument) };
            if matches!(command, libc::F_DUPFD | libc::F_DUPFD_CLOEXEC) {
                device::duplicated(fd, value);
            }
            value
        })+
    };
}

control!(fcntl fcntl64);
