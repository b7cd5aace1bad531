//! A structure of the tool's memory, copied once: what is judged is what is acted upon, whatever the tool's other threads write.

use crate::errno::Errno;
use crate::tool::Tool;
use std::marker::PhantomData;

/// Where a field lies; its type says how long it is.
#[derive(Debug)]
pub struct Field<T> {
    offset: usize,
    number: PhantomData<T>,
}

impl<T> Clone for Field<T> {
    fn clone(&self) -> Field<T> {
        *self
    }
}

impl<T> Copy for Field<T> {}

impl<T> Field<T> {
    /// At so many bytes.
    #[must_use]
    pub const fn at(offset: usize) -> Field<T> {
        Field { offset, number: PhantomData }
    }

    /// Its place in bytes.
    #[must_use]
    pub const fn offset(self) -> usize {
        self.offset
    }
}

/// A number of some width, little endian in memory.
pub trait Number: Copy {
    /// The number in these bytes; those that are missing are 0.
    fn of(bytes: &[u8]) -> Self;
    /// Its bytes.
    fn bytes(self) -> Vec<u8>;
}

macro_rules! numbers {
    ($($type:ty),+) => {
        $(impl Number for $type {
            fn of(bytes: &[u8]) -> $type {
                let mut whole = [0; size_of::<$type>()];
                let length = whole.len().min(bytes.len());
                whole[..length].copy_from_slice(&bytes[..length]);
                <$type>::from_le_bytes(whole)
            }

            fn bytes(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
        })+
    };
}

numbers!(u8, u16, u32, u64, i32, i64);

/// A structure as the tool handed it over.
#[derive(Debug)]
pub struct Record {
    address: u64,
    bytes: Vec<u8>,
}

impl Record {
    /// Copies it.
    ///
    /// # Errors
    /// EFAULT.
    pub fn read(tool: &dyn Tool, address: u64, bytes: usize) -> Result<Record, Errno> {
        let mut record = Record { address, bytes: vec![0; bytes] };
        tool.read(address, &mut record.bytes)?;
        Ok(record)
    }

    /// One of these words.
    #[must_use]
    pub fn of_words(words: &[u64]) -> Record {
        Record { address: 0, bytes: words.iter().flat_map(|word| word.to_le_bytes()).collect() }
    }

    /// One of these bytes.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Record {
        Record { address: 0, bytes: bytes.to_vec() }
    }

    /// The words of one that was made of words.
    #[must_use]
    pub fn words<const COUNT: usize>(&self) -> [u64; COUNT] {
        std::array::from_fn(|index| u64::of(self.bytes.get(8 * index..).unwrap_or_default()))
    }

    /// One that is to be written to the tool's memory, all zero.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Record {
        Record { address: 0, bytes: vec![0; bytes] }
    }

    /// A field.
    #[must_use]
    pub fn get<T: Number>(&self, field: Field<T>) -> T {
        T::of(self.bytes.get(field.offset..).unwrap_or_default())
    }

    /// Sets a field of this copy.
    pub fn set<T: Number>(&mut self, field: Field<T>, value: T) {
        let bytes = value.bytes();
        if let Some(place) = self.bytes.get_mut(field.offset..field.offset + bytes.len()) {
            place.copy_from_slice(&bytes);
        }
    }

    /// Writes a field to the tool's memory.
    ///
    /// # Errors
    /// EFAULT.
    pub fn put<T: Number>(&self, tool: &dyn Tool, field: Field<T>, value: T) -> Result<(), Errno> {
        tool.write(self.address.wrapping_add(field.offset as u64), &value.bytes())
    }

    /// All of its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
