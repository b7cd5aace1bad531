//! Linear addresses of a guest: names for them, and where they lead, as far as its kernel was found and its tables were asked.
//!
//! ```text
//! kernel:do_sys_openat2        a symbol of the guest's kernel; +0x10 may follow
//! gla:0xffffffff81000000       a linear address; of a range (gla:0x1000-0x2fff) both ends are included
//! ```

use super::kernel::Kernel;
use crate::refusal::Refusal;
use mem_event::{Gla, Gpa, PAGE_SIZE};
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

const FORMS: &str = "write kernel:NAME, kernel:NAME+0x10, gla:0xffffffff81000000 or gla:0x1000-0x2fff";
/// Most pages of one range.
const MOST: u64 = 4096;

/// What is known.
#[derive(Debug, Default)]
pub struct Linear {
    /// The kernel as a file names it.
    kernel: Option<Kernel>,
    /// Whether a kernel is looked for in the guest.
    is_wanted: bool,
    found: OnceLock<Found>,
    /// Where pages lead that were asked for: the page's first address, and its frame's.
    pages: Mutex<BTreeMap<u64, u64>>,
}

/// A kernel that was found in a guest.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its names.
    pub kernel: Kernel,
    /// What the guest's addresses are more than those of the names.
    pub slide: u64,
    /// Where its image lies; it lies there in one piece.
    pub physical: Gpa,
}

/// Whether a place is written as a linear address.
#[must_use]
pub fn is_one(text: &str) -> bool {
    text.starts_with("kernel:") || text.starts_with("gla:")
}

impl Found {
    /// The address that a symbol has in the guest. Those of each processor's own data do not move.
    #[must_use]
    pub fn address(&self, address: u64) -> u64 {
        if address < super::kernel::flat::IMAGE { address } else { address.wrapping_add(self.slide) }
    }

    /// Where its image begins in the guest.
    #[must_use]
    pub fn text(&self) -> Option<u64> {
        self.kernel.names.text().map(|text| self.address(text))
    }
}

impl Linear {
    /// A kernel is to be found in the guest: the one of this file, or that which the guest holds.
    #[must_use]
    pub fn wanted(kernel: Option<Kernel>) -> Linear {
        Linear { kernel, is_wanted: true, ..Linear::default() }
    }

    /// Whether a kernel is to be found in the guest.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// The kernel of the file that the user named.
    #[must_use]
    pub fn kernel(&self) -> Option<&Kernel> {
        self.kernel.as_ref()
    }

    /// The kernel is there.
    pub fn is_found(&self, found: Found) {
        let _ = self.found.set(found);
    }

    /// The kernel, once it was found.
    #[must_use]
    pub fn found(&self) -> Option<&Found> {
        self.found.get()
    }

    /// Checks what can be known of a place before the guest runs.
    ///
    /// # Errors
    /// It is none, or names no symbol of the kernel.
    pub fn check(&self, text: &str) -> Result<(), Refusal> {
        match (text.strip_prefix("kernel:"), &self.kernel) {
            (Some(_), None) if !self.is_wanted => {
                let what = format!("{text:?} is a place in a kernel, and no kernel is named");
                Err(Refusal::usage(
                    what,
                    "name one by --symbols FILE, or --symbols guest for the table that the guest holds",
                ))
            }
            (Some(name), Some(kernel)) => kernel.names.find(split(name)?.0).map(drop),
            (Some(name), None) => split(name).map(drop),
            (None, _) => range(text).map(drop),
        }
    }

    /// The first and the last address of a place.
    ///
    /// # Errors
    /// As [`Linear::check`], and a kernel that was not found yet.
    pub fn range(&self, text: &str) -> Result<(u64, u64), Refusal> {
        let Some(name) = text.strip_prefix("kernel:") else { return range(text) };
        let found = self.found.get().ok_or_else(|| {
            Refusal::usage(
                format!("{text:?} is not known: the kernel was not found in the guest"),
                "wait until Linux runs there",
            )
        })?;
        let (name, distance) = split(name)?;
        let address = found.address(found.kernel.names.find(name)?).wrapping_add(distance);
        Ok((address, address))
    }

    /// Checks that the guest's program may come to a place.
    ///
    /// # Errors
    /// It is a symbol of data.
    pub fn check_code(&self, text: &str) -> Result<(), Refusal> {
        let (Some(name), Some(found)) = (text.strip_prefix("kernel:"), self.found.get()) else { return Ok(()) };
        let (name, _) = split(name)?;
        if found.kernel.names.is_data(name) {
            let what = format!("{text:?} is data of the kernel, and no program comes there");
            return Err(Refusal::usage(what, format!("name a function, or watch it: --watch {text}=w")));
        }
        Ok(())
    }

