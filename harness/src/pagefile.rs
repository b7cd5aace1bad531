//! Where paged-out frames are kept: a file without a name, or memory, and which slot of it holds which frame.

use crate::folder::unnamed_file;
use crate::settings::{PagerSettings, Store};
use anyhow::{Context, bail};
use mem_event::{Gfn, PAGE_SIZE};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The page file. Nobody else can open it; it is gone with its last descriptor.
#[derive(Debug)]
pub struct PageFile {
    backing: Backing,
    /// How many frames it holds at most.
    capacity: u64,
    /// How many reads fail from now on.
    failing_reads: u32,
    slots: HashMap<Gfn, u64>,
    /// Slots that held a frame once; the last freed is used first.
    free: Vec<u64>,
    used: u64,
}

#[derive(Debug)]
enum Backing {
    File(File),
    Memory(Vec<u8>),
}

impl Backing {
    fn write(&mut self, slot: u64, content: &[u8]) -> anyhow::Result<()> {
        let at = slot * PAGE_SIZE as u64;
        match self {
            Backing::File(file) => Ok(file.write_all_at(content, at)?),
            Backing::Memory(bytes) => {
                let at = usize::try_from(at)?;
                let more = (at + PAGE_SIZE).saturating_sub(bytes.len());
                bytes.try_reserve(more)?;
                bytes.resize(bytes.len() + more, 0);
                bytes[at..at + PAGE_SIZE].copy_from_slice(content);
                Ok(())
            }
        }
    }

    fn read(&self, slot: u64, content: &mut [u8]) -> anyhow::Result<()> {
        let at = slot * PAGE_SIZE as u64;
        match self {
            Backing::File(file) => Ok(file.read_exact_at(content, at)?),
            Backing::Memory(bytes) => {
                let at = usize::try_from(at)?;
                content.copy_from_slice(bytes.get(at..at + PAGE_SIZE).context("beyond the end")?);
                Ok(())
            }
        }
    }
}

impl PageFile {
    /// An empty one: a file among the temporary ones, mode 0600, without a name; or memory.
    ///
    /// # Errors
    /// No such file can be made there.
    pub fn create(settings: &PagerSettings) -> anyhow::Result<PageFile> {
        let backing = match settings.store {
            Store::File => Backing::File(unnamed_file("a page file")?),
            Store::Memory => Backing::Memory(Vec::new()),
        };
        let (capacity, failing_reads) = (settings.capacity.unwrap_or(u64::MAX), settings.failing_reads);
        Ok(PageFile { backing, capacity, failing_reads, slots: HashMap::new(), free: Vec::new(), used: 0 })
    }

    /// Keeps a frame's content.
    ///
    /// # Errors
    /// The file is full or cannot be written; nothing is kept then.
    pub fn keep(&mut self, gfn: Gfn, content: &[u8]) -> anyhow::Result<()> {
        let slot = self.free.pop().unwrap_or(self.used);
        if slot >= self.capacity {
            bail!("the page file is full with {} frames", self.capacity);
        }
        if let Err(error) = self.backing.write(slot, content) {
            self.free.extend((slot < self.used).then_some(slot));
            return Err(error).context("the page file cannot be written");
        }
        self.used = self.used.max(slot + 1);
        if let Some(old) = self.slots.insert(gfn, slot) {
            self.free.push(old);
        }
        Ok(())
    }

    /// A frame's content, if it is here.
    ///
    /// # Errors
    /// The file cannot be read; the frame stays listed.
    pub fn content(&mut self, gfn: Gfn) -> anyhow::Result<Option<Box<[u8]>>> {
        let Some(slot) = self.slots.get(&gfn) else { return Ok(None) };
        if self.failing_reads > 0 {
            self.failing_reads -= 1;
            bail!("the page file cannot be read: a read that was to fail");
        }
        let mut content = vec![0; PAGE_SIZE].into_boxed_slice();
        self.backing.read(*slot, &mut content).context("the page file cannot be read")?;
        Ok(Some(content))
    }

    /// Whether a frame is here.
    #[must_use]
    pub fn holds(&self, gfn: Gfn) -> bool {
        self.slots.contains_key(&gfn)
    }

    /// Forgets a frame; its slot is free.
    pub fn forget(&mut self, gfn: Gfn) {
        self.free.extend(self.slots.remove(&gfn));
    }

    /// The frames that are here, in ascending order.
    #[must_use]
    pub fn frames(&self) -> Vec<Gfn> {
        let mut frames: Vec<Gfn> = self.slots.keys().copied().collect();
        frames.sort();
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::PageFile;
    use crate::settings::{PagerSettings, Store};
    use mem_event::Gfn;

    fn both() -> [PagerSettings; 2] {
        [Store::File, Store::Memory].map(|store| PagerSettings { store, ..PagerSettings::default() })
    }

    #[test]
    fn a_frame_comes_back_as_it_was_kept() {
        for settings in both() {
            let mut file = PageFile::create(&settings).unwrap();
            file.keep(Gfn(1), &[1; 4096]).unwrap();
            file.keep(Gfn(2), &[2; 4096]).unwrap();
            file.forget(Gfn(1));
            file.keep(Gfn(3), &[3; 4096]).unwrap();
            assert_eq!(file.used, 2, "a free slot is used again");
            assert_eq!(file.content(Gfn(2)).unwrap().unwrap()[..], [2; 4096]);
            assert_eq!(file.content(Gfn(3)).unwrap().unwrap()[..], [3; 4096]);
            assert_eq!(file.content(Gfn(1)).unwrap(), None);
            assert_eq!(file.frames(), [Gfn(2), Gfn(3)]);
        }
    }

    #[test]
    fn a_full_one_keeps_what_it_has_and_takes_more_when_a_slot_is_free() {
        for settings in both() {
            let mut file = PageFile::create(&PagerSettings { capacity: Some(1), ..settings }).unwrap();
            file.keep(Gfn(1), &[1; 4096]).unwrap();
            assert!(file.keep(Gfn(2), &[2; 4096]).unwrap_err().to_string().contains("full"));
            assert_eq!(file.frames(), [Gfn(1)]);
            file.forget(Gfn(1));
            file.keep(Gfn(2), &[2; 4096]).unwrap();
        }
    }

    #[test]
    fn a_read_that_failed_can_be_tried_again() {
        let mut file = PageFile::create(&PagerSettings { failing_reads: 1, ..PagerSettings::default() }).unwrap();
        file.keep(Gfn(1), &[1; 4096]).unwrap();
        assert!(file.content(Gfn(1)).is_err());
        assert_eq!(file.content(Gfn(1)).unwrap().unwrap()[..], [1; 4096]);
    }
}
