//! The contents that frames had when their memory went, as digests: blocks outlive a frame that comes back as it was, and are dropped
//! for one that comes back with another content.

use mem_event::{Gfn, PAGE_SIZE, keyed_digest};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

/// Frames without memory, with the digest of the content that their blocks were made from.
#[derive(Debug)]
pub struct Gone {
    digests: HashMap<Gfn, u64>,
    keys: [u64; 2],
}

impl Default for Gone {
    fn default() -> Gone {
        // No guest knows them: none can make two contents that look equal.
        let random = RandomState::new();
        Gone { digests: HashMap::new(), keys: [random.hash_one(0), random.hash_one(1)] }
    }
}

impl Gone {
    /// A frame's memory goes with this content. Where it went without coming back in between, it is still the first that counts.
    pub fn goes(&mut self, gfn: Gfn, content: &[u8; PAGE_SIZE]) {
        let digest = self.digest(content);
        self.digests.entry(gfn).or_insert(digest);
    }

    /// A frame is back with this content; says whether that may be another one than it had.
    pub fn is_back_changed(&mut self, gfn: Gfn, content: &[u8]) -> bool {
        self.digests.remove(&gfn).is_some_and(|digest| digest != self.digest(content))
    }

    fn digest(&self, content: &[u8]) -> u64 {
        keyed_digest(self.keys, content)
    }
}
