//! Where paged-out frames are kept: a file without a name, and which slot of it holds which frame.

use anyhow::Context;
use mem_event::{Gfn, PAGE_SIZE};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// The page file. Nobody else can open it; it is gone with its last descriptor.
#[derive(Debug)]
pub struct PageFile {
    file: File,
    slots: HashMap<Gfn, u64>,
    /// Slots that held a frame once; the last freed is used first.
    free: Vec<u64>,
    used: u64,
}

impl PageFile {
    /// An empty file among the temporary ones, mode 0600, without a name.
    ///
    /// # Errors
    /// No such file can be made there.
    pub fn create() -> anyhow::Result<PageFile> {
        let place = std::env::temp_dir();
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = rustix::fs::open(&place, flags, Mode::RUSR | Mode::WUSR).with_context(|| {
            format!("cannot make a page file in {} (set TMPDIR to a folder on a disk file system)", place.display())
        })?;
        Ok(PageFile { file: file.into(), slots: HashMap::new(), free: Vec::new(), used: 0 })
    }

    /// Keeps a frame's content.
    ///
    /// # Errors
    /// The file cannot be written; nothing is kept then.
    pub fn keep(&mut self, gfn: Gfn, content: &[u8]) -> anyhow::Result<()> {
        let slot = self.free.pop().unwrap_or(self.used);
        if let Err(error) = self.file.write_all_at(content, slot * PAGE_SIZE as u64) {
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
    pub fn content(&self, gfn: Gfn) -> anyhow::Result<Option<Box<[u8]>>> {
        let Some(slot) = self.slots.get(&gfn) else { return Ok(None) };
        let mut content = vec![0; PAGE_SIZE].into_boxed_slice();
        self.file.read_exact_at(&mut content, slot * PAGE_SIZE as u64).context("the page file cannot be read")?;
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
    use mem_event::Gfn;

    #[test]
    fn a_frame_comes_back_as_it_was_kept() {
        let mut file = PageFile::create().unwrap();
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
