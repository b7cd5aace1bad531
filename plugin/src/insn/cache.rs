//! The pages that a vCPU is known to be allowed to touch, asked before every memory instruction.
//!
//! Direct mapped, in two parts: pages that may be read, and pages that may be read and written (a page that may be written only is
//! in neither, and always walked). The owner fills it; any thread may empty it, which it does by
//! changing the key that every stored tag must carry. The owner then goes on with a key of another generation, which no tag carries, and
//! forgets the tags only when there has been each.

use crate::insn::recipe::Recipe;
use mem_event::Rights;
use std::sync::atomic::{AtomicU64, Ordering};

/// Pages a part; a power of two.
pub const PAGES: usize = 2048;
/// In the key while the cache is valid. No page number reaches this bit, and every stored tag has it.
const VALID: u64 = 1 << 63;
/// The lowest bit of the generation that key and tags carry: above the number of any page.
const GENERATION: u64 = 1 << 52;
/// How many there are.
const GENERATIONS: u64 = 1 << 10;
/// The key of an emptied cache: no stored tag has this bit, and neither has the tag of an unused slot, 0.
const EMPTY: u64 = 1 << 62;

/// The most vCPUs that have a cache.
pub const MOST_VCPUS: usize = 512;

/// All caches, zeroed memory until a vCPU uses its own; static, so that the quick check finds one by arithmetic alone.
pub static CACHES: [PageCache; MOST_VCPUS] = [const {
    PageCache {
        key: AtomicU64::new(0),
        current: AtomicU64::new(0),
        generation: AtomicU64::new(0),
        tags: [const { [const { AtomicU64::new(0) }; PAGES] }; 2],
    }
}; MOST_VCPUS];

/// The cache of a vCPU.
#[inline(always)]
pub fn of(vcpu: u32) -> Option<&'static PageCache> {
    CACHES.get(vcpu as usize)
}

/// Which part answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// For accesses that read.
    Read = 0,
    /// For accesses that write, or read and write.
    Write = 1,
}

impl Part {
    /// The part that answers for an access.
    #[inline]
    pub fn of(rights: Rights) -> Part {
        if rights.contains(Rights::W) { Part::Write } else { Part::Read }
    }
}

/// One vCPU's cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct PageCache {
    key: AtomicU64,
    /// The recipe whose check ran last, by its address: an even one for a quick recipe, an odd one (plus 1) for another.
    current: AtomicU64,
    /// The owner's: that of the tags that it stores.
    generation: AtomicU64,
    tags: [[AtomicU64; PAGES]; 2],
}

impl PageCache {
    /// Bytes from a cache's start to its key, for the check in `entry::shim`.
    pub const KEY_OFFSET: usize = std::mem::offset_of!(PageCache, key);
    /// Bytes to the address of the recipe whose check ran last.
    pub const CURRENT_OFFSET: usize = std::mem::offset_of!(PageCache, current);
    /// Bytes to the first tag of the part for reads.
    pub const READ_OFFSET: usize = std::mem::offset_of!(PageCache, tags);
    /// Bytes to the first tag of the part for writes.
    pub const WRITE_OFFSET: usize = PageCache::READ_OFFSET + PAGES * size_of::<AtomicU64>();

    /// Whether the page of this linear address may be touched.
    #[inline(always)]
    pub fn allows(&self, gla: u64, part: Part) -> bool {
        let page = gla >> 12;
        let tag = self.tags[part as usize][slot(page)].load(Ordering::Relaxed);
        // Acquire pairs with `empty`: the thread that emptied the cache published the new rights first.
        tag == page ^ self.key.load(Ordering::Acquire)
    }

    /// Owner only: this recipe's check runs.
    pub fn is_checking(&self, recipe: &Recipe) {
        self.current.store(std::ptr::from_ref(recipe) as u64 | 1, Ordering::Relaxed);
    }

    /// No recipe's check runs, and none is kept.
    pub fn is_checking_nothing(&self) {
        self.current.store(0, Ordering::Relaxed);
    }

    /// What [`PageCache::is_checking`] or a quick check stored last; 0 before any.
    pub fn current(&self) -> u64 {
        self.current.load(Ordering::Relaxed)
    }

    /// Owner only: remembers that the page may be touched.
    pub fn allow(&self, gla: u64, part: Part) {
        let page = gla >> 12;
        self.tags[part as usize][slot(page)].store(page | self.valid(), Ordering::Relaxed);
    }

    /// Any thread: from now on nothing is known.
    pub fn empty(&self) {
        self.key.store(EMPTY, Ordering::Release);
    }

    /// Owner only: makes an emptied cache usable again. Rights must be read after this, not before.
    pub fn revalidate(&self) {
        if self.key.load(Ordering::Relaxed) & VALID != 0 {
            return;
        }
        let generation = (self.generation.load(Ordering::Relaxed) + 1) % GENERATIONS;
        self.generation.store(generation, Ordering::Relaxed);
        if generation == 0 {
            for tag in self.tags.iter().flatten() {
                tag.store(0, Ordering::Relaxed);
            }
        }
        // SeqCst: the rights that are read next must not be read before the key says that the cache is in use again.
        self.key.store(self.valid(), Ordering::SeqCst);
    }

    /// The key of the owner's generation.
    fn valid(&self) -> u64 {
        VALID | (self.generation.load(Ordering::Relaxed) * GENERATION)
    }
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "below PAGES")]
fn slot(page: u64) -> usize {
    (page % PAGES as u64) as usize
}
