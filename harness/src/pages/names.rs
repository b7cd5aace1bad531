//! What lies in a page, and who touched it, in words.

use super::touched::{Page, Pages, Touch, Toucher};
use crate::guest::symbols::Symbols;
use mem_event::{Gla, Gpa};

/// The lowest linear address of a kernel's half.
const KERNEL: u64 = 1 << 63;

/// Names for a run's pages.
#[derive(Debug)]
pub struct Names<'a> {
    symbols: &'a Symbols,
    /// When the kernel itself was first seen to touch something; before that its loader runs.
    kernel_since: Option<u64>,
}

fn without_distance(name: String) -> String {
    name.rsplit_once("+0x").map_or(name.clone(), |(name, _)| name.to_owned())
}

impl<'a> Names<'a> {
    /// Those that the symbols give.
    #[must_use]
    pub fn new(pages: &Pages, symbols: &'a Symbols) -> Names<'a> {
        let touches = pages.pages.values().flat_map(|page| [page.first, page.last]);
        let is_kernels = |touch: &Touch| match touch.by {
            Toucher::Code(rip) | Toucher::Walk(rip) => symbols.linear().name(Gla(rip)).is_some(),
            Toucher::Device => false,
        };
        Names { symbols, kernel_since: touches.filter(is_kernels).map(|touch| touch.at).min() }
    }

    /// What lies in a page: the symbol at its first touch, else `ram`.
    #[must_use]
    pub fn page(&self, gfn: u64, page: &Page) -> String {
        self.symbols.name(Gpa(gfn << 12 | u64::from(page.offset))).map_or_else(|| "ram".into(), without_distance)
    }

    /// Who touched a page.
    #[must_use]
    pub fn by(&self, touch: &Touch) -> String {
        match touch.by {
            Toucher::Device => "a device".into(),
            Toucher::Walk(rip) => format!("{}, page walk", self.code(rip, touch.at)),
            Toucher::Code(rip) => self.code(rip, touch.at),
        }
    }

    fn code(&self, rip: u64, at: u64) -> String {
        if rip == 0 {
            return "unknown".into();
        }
        if let Some(name) = self.symbols.linear().name(Gla(rip)) {
            return without_distance(name);
        }
        match self.kernel_since {
            // A module's, or code that the kernel has made.
            Some(_) if rip >= KERNEL => "kernel, no symbol".into(),
            Some(since) if at < since => "the kernel's loader".into(),
            Some(_) => "user code".into(),
            // Without a kernel code lies where its addresses say.
            None => self.symbols.around(Gpa(rip)).map_or_else(|| format!("{rip:#x}"), str::to_owned),
        }
    }
}
