//! Where paged-out frames are kept: a file without a name, on disk or in memory, with each frame at its own place.
//!
//! The plugin gets a descriptor of it before the first frame goes out, and keeps it as long as the domain lives: a pager may be killed
//! at any moment, and what it has evicted is its successor's. There is no map of the file that could be lost, or be wrong: a
//! frame's content lies at its number times 4096, and which frames are out is the engine's to say. A frame is written while the
//! guest still holds it, and its place is written again only when it is nominated anew; so what the engine calls paged out is
//! in the file, whole, whenever the pager died. The file grows to the size of the guest's memory at most.

use crate::machine::folder::unnamed_file;
use crate::scenario::settings::{PagerSettings, Store};
use anyhow::{Context, bail};
use mem_event::{Gfn, P2mType, PAGE_SIZE};
use mem_event_client::Client;
use rustix::fs::{FallocateFlags, MemfdFlags};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

/// How often a read of the page file is tried before its frame's vCPU is left stopped.
const TRIES: u32 = 4;

/// The page file. Nobody else can open it; it is gone with its last descriptor.
#[derive(Debug)]
pub struct PageFile {
    file: File,
    /// How many frames it holds at most.
    capacity: Option<u64>,
    /// How many reads fail from now on.
    failing_reads: u32,
    frames: BTreeSet<Gfn>,
    /// Frames that are out and in no file: nobody handed one over.
    lost: BTreeSet<Gfn>,
}

impl PageFile {
    /// The file of the pager before this one with what is in it, where there was one; else an empty one, which is handed over for
    /// the next. And the frames that the one before nominated and did not evict.
    ///
    /// # Errors
    /// No such file can be made, or the connection does not hold the paging ring.
    pub fn take_over(client: &mut Client, settings: &PagerSettings) -> anyhow::Result<(PageFile, Vec<Gfn>)> {
        let kept = client.page_file()?;
        let types = client.types()?;
        let frames = |is: fn(P2mType, bool) -> bool| {
            let numbered = types.iter().enumerate().filter(move |(_, (kind, held))| is(*kind, *held));
            numbered.map(|(number, _)| Gfn(number as u64))
        };
        let out = frames(|kind, held| !held && matches!(kind, P2mType::RamPaged | P2mType::RamPagingIn));
        let nominated = frames(|kind, _| kind == P2mType::RamPagingOut).collect();
        let mut file = match kept {
            Some(kept) => PageFile { frames: out.collect(), ..PageFile::on(kept, settings) },
            None => PageFile { lost: out.collect(), ..PageFile::create(settings)? },
        };
        client.set_page_file(&file.file)?;
        file.capacity = settings.capacity;
        Ok((file, nominated))
    }

    /// An empty one: a file among the temporary ones, mode 0600, without a name; or memory.
    ///
    /// # Errors
    /// No such file can be made there.
    pub fn create(settings: &PagerSettings) -> anyhow::Result<PageFile> {
        let file = match settings.store {
            Store::File => unnamed_file("a page file")?.into(),
            Store::Memory => rustix::fs::memfd_create("mem-event-pages", MemfdFlags::CLOEXEC)
                .context("cannot make a page file in memory")?,
        };
        Ok(PageFile::on(file, settings))
    }

    fn on(file: OwnedFd, settings: &PagerSettings) -> PageFile {
        let PagerSettings { capacity, failing_reads, .. } = *settings;
        PageFile { file: file.into(), capacity, failing_reads, frames: BTreeSet::new(), lost: BTreeSet::new() }
    }

    /// Keeps a frame's content.
    ///
    /// # Errors
    /// The file is full or cannot be written; nothing is kept then.
    pub fn keep(&mut self, gfn: Gfn, content: &[u8]) -> anyhow::Result<()> {
        if let Some(capacity) = self.capacity.filter(|most| !self.holds(gfn) && self.frames.len() as u64 >= *most) {
            bail!("the page file is full with {capacity} frames");
        }
        self.file.write_all_at(content, place(gfn)).context("the page file cannot be written")?;
        self.frames.insert(gfn);
        Ok(())
    }

    /// As [`PageFile::content`]; a read that fails is tried again.
    ///
    /// # Errors
    /// As there.
    pub fn read(&mut self, gfn: Gfn) -> anyhow::Result<Option<Box<[u8]>>> {
        for _ in 1..TRIES {
            if let Ok(content) = self.content(gfn) {
                return Ok(content);
            }
        }
        self.content(gfn)
    }

    /// A frame's content, if it is here.
    ///
    /// # Errors
    /// The file cannot be read, or the frame was lost with a pager that handed no file over; it stays listed.
    pub fn content(&mut self, gfn: Gfn) -> anyhow::Result<Option<Box<[u8]>>> {
        if self.lost.contains(&gfn) {
            bail!("its content went with a pager that handed no page file over");
        }
        if !self.holds(gfn) {
            return Ok(None);
        }
        if self.failing_reads > 0 {
            self.failing_reads -= 1;
            bail!("the page file cannot be read: a read that was to fail");
        }
        let mut content = vec![0; PAGE_SIZE].into_boxed_slice();
        self.file.read_exact_at(&mut content, place(gfn)).context("the page file cannot be read")?;
        Ok(Some(content))
    }

    /// Whether a frame is here.
    #[must_use]
    pub fn holds(&self, gfn: Gfn) -> bool {
        self.frames.contains(&gfn)
    }

    /// Forgets a frame, which is the guest's again. Where the file is limited its room is given back.
    pub fn forget(&mut self, gfn: Gfn) {
        if self.frames.remove(&gfn) && self.capacity.is_some() {
            // A file system that cannot do it keeps the room for this frame's next time.
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = rustix::fs::fallocate(&self.file, hole, place(gfn), PAGE_SIZE as u64);
        }
    }

    /// The frames that are here, in ascending order.
    #[must_use]
    pub fn frames(&self) -> Vec<Gfn> {
        self.frames.iter().copied().collect()
    }
}

/// Where a frame lies in the file.
fn place(gfn: Gfn) -> u64 {
    gfn.0 * PAGE_SIZE as u64
}

#[cfg(test)]
mod tests {
    use super::PageFile;
    use crate::scenario::settings::{PagerSettings, Store};
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
            file.keep(Gfn(3), &[4; 4096]).unwrap();
            assert_eq!(file.content(Gfn(2)).unwrap().unwrap()[..], [2; 4096]);
            assert_eq!(file.content(Gfn(3)).unwrap().unwrap()[..], [4; 4096]);
            assert_eq!(file.content(Gfn(1)).unwrap(), None);
            assert_eq!(file.frames(), [Gfn(2), Gfn(3)]);
        }
    }

    #[test]
    fn a_full_one_keeps_what_it_has_and_takes_more_when_there_is_room() {
        for settings in both() {
            let mut file = PageFile::create(&PagerSettings { capacity: Some(1), ..settings }).unwrap();
            file.keep(Gfn(1), &[1; 4096]).unwrap();
            assert!(file.keep(Gfn(2), &[2; 4096]).unwrap_err().to_string().contains("full"));
            assert_eq!(file.frames(), [Gfn(1)]);
            file.forget(Gfn(1));
            file.keep(Gfn(2), &[2; 4096]).unwrap();
            let blocks = std::os::unix::fs::MetadataExt::blocks(&file.file.metadata().unwrap());
            assert!(blocks <= 16, "what was forgotten takes no room: {blocks} blocks of 512 bytes");
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
