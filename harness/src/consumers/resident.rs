//! Which frames can be nominated, as the engine told it: one call for thousands of frames, where a nomination of each would be refused.

use mem_event::{Gfn, P2mType, PAGE_SIZE};
use mem_event_client::Client;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Frames that one call tells of.
const CHUNK: u64 = PAGE_SIZE as u64;

/// What was asked so far. The guest goes on meanwhile, so it is true for a moment: what has changed since is refused when it is
/// nominated, or comes by in the next scan.
#[derive(Debug, Default)]
pub struct Resident {
    /// By the number of the chunk: for each of its frames whether it is ordinary memory that the domain holds, and was not taken yet.
    chunks: HashMap<u64, Vec<bool>>,
}

impl Resident {
    /// Whether a frame can be nominated, which is said once of each. A frame that was never touched has no memory, and one of another
    /// kind is not pageable.
    ///
    /// # Errors
    /// The connection ended.
    pub fn take(&mut self, client: &mut Client, gfn: Gfn) -> anyhow::Result<bool> {
        let (chunk, at) = (gfn.0 / CHUNK, usize::try_from(gfn.0 % CHUNK)?);
        let frames = match self.chunks.entry(chunk) {
            Entry::Occupied(told) => told.into_mut(),
            Entry::Vacant(place) => {
                let types = client.types_from(Gfn(chunk * CHUNK))?;
                place.insert(types.into_iter().map(|(kind, held)| held && kind == P2mType::RamRw).collect())
            }
        };
        Ok(frames.get_mut(at).is_some_and(std::mem::take))
    }
}
