//! A page that is open for now, and gets the rights that it had at the next event.

use mem_event::{AccessType, Gfn};
use mem_event_client::Client;

/// The page, if one is open, with the rights that it had.
#[derive(Debug, Default)]
pub struct OpenPage(Option<(Gfn, AccessType)>);

impl OpenPage {
    /// The page that is open gets its rights back.
    ///
    /// # Errors
    /// The connection ended, or the plugin refuses.
    pub fn close(&mut self, client: &mut Client) -> anyhow::Result<()> {
        match self.0.take() {
            Some((gfn, access)) => client.set_access(gfn, access),
            None => Ok(()),
        }
    }

    /// This page is open instead.
    ///
    /// # Errors
    /// As [`OpenPage::close`].
    pub fn open(&mut self, client: &mut Client, gfn: Gfn) -> anyhow::Result<()> {
        self.close(client)?;
        self.0 = Some((gfn, client.access(gfn)?));
        client.set_access(gfn, AccessType::Rwx)
    }
}
