//! A domain as its tool sees it: what the plugin knows, and what is kept beside it for this process.

use crate::domain::{Domain, Ram};
use crate::errno::Errno;
use crate::ring::ToolRing;
use mem_event::{AccessType, Ring};
use std::collections::BTreeSet;

/// The frame of the paging ring less the ring's number: Xen's own, below 4 GiB, where a PC has its devices and never RAM.
const RING_FRAMES: u64 = 0xf_eff7;

/// Whose writes the tool has asked for: asking again is an error, whatever is asked.
#[derive(Clone, Debug, Default)]
pub struct Monitored {
    /// CR0, CR3, CR4, XCR0.
    pub ctrlregs: [bool; 4],
    /// Model-specific registers.
    pub msrs: BTreeSet<u32>,
}

/// A domain.
#[derive(Debug)]
pub struct Guest<D> {
    /// The plugin's part.
    pub domain: D,
    /// Rights of frames that come into being.
    pub default_access: AccessType,
    /// Whose writes the tool has asked for.
    pub monitored: Monitored,
    /// Whether frames may be shared.
    pub shares: bool,
    /// How often its tool has paused it.
    pauses: u32,
    /// How many of these pauses the domain stands still for.
    stops: u32,
    rings: [ToolRing; 3],
    ram: Option<Ram>,
}

impl<D: Domain> Guest<D> {
    /// A domain whose tool has not done anything yet.
    pub fn new(domain: D) -> Guest<D> {
        let (monitored, rings) = Default::default();
        Guest {
            domain,
            default_access: AccessType::Rwx,
            monitored,
            shares: false,
            pauses: 0,
            stops: 0,
            rings,
            ram: None,
        }
    }

    /// Pauses it once more. Where it cannot stand still the pause counts for the tool alone.
    ///
    /// # Errors
    /// Why it runs on.
    pub fn pause(&mut self) -> Result<(), Errno> {
        let done = self.domain.pause();
        self.pauses += 1;
        self.stops += u32::from(done.is_ok());
        done
    }

    /// Takes one pause back. As long as any is left it stands still, if it does for any.
    ///
    /// # Errors
    /// EINVAL: it is not paused.
    pub fn unpause(&mut self) -> Result<(), Errno> {
        self.pauses = self.pauses.checked_sub(1).ok_or(Errno::EINVAL)?;
        if self.stops <= self.pauses {
            return Ok(());
        }
        self.stops -= 1;
        self.domain.unpause()
    }

    /// Whether its tool has paused it.
    pub fn is_paused(&self) -> bool {
        self.pauses > 0
    }

    /// One of its rings.
    pub fn ring(&mut self, ring: Ring) -> &mut ToolRing {
        &mut self.rings[ring.index()]
    }

    /// Where its RAM is, which does not change.
    ///
    /// # Errors
    /// ESRCH: it has ended.
    pub fn ram(&mut self) -> Result<Ram, Errno> {
        if self.ram.is_none() {
            self.ram = Some(self.domain.ram()?);
        }
        Ok(self.ram.clone().unwrap_or_default())
    }

    /// Copies a ring's requests to the tool's page.
    pub fn show(&mut self, ring: Ring) {
        self.rings[ring.index()].show();
    }

    /// Copies the requests of those rings that the tool looks at.
    pub fn show_more(&mut self) {
        self.rings.iter_mut().for_each(ToolRing::show_more);
    }
}

/// The frame that a ring's page has for the tool.
#[must_use]
pub fn ring_frame(ring: Ring) -> u64 {
    RING_FRAMES + ring as u64
}

/// The ring whose page has this frame.
#[must_use]
pub fn ring_of_frame(gfn: u64) -> Option<Ring> {
    Ring::ALL.into_iter().find(|ring| ring_frame(*ring) == gfn)
}
