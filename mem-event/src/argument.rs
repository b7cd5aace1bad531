//! A control operation's arguments as numbers of 64 bits: what crosses the control socket.

use crate::number::{Gfn, VcpuId, ViewId};

/// A value that goes over the control socket as one number.
pub(crate) trait Argument: Sized {
    /// The number.
    fn number(self) -> u64;

    /// The value with this number.
    ///
    /// # Errors
    /// A sentence, where no value has it.
    fn from_number(number: u64) -> Result<Self, String>;
}

impl Argument for u64 {
    fn number(self) -> u64 {
        self
    }

    fn from_number(number: u64) -> Result<u64, String> {
        Ok(number)
    }
}

impl Argument for u32 {
    fn number(self) -> u64 {
        self.into()
    }

    fn from_number(number: u64) -> Result<u32, String> {
        u32::try_from(number).map_err(|_| format!("{number:#x} is above 32 bits"))
    }
}

impl Argument for bool {
    fn number(self) -> u64 {
        self.into()
    }

    fn from_number(number: u64) -> Result<bool, String> {
        match number {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(format!("{other:#x} where 0 or 1 stands")),
        }
    }
}

impl Argument for Gfn {
    fn number(self) -> u64 {
        self.0
    }

    fn from_number(number: u64) -> Result<Gfn, String> {
        Ok(Gfn(number))
    }
}

impl Argument for ViewId {
    fn number(self) -> u64 {
        self.0.into()
    }

    fn from_number(number: u64) -> Result<ViewId, String> {
        u16::try_from(number).map(ViewId).map_err(|_| format!("{number:#x} is above 16 bits"))
    }
}

impl Argument for VcpuId {
    fn number(self) -> u64 {
        self.0.into()
    }

    fn from_number(number: u64) -> Result<VcpuId, String> {
        u32::from_number(number).map(VcpuId)
    }
}

/// An operation's arguments from the first on; those that it has not are 0.
pub(crate) fn padded(values: &[u64]) -> [u64; 5] {
    std::array::from_fn(|at| values.get(at).copied().unwrap_or_default())
}

/// The next argument of an operation, which has at most five.
pub(crate) fn next<T: Argument>(arguments: &mut impl Iterator<Item = (usize, u64)>) -> Result<T, String> {
    let (index, number) = arguments.next().ok_or("an operation has five arguments")?;
    T::from_number(number).map_err(|why| format!("argument {index}: {why}"))
}
