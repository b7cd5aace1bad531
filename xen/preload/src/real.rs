//! The C library's own functions, behind those of this library. One of the files with unsafe code: names become functions.

#![allow(unsafe_code, reason = "a symbol's address becomes a function of its type; argued below")]

use libc::{
    FILE, c_char, c_int, c_ulong, c_void, epoll_event, fd_set, nfds_t, off_t, pollfd, sigset_t, size_t, ssize_t,
    timespec, timeval,
};
use std::sync::atomic::{AtomicPtr, Ordering};

/// Each function's type; `None` where the C library has no such function.
macro_rules! functions {
    ($($name:ident: $type:ty;)+) => {
        $(pub fn $name() -> Option<$type> {
            static FOUND: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
            let mut found = FOUND.load(Ordering::Relaxed);
            if found.is_null() {
                const NAME: *const c_char = concat!(stringify!($name), "\0").as_ptr().cast();
                // SAFETY: the name ends with a zero, and the handle is the one that means "behind this library".
                found = unsafe { libc::dlsym(libc::RTLD_NEXT, NAME) };
                FOUND.store(found, Ordering::Relaxed);
            }
            // SAFETY: a null pointer is `None`; any other is the C library's function of this name, whose type in C is this one.
            unsafe { std::mem::transmute::<*mut c_void, Option<$type>>(found) }
        })+
    };
}

type Open = unsafe extern "C" fn(*const c_char, c_int, ...) -> c_int;
type OpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int, ...) -> c_int;
type CheckedOpen = unsafe extern "C" fn(*const c_char, c_int) -> c_int;
type CheckedOpenAt = unsafe extern "C" fn(c_int, *const c_char, c_int) -> c_int;
type OpenStream = unsafe extern "C" fn(*const c_char, *const c_char) -> *mut FILE;
type Map = unsafe extern "C" fn(*mut c_void, size_t, c_int, c_int, c_int, off_t) -> *mut c_void;
type Control = unsafe extern "C" fn(c_int, c_int, ...) -> c_int;

functions! {
    open: Open;
    open64: Open;
    openat: OpenAt;
    openat64: OpenAt;
    __open_2: CheckedOpen;
    __open64_2: CheckedOpen;
    __openat_2: CheckedOpenAt;
    __openat64_2: CheckedOpenAt;
    fopen: OpenStream;
    fopen64: OpenStream;
    close: unsafe extern "C" fn(c_int) -> c_int;
    dup: unsafe extern "C" fn(c_int) -> c_int;
    dup2: unsafe extern "C" fn(c_int, c_int) -> c_int;
    dup3: unsafe extern "C" fn(c_int, c_int, c_int) -> c_int;
    fcntl: Control;
    fcntl64: Control;
    ioctl: unsafe extern "C" fn(c_int, c_ulong, ...) -> c_int;
    mmap: Map;
    mmap64: Map;
    munmap: unsafe extern "C" fn(*mut c_void, size_t) -> c_int;
    mremap: unsafe extern "C" fn(*mut c_void, size_t, size_t, c_int, ...) -> *mut c_void;
    read: unsafe extern "C" fn(c_int, *mut c_void, size_t) -> ssize_t;
    write: unsafe extern "C" fn(c_int, *const c_void, size_t) -> ssize_t;
    poll: unsafe extern "C" fn(*mut pollfd, nfds_t, c_int) -> c_int;
    ppoll: unsafe extern "C" fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t) -> c_int;
    __poll_chk: unsafe extern "C" fn(*mut pollfd, nfds_t, c_int, size_t) -> c_int;
    __ppoll_chk: unsafe extern "C" fn(*mut pollfd, nfds_t, *const timespec, *const sigset_t, size_t) -> c_int;
    select: unsafe extern "C" fn(c_int, *mut fd_set, *mut fd_set, *mut fd_set, *mut timeval) -> c_int;
    pselect: unsafe extern "C" fn(c_int, *mut fd_set, *mut fd_set, *mut fd_set, *const timespec, *const sigset_t) -> c_int;
    epoll_wait: unsafe extern "C" fn(c_int, *mut epoll_event, c_int, c_int) -> c_int;
    epoll_pwait: unsafe extern "C" fn(c_int, *mut epoll_event, c_int, c_int, *const sigset_t) -> c_int;
    epoll_pwait2: unsafe extern "C" fn(c_int, *mut epoll_event, c_int, *const timespec, *const sigset_t) -> c_int;
}

/// Sets `errno`.
pub fn set_errno(number: c_int) {
    // SAFETY: the C library gives the address of this thread's own `errno`.
    unsafe { *libc::__errno_location() = number };
}
