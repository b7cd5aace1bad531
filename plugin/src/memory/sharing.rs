//! Frames that show one page of the memory file: how they come together and part again.

use crate::memory::mapping::Memory;
use crate::memory::remap::{Move, Remapper};
use crate::memory::shares::Parting;
use crate::memory::userfault::UffdFault;
use mem_event::{Gfn, PAGE_SIZE};
use std::io;

/// Mappings that are left to QEMU, whose own number is counted once, when sharing begins.
const LEFT_TO_QEMU: u64 = 2048;
/// Mappings that a frame which shows another one's page may take: itself, and the second half of what it stands in.
const MAPPINGS_EACH: u64 = 2;

impl Memory {
    /// Makes it possible that frames show others' pages. Faults that come meanwhile are appended to `meanwhile`.
    ///
    /// # Errors
    /// A sentence.
    pub fn prepare_sharing(&self, meanwhile: &mut Vec<UffdFault>) -> Result<(), String> {
        if self.remapper.get().is_some() {
            return Ok(());
        }
        let userfault = self.opened_userfault().ok_or("no userfaultfd")?;
        let maps = std::fs::read_to_string("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
        let remapper = Remapper::new(userfault, self.base, self.size, meanwhile)
            .map_err(|error| format!("the guest's memory cannot be mapped a second time: {error}"))?;
        let _ = self.remapper.set((remapper, maps.lines().count() as u64));
        Ok(())
    }

    /// Where two frames differ first; `None` where they are equal.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn difference(&self, one: Gfn, other: Gfn) -> io::Result<Option<usize>> {
        let [mut left, mut right] = [[0; PAGE_SIZE]; 2];
        self.read(one, 0, &mut left)?;
        self.read(other, 0, &mut right)?;
        Ok(left.iter().zip(&right).position(|(left, right)| left != right))
    }

    /// Whether one frame more can show another one's page, by the number of mappings that the kernel allows a process. Frames that
    /// show their own are one mapping wherever they are neighbours, so parting never needs more.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn has_room_to_share(&self) -> Result<(), String> {
        const LIMIT: &str = "/proc/sys/vm/max_map_count";
        let limit = std::fs::read_to_string(LIMIT).ok().and_then(|text| text.trim().parse().ok());
        let limit = limit.ok_or_else(|| format!("{LIMIT} cannot be read"))?;
        let used = self.remapper.get().map_or(0, |(_, used)| *used);
        let borrowed = self.shares().borrowed();
        if borrowed < most_borrowers(limit, used) {
            return Ok(());
        }
        Err(format!(
            "{borrowed} frames show others' pages already; each may take {MAPPINGS_EACH} of the {limit} mappings that the host \
             allows QEMU, which has {used} and gets {LEFT_TO_QEMU} more; raise the sysctl vm.max_map_count"
        ))
    }

    /// The client shows the source's page from now on, and its own goes back to the host. Neither may be mapped writable.
    ///
    /// # Errors
    /// The kernel's error; the client then shows its own page as before.
    pub fn share(&self, source: Gfn, client: Gfn, meanwhile: &mut Vec<UffdFault>) -> io::Result<()> {
        let shares = self.shares();
        if shares.parting(client) != Parting::Alone {
            return Err(io::Error::other(format!("frame {client} shares already")));
        }
        let keeper = shares.keeper(source);
        drop(shares);
        self.show(&[(client, keeper)], meanwhile)?;
        self.shares_mut().join(keeper, client);
        self.punch(client)
    }

    /// The frame has a page of its own from now on, with the content that it showed. Nobody can write to what others still show.
    ///
    /// # Errors
    /// The kernel's error; the frame then may still show what others show, and must not be mapped writable.
    pub fn part(&self, gfn: Gfn, meanwhile: &mut Vec<UffdFault>) -> io::Result<()> {
        let parting = self.shares().parting(gfn);
        match &parting {
            Parting::Alone => return Ok(()),
            Parting::Borrows(keeper) => {
                self.copy(*keeper, gfn)?;
                self.show(&[(gfn, gfn)], meanwhile)?;
            }
            Parting::Keeps { heir, others } => {
                self.copy(gfn, *heir)?;
                let moves: Vec<_> = std::iter::once(heir).chain(others).map(|other| (*other, *heir)).collect();
                self.show(&moves, meanwhile)?;
            }
        }
        // From here on it may be read where it lies now, and not before; nobody has written to either place.
        self.shares_mut().leave(gfn);
        Ok(())
    }

    /// Copies a page to another's own place in the file.
    fn copy(&self, from: Gfn, to: Gfn) -> io::Result<()> {
        let mut content = [0; PAGE_SIZE];
        self.read(from, 0, &mut content)?;
        self.write_own(to, 0, &content)
    }

    /// Lets frames show pages, each that of another or its own.
    fn show(&self, pages: &[(Gfn, Gfn)], meanwhile: &mut Vec<UffdFault>) -> io::Result<()> {
        let no_ram = |gfn: Gfn| io::Error::other(format!("frame {gfn} is no RAM"));
        let place = |(gfn, of): &(Gfn, Gfn)| {
            let offset = self.offset(*of).ok_or_else(|| no_ram(*of))?;
            let address = self.base + self.offset(*gfn).ok_or_else(|| no_ram(*gfn))?;
            Ok(Move { offset, address })
        };
        let moves = pages.iter().map(place).collect::<io::Result<Vec<_>>>()?;
        let unprepared = || io::Error::other("sharing is not prepared");
        let ((remapper, _), userfault) = self.remapper.get().zip(self.opened_userfault()).ok_or_else(unprepared)?;
        remapper.remap(userfault, moves, meanwhile)
    }
}

/// How many frames may show others' pages where so many mappings are allowed and so many are used by others.
pub fn most_borrowers(limit: u64, used: u64) -> u64 {
    limit.saturating_sub(used).saturating_sub(LEFT_TO_QEMU) / MAPPINGS_EACH
}
