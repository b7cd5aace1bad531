//! What a hypercall needs of a domain. [`crate::connection`] asks a plugin for it; tests make one up.

use crate::errno::Errno;
use mem_event::message::{Info, VcpuReport};
use mem_event::registers::Context;
use mem_event::{Control, Gfn, Ring, VcpuId};
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};

/// The window of VGA and ROM, which cannot be trapped: rights are not taken from it.
const WINDOW: Range<u64> = 0xa0..0x100;

/// A domain.
pub trait Domain {
    /// Its figures.
    ///
    /// # Errors
    /// ESRCH: it has ended.
    fn info(&mut self) -> Result<Info, Errno>;

    /// Where its RAM is.
    ///
    /// # Errors
    /// ESRCH: it has ended.
    fn ram(&mut self) -> Result<Ram, Errno>;

    /// A control operation, and its value.
    ///
    /// # Errors
    /// What it is refused with; ESRCH: the domain has ended.
    fn control(&mut self, control: Control) -> Result<u64, Errno>;

    /// Brings a frame back with its content, 4096 bytes.
    ///
    /// # Errors
    /// As [`Domain::control`].
    fn load(&mut self, gfn: Gfn, content: &[u8]) -> Result<(), Errno>;

    /// Pins a frame that the tool maps: the memory file, and where the frame lies there. `Control::Unpin` ends it.
    ///
    /// # Errors
    /// As [`Domain::control`]; ENOENT: it is paged out, and on its way. EPERM: nobody may map frames of this domain.
    fn map(&mut self, gfn: Gfn, write: bool) -> Result<(BorrowedFd<'_>, u64), Errno>;

    /// Enables a ring of `vm_event` slots: its page, the eventfd that the engine signals, the one that it hears.
    ///
    /// # Errors
    /// As [`Domain::control`].
    fn enable(&mut self, ring: Ring) -> Result<[OwnedFd; 3], Errno>;

    /// No vCPU runs once this returns, until [`Domain::unpause`] or the connection's end; it counts.
    ///
    /// # Errors
    /// EBUSY: a vCPU cannot leave what it does; ESRCH: the domain has ended.
    fn pause(&mut self) -> Result<(), Errno>;

    /// Takes one [`Domain::pause`] back.
    ///
    /// # Errors
    /// EINVAL: there is none; ESRCH: the domain has ended.
    fn unpause(&mut self) -> Result<(), Errno>;

    /// What a vCPU's registers hold that stands still.
    ///
    /// # Errors
    /// EAGAIN: it runs; ESRCH: the domain has ended.
    fn context(&mut self, vcpu: VcpuId) -> Result<Context, Errno>;

    /// Sets the registers of a vCPU that stands still: all, or none.
    ///
    /// # Errors
    /// EOPNOTSUPP: one that would change cannot be set, which the sentence names; EAGAIN, ESRCH: as [`Domain::context`].
    fn set_context(&mut self, vcpu: VcpuId, context: &Context) -> Result<(), (Errno, String)>;

    /// What each vCPU does.
    ///
    /// # Errors
    /// ESRCH: the domain has ended.
    fn vcpus(&mut self) -> Result<Vec<VcpuReport>, Errno>;

    /// Whether anybody has enabled this ring.
    ///
    /// # Errors
    /// ESRCH: the domain has ended.
    fn has_ring(&mut self, ring: Ring) -> Result<bool, Errno>;
}

/// The frames that are RAM, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ram(Vec<Range<u64>>);

impl Ram {
    /// Of whether each frame is, from frame 0 on.
    pub fn new(frames: impl Iterator<Item = bool>) -> Ram {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (gfn, is_ram) in (0..).zip(frames) {
            match ranges.last_mut() {
                _ if !is_ram => {}
                Some(last) if last.end == gfn => last.end += 1,
                _ => ranges.push(gfn..gfn + 1),
            }
        }
        Ram(ranges)
    }

    /// The highest frame; 0 where there is none.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.0.last().map_or(0, |last| last.end - 1)
    }

    /// Whether a frame is.
    #[must_use]
    pub fn contains(&self, gfn: u64) -> bool {
        self.0.iter().any(|range| range.contains(&gfn))
    }

    /// What of a range is RAM and can be trapped.
    pub fn trappable(&self, frames: &Range<u64>) -> Vec<Range<u64>> {
        let within = |of: &Range<u64>| of.start.max(frames.start)..of.end.min(frames.end);
        let beside = |of: Range<u64>| [of.start..of.end.min(WINDOW.start), of.start.max(WINDOW.end)..of.end];
        self.0.iter().map(within).flat_map(beside).filter(|range| !range.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Ram;

    #[test]
    fn what_is_trapped_of_a_range_is_ram_beside_the_window_of_vga_and_rom() {
        let ram = Ram::new((0..0x140).map(|gfn| !(0x110..0x120).contains(&gfn)));
        assert_eq!(ram.highest(), 0x13f);
        assert_eq!(ram.trappable(&(0..0x140)), [0..0xa0, 0x100..0x110, 0x120..0x140]);
        assert_eq!(ram.trappable(&(0x90..0x101)), [0x90..0xa0, 0x100..0x101]);
        assert_eq!(ram.trappable(&(0xb0..0xc0)), []);
        assert_eq!(ram.trappable(&(0x112..0x113)), []);
        assert!(ram.contains(0x10f) && !ram.contains(0x110) && !ram.contains(0x140));
    }
}
