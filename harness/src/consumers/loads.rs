//! Contents of frames that a pager has handed over by shared memory, until it is known what became of them.

use super::pagefile::PageFile;
use anyhow::bail;
use mem_event::{Errno, Gfn};
use mem_event_client::Channel;

/// Frames whose content was handed over, each with the load's number.
#[derive(Debug, Default)]
pub struct Loads(Vec<(Gfn, u32)>);

impl Loads {
    /// Hands a frame's content over; false where there is no place for it.
    pub fn hand_over(&mut self, channel: &mut Channel, gfn: Gfn, content: &[u8]) -> bool {
        let Ok(content) = content.try_into() else { return false };
        let number = channel.load(gfn, content);
        self.0.extend(number.map(|number| (gfn, number)));
        number.is_some()
    }

    /// Whether it is not known yet what became of a frame's content.
    #[must_use]
    pub fn contain(&self, gfn: Gfn) -> bool {
        self.0.iter().any(|(other, _)| *other == gfn)
    }

    /// Learns what became of all of them; the page file forgets those that were taken. Whether there was memory for all: a vCPU whose frame
    /// did not come asks for it again.
    ///
    /// # Errors
    /// The connection ended, or a load was refused for another reason.
    pub fn settle(&mut self, channel: &mut Channel, file: &mut PageFile) -> anyhow::Result<bool> {
        let mut all = true;
        for (gfn, number) in std::mem::take(&mut self.0) {
            if channel.became(number).is_none() {
                // Contents come before the calls that follow them.
                channel.client.info()?;
            }
            match channel.became(number) {
                // ENOENT: the frame is back already.
                Some(Ok(()) | Err(Errno::ENOENT)) => file.forget(gfn),
                Some(Err(Errno::ENOMEM)) => all = false,
                Some(Err(errno)) => bail!("frame {gfn} cannot be loaded: {errno}"),
                None => bail!("the content of frame {gfn} was not taken"),
            }
        }
        Ok(all)
    }
}
