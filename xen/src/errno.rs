//! What a call is refused with: Linux's error numbers, which are Xen's (`xen/include/public/errno.h`).

use std::fmt;

/// An error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)+) => {
        impl Errno {
            $($(#[$doc])* pub const $name: Errno = Errno($number);)+
        }
    };
}

errnos! {
    /// Not permitted.
    EPERM = 1;
    /// No such entry; of a foreign mapping: the frame is paged out, and on its way.
    ENOENT = 2;
    /// No such domain, vCPU or frame.
    ESRCH = 3;
    /// No memory.
    ENOMEM = 12;
    /// Another version of the interface: the tools must be built anew.
    EACCES = 13;
    /// An address that is none of the tool's.
    EFAULT = 14;
    /// In use.
    EBUSY = 16;
    /// So it is already.
    EEXIST = 17;
    /// The domain has no such ring.
    ENODEV = 19;
    /// Bad argument.
    EINVAL = 22;
    /// The device knows no such request.
    ENOTTY = 25;
    /// The tool's buffer is too small for all of it.
    ENOSPC = 28;
    /// Not there.
    ENOSYS = 38;
    /// What is handed over ends too early.
    ENODATA = 61;
    /// Not supported.
    EOPNOTSUPP = 95;
    /// The tool's buffer is too small for one record.
    ENOBUFS = 105;
    /// No such event channel.
    ENOTCONN = 107;
}

impl From<mem_event::Errno> for Errno {
    fn from(errno: mem_event::Errno) -> Errno {
        Errno((errno as u8).into())
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Errno {
        Errno(errno.raw_os_error())
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}", self.0)
    }
}
