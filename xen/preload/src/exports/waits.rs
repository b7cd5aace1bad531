//! Waiting for descriptors. Requests are on the tool's ring as soon as it has waited, for tools that look at the ring before they read
//! their event channel, as LibVMI does. One of the files with unsafe code: functions that C calls.

#![allow(unsafe_code, reason = "functions by the C library's names, which call the C library's own; argued below")]

use super::missing;
use crate::{device, real};
use libc::{c_int, epoll_event, fd_set, nfds_t, pollfd, sigset_t, size_t, timespec, timeval};

/// Defines functions that wait: `NAME(arguments)`.
macro_rules! wait {
    ($($name:ident($($argument:ident: $type:ty),+);)+) => {
        $(#[unsafe(no_mangle)]
        unsafe extern "C" fn $name($($argument: $type),+) -> c_int {
            let Some(wait) = real::$name() else { return missing() };
            // SAFETY: these are the caller's own arguments.
            let ready = unsafe { wait($($argument),+) };
            if ready >= 0 {
                device::waited();
            }
            ready
        })+
    };
}

wait! {
    poll(fds: *mut pollfd, count: nfds_t, limit: c_int);
    ppoll(fds: *mut pollfd, count: nfds_t, limit: *const timespec, mask: *const sigset_t);
    __poll_chk(fds: *mut pollfd, count: nfds_t, limit: c_int, length: size_t);
    __ppoll_chk(fds: *mut pollfd, count: nfds_t, limit: *const timespec, mask: *const sigset_t, length: size_t);
    select(count: c_int, read: *mut fd_set, write: *mut fd_set, other: *mut fd_set, limit: *mut timeval);
    pselect(count: c_int, read: *mut fd_set, write: *mut fd_set, other: *mut fd_set, limit: *const timespec, mask: *const sigset_t);
    epoll_wait(set: c_int, events: *mut epoll_event, most: c_int, limit: c_int);
    epoll_pwait(set: c_int, events: *mut epoll_event, most: c_int, limit: c_int, mask: *const sigset_t);
    epoll_pwait2(set: c_int, events: *mut epoll_event, most: c_int, limit: *const timespec, mask: *const sigset_t);
}