    /// The pages of a place by their first addresses.
    ///
    /// # Errors
    /// As [`Linear::range`].
    pub fn pages(&self, text: &str) -> Result<Vec<Gla>, Refusal> {
        let (first, last) = self.range(text)?;
        let (first, last) = (first & !0xfff, last & !0xfff);
        Ok((first..=last).step_by(PAGE_SIZE).map(Gla).collect())
    }

    /// A page leads there.
    pub fn leads(&self, page: Gla, frame: Gpa) {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(page.0 & !0xfff, frame.0 & !0xfff);
    }

    /// Where an address leads whose page was asked for.
    #[must_use]
    pub fn physical(&self, address: Gla) -> Option<Gpa> {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.get(&(address.0 & !0xfff)).map(|frame| Gpa(frame | address.0 & 0xfff))
    }

    /// The name of a linear address of the kernel's.
    #[must_use]
    pub fn name(&self, address: Gla) -> Option<String> {
        let found = self.found.get()?;
        found.kernel.names.name(address.0.wrapping_sub(found.slide))
    }

    /// The name of what lies at a physical address, where that is the kernel's image.
    #[must_use]
    pub fn name_at(&self, gpa: Gpa) -> Option<String> {
        let found = self.found.get()?;
        let inside = gpa.0.checked_sub(found.physical.0)?;
        found.kernel.names.name(found.kernel.names.text()?.checked_add(inside)?)
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, if digits.len() < text.len() { 16 } else { 10 }).ok()
}

/// A name, and a distance from it.
fn split(text: &str) -> Result<(&str, u64), Refusal> {
    let (name, distance) = text.rsplit_once('+').map_or((text, Some(0)), |(name, distance)| (name, number(distance)));
    match distance {
        Some(distance) if !name.is_empty() => Ok((name, distance)),
        _ => Err(Refusal::usage(format!("{text:?} is no symbol of a kernel"), FORMS)),
    }
}

fn range(text: &str) -> Result<(u64, u64), Refusal> {
    let addresses = text.strip_prefix("gla:").unwrap_or(text);
    let (first, last) = addresses.split_once('-').unwrap_or((addresses, addresses));
    match number(first).zip(number(last)) {
        Some((first, last)) if first <= last && (last >> 12) - (first >> 12) < MOST => Ok((first, last)),
        _ => Err(Refusal::usage(format!("{text:?} is no range of linear addresses, of 16 MiB at most"), FORMS)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Found, Linear};
    use crate::guest::kernel::Kernel;
    use crate::guest::kernel::listing;
    use mem_event::{Gla, Gpa};
    use std::sync::Arc;

    fn kernel() -> Kernel {
        let text = "ffffffff81000000 T _text\nffffffff81001000 T do_open\nffffffff82000000 B _end\n";
        Kernel { names: Arc::new(listing::read(text).unwrap()), task: None, banner: None }
    }

    #[test]
    fn names_move_with_the_kernel_and_lead_where_its_image_lies() {
        let linear = Linear::wanted(Some(kernel()));
        assert!(linear.range("kernel:do_open").unwrap_err().what.contains("was not found"));
        linear.is_found(Found { kernel: kernel(), slide: 0x1000_0000, physical: Gpa(0x200_0000) });
        assert_eq!(linear.range("kernel:do_open+0x10").unwrap(), (0xffff_ffff_9100_1010, 0xffff_ffff_9100_1010));
        assert_eq!(linear.name(Gla(0xffff_ffff_9100_1010)).as_deref(), Some("do_open+0x10"));
        assert_eq!(linear.name_at(Gpa(0x200_1000)).as_deref(), Some("do_open"));
        assert_eq!((linear.name(Gla(0x1000)), linear.name_at(Gpa(0x1000))), (None, None));
    }

    #[test]
    fn what_can_be_known_is_refused_before_the_guest_runs() {
        let linear = Linear::wanted(Some(kernel()));
        assert!(linear.check("kernel:do_opn").unwrap_err().remedy.contains("kernel:do_open"));
        assert!(Linear::default().check("kernel:do_open").unwrap_err().remedy.contains("--symbols"));
        for text in ["gla:", "gla:x", "gla:2-1", "gla:0-0x1000000", "kernel:+0x10", "kernel:do_open+x"] {
            assert!(linear.check(text).unwrap_err().remedy.contains("kernel:NAME"), "{text}");
        }
        assert!(linear.check("gla:0x1000-0x2fff").is_ok());
        assert_eq!(linear.pages("gla:0x1000-0x2fff").unwrap(), [Gla(0x1000), Gla(0x2000)]);
        linear.leads(Gla(0x1000), Gpa(0x5000));
        assert_eq!((linear.physical(Gla(0x1234)), linear.physical(Gla(0x2000))), (Some(Gpa(0x5234)), None));
    }
}
