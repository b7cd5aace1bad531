//! The functions of the C library that are taken. Each looks whether it is about something of Xen's, and else is the C library's.
//!
//! Those with a variable number of arguments are defined with all that they can have: on x86-64 an argument that the caller left out is
//! a register that nobody wrote, which goes on to the C library's function, and that looks at it only where it was handed over.

mod channel;
mod files;
mod pages;
mod waits;

use crate::real;
use libc::c_int;
use xen::errno::Errno;

/// A result as a function of the C library gives it.
fn result<T: From<i8>>(result: Result<T, Errno>) -> T {
    result.unwrap_or_else(|errno| {
        real::set_errno(errno.0);
        T::from(-1)
    })
}

/// What the C library does not have cannot be asked of it.
fn missing() -> c_int {
    real::set_errno(libc::ENOSYS);
    -1
}
