//! What the frames of a guest hold that does not run: contents made from their numbers, so that each can be told from all others.
//!
//! A frame that goes to the pager has another content each time, as the guest may have written to it meanwhile. What a call or a pager
//! wrote stays.

use mem_event::{Gfn, PAGE_SIZE};
use std::collections::HashMap;

/// One frame's bytes.
pub type Page = [u8; PAGE_SIZE];

/// What a frame holds.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    /// Made from the frame's number, and from how often it was made anew.
    Made { gfn: Gfn, version: u64 },
    /// Zeros: the frame has just come into being.
    Zero,
    /// Bytes that a call wrote.
    Written(Box<Page>),
}

/// The frames whose content is not the first that is made for them.
#[derive(Debug, Default)]
pub struct Contents {
    frames: HashMap<Gfn, Content>,
    /// How often a frame was nominated.
    versions: HashMap<Gfn, u64>,
    /// What went to the pager, and at which step.
    evicted: HashMap<Gfn, (Content, u64)>,
}

/// A load of another content than was evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The step of the eviction.
    pub evicted: u64,
    /// The first byte that differs.
    pub offset: usize,
    /// The frame whose content it is, and how many evictions of it are newer.
    pub is_of: Option<(Gfn, u64)>,
}

impl Contents {
    /// Copies bytes of a frame.
    pub fn read(&self, gfn: Gfn, offset: u16, bytes: &mut [u8]) {
        let page = self.content(gfn).bytes();
        let offset = usize::from(offset);
        bytes.copy_from_slice(&page[offset..offset + bytes.len()]);
    }

    /// Overwrites bytes of a frame.
    pub fn write(&mut self, gfn: Gfn, offset: u16, bytes: &[u8]) {
        let mut page = self.content(gfn).bytes();
        let offset = usize::from(offset);
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.frames.insert(gfn, Content::Written(page));
    }

    /// The guest may have written to the frame until now, when the pager nominates it.
    pub fn nominated(&mut self, gfn: Gfn) {
        let version = self.versions.entry(gfn).or_default();
        *version += 1;
        let next = Content::Made { gfn, version: *version };
        if !matches!(self.frames.get(&gfn), Some(Content::Written(_))) {
            self.frames.insert(gfn, next);
        }
    }

    /// The frame's memory goes to the pager.
    pub fn evicted(&mut self, gfn: Gfn, step: u64) {
        let content = self.content(gfn);
        self.evicted.insert(gfn, (content, step));
    }

    /// The frame comes back; the pager says with which content.
    ///
    /// # Errors
    /// It is another one than went.
    pub fn loaded(&mut self, gfn: Gfn, page: &Page) -> Result<(), Wrong> {
        let Some((content, evicted)) = self.evicted.remove(&gfn) else { return Ok(()) };
        let due = content.bytes();
        let differs = due.iter().zip(page).position(|(due, is)| due != is);
        match differs {
            None => {
                self.frames.insert(gfn, content);
                Ok(())
            }
            Some(offset) => Err(Wrong { evicted, offset, is_of: self.owner(page) }),
        }
    }

    /// The frame comes back by a pager whose part is the recording's: with what it had.
    pub fn restored(&mut self, gfn: Gfn) {
        if let Some((content, _)) = self.evicted.remove(&gfn) {
            self.frames.insert(gfn, content);
        }
    }

    /// The frame has zeroed memory.
    pub fn zeroed(&mut self, gfn: Gfn) {
        self.evicted.remove(&gfn);
        self.frames.insert(gfn, Content::Zero);
    }

    /// The client shows what the source shows.
    pub fn shared(&mut self, source: Gfn, client: Gfn) {
        let content = self.content(source);
        self.frames.insert(client, content);
    }

    fn content(&self, gfn: Gfn) -> Content {
        self.frames.get(&gfn).cloned().unwrap_or(Content::Made { gfn, version: 0 })
    }

    /// The frame that this content was made for.
    fn owner(&self, page: &Page) -> Option<(Gfn, u64)> {
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| page[at + byte]));
        let (gfn, version) = (Gfn(number(0)), number(8));
        if *page != *made(gfn, version) {
            return None;
        }
        let last = match self.evicted.get(&gfn).map_or_else(|| self.content(gfn), |(content, _)| content.clone()) {
            Content::Made { version, .. } => version,
            _ => version,
        };
        Some((gfn, last.saturating_sub(version)))
    }
}

impl Content {
    fn bytes(&self) -> Box<Page> {
        match self {
            Content::Made { gfn, version } => made(*gfn, *version),
            Content::Zero => Box::new([0; PAGE_SIZE]),
            Content::Written(page) => page.clone(),
        }
    }
}

/// The frame's number, the version, and what splitmix64 makes of them.
fn made(gfn: Gfn, version: u64) -> Box<Page> {
    let mut page = Box::new([0; PAGE_SIZE]);
    let mut state = gfn.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ version.rotate_left(32);
    for (at, word) in page.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        let value = match at {
            0 => gfn.0,
            1 => version,
            _ => mixed ^ mixed >> 31,
        };
        *word = value.to_le_bytes();
    }
    page
}

#[cfg(test)]
mod tests {
    use super::{Contents, Wrong, made};
    use mem_event::Gfn;

    #[test]
    fn a_neighbours_content_and_an_old_one_are_told_apart_from_the_right_one() {
        let mut contents = Contents::default();
        for gfn in [Gfn(7), Gfn(8)] {
            contents.nominated(gfn);
            contents.evicted(gfn, gfn.0 * 10);
        }
        let wrong = contents.loaded(Gfn(7), &made(Gfn(8), 1)).unwrap_err();
        assert_eq!(wrong, Wrong { evicted: 70, offset: 0, is_of: Some((Gfn(8), 0)) });
        let wrong = contents.loaded(Gfn(8), &made(Gfn(8), 0)).unwrap_err();
        assert_eq!((wrong.evicted, wrong.offset), (80, 8));
        assert_eq!(wrong.is_of.map(|(gfn, _)| gfn), Some(Gfn(8)));
    }

    #[test]
    fn what_a_call_wrote_is_still_there_when_the_frame_comes_back() {
        let mut contents = Contents::default();
        contents.write(Gfn(3), 5, &[0xcc]);
        contents.nominated(Gfn(3));
        contents.evicted(Gfn(3), 1);
        let mut page = made(Gfn(3), 0);
        assert_eq!(contents.loaded(Gfn(3), &page).unwrap_err().offset, 5);
        contents.evicted(Gfn(3), 2);
        page[5] = 0xcc;
        assert_eq!(contents.loaded(Gfn(3), &page), Ok(()));
    }
}
