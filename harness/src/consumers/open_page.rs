//! A page that is open for now, and gets the rights that it had at the next event.

use mem_event::{AccessType, Gfn};
use mem_event_client::Channel;

/// The page, if one is open, with the rights that it had.
#[derive(Debug, Default)]
pub struct OpenPage(Option<(Gfn, AccessType)>);

impl OpenPage {
    /// The page that is open gets its rights back.
    ///
    /// # Errors
    /// The connection ended, or the plugin refuses.
    pub fn close(&mut self, channel: &mut Channel) -> anyhow::Result<()> {
        match self.0.take() {
            Some((gfn, access)) => channel.set_access(gfn, access),
            None => Ok(()),
        }
    }

    /// This page is open instead.
    ///
    /// # Errors
    /// As [`OpenPage::close`].
    pub fn open(&mut self, channel: &mut Channel, gfn: Gfn) -> anyhow::Result<()> {
        self.close(channel)?;
        self.0 = Some((gfn, channel.client.access(gfn)?));
        channel.set_access(gfn, AccessType::Rwx)
    }
}
