//! Xen's error numbers (`xen/include/public/errno.h`), which are Linux's for all that this crate returns.

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};
use std::fmt;

macro_rules! errnos {
    ($($(#[$doc:meta])* $name:ident = $number:literal),* $(,)?) => {
        /// An error number of the control interface.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Errno { $($(#[$doc])* $name = $number),* }

        impl Errno {
            /// The error with this positive number, if it is one of Xen's that this crate uses.
            #[must_use]
            pub fn from_number(number: u8) -> Option<Errno> {
                match number { $($number => Some(Errno::$name),)* _ => None }
            }

            /// The name in capitals, as in C.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Errno::$name => stringify!($name)),* }
            }
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1,
    /// No such frame or entry.
    ENOENT = 2,
    /// No such domain or vCPU.
    ESRCH = 3,
    /// Try again.
    EAGAIN = 11,
    /// Out of frames.
    ENOMEM = 12,
    /// Content could not be copied.
    EFAULT = 14,
    /// In use.
    EBUSY = 16,
    /// Exists already.
    EEXIST = 17,
    /// Not with populate-on-demand.
    EXDEV = 18,
    /// The domain lacks the means.
    ENODEV = 19,
    /// Bad argument.
    EINVAL = 22,
    /// Not with passthrough.
    EMLINK = 31,
    /// Out of range.
    ERANGE = 34,
    /// Not built in, or no ring (before 4.5).
    ENOSYS = 38,
    /// Not supported, or no ring (from 4.5 on).
    EOPNOTSUPP = 95,
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Encode for Errno {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (*self as u8).encode(encoder)
    }
}

impl<C> Decode<C> for Errno {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Errno, DecodeError> {
        Errno::from_number(u8::decode(decoder)?).ok_or(DecodeError::Other("no error number of Xen's"))
    }
}

impl<'de, C> BorrowDecode<'de, C> for Errno {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(decoder: &mut D) -> Result<Errno, DecodeError> {
        Errno::decode(decoder)
    }
}
