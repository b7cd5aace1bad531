//! Memory that scenarios name: whole pages with nothing else on them, at an address that is also the guest-physical one.

use core::cell::UnsafeCell;

/// Bytes of a page and of a frame.
pub const PAGE_SIZE: u64 = 4096;

/// `N` pages of data. Statics are made by [`crate::pages!`].
///
/// There are no references into it, only addresses: what it holds may change under the guest's feet, by a consumer
/// while the vCPU is stopped. Use [`crate::access`].
#[repr(C, align(4096))]
pub struct Pages<const N: usize>(UnsafeCell<[[u8; 4096]; N]>);

// SAFETY: it hands out its address only; every access through that is a single instruction in `access`.
unsafe impl<const N: usize> Sync for Pages<N> {}

impl<const N: usize> Pages<N> {
    /// Zeroed pages.
    #[expect(clippy::new_without_default, reason = "used for statics, which need a const fn")]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([[0; 4096]; N]))
    }

    /// Its first address, virtual and guest-physical.
    pub fn address(&self) -> u64 {
        self.0.get().expose_provenance() as u64
    }

    /// Its size in bytes.
    pub const fn bytes(&self) -> u64 {
        N as u64 * PAGE_SIZE
    }
}

impl<const N: usize> core::fmt::Debug for Pages<N> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{N} pages at {:#x}", self.address())
    }
}

/// Makes a static of [`Pages`] that the harness finds by name, at an address that no compiler moves:
/// `guest::pages!(/** What it is for. */ WATCHED: 1);`. A guest's statics follow one another in order of their names.
#[macro_export]
macro_rules! pages {
    ($(#[$doc:meta])* $name:ident: $pages:expr) => {
        $(#[$doc])*
        #[unsafe(no_mangle)]
        #[unsafe(link_section = concat!(".pages.", stringify!($name)))]
        pub static $name: $crate::page::Pages<{ $pages }> = $crate::page::Pages::new();
    };
}
