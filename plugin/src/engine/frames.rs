//! Contents of frames, read and written by a client that maps them.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::step::Engine;
use crate::memory::beyond::BeyondRam;
use mem_event::trace::remark::Moment;
use mem_event::{Access, AccessSource, Errno, Gfn, Input, Outcome, P2mType, PAGE_SIZE, Rights, VcpuId};
use std::os::fd::OwnedFd;

impl Hypervisor {
    /// Overwrites bytes of a frame that holds some, for a client that maps it: a shared frame is unshared first.
    pub fn write(&self, gfn: Gfn, offset: u16, bytes: &[u8]) -> Result<(), (Errno, String)> {
        self.write_held(&mut self.engine(), gfn, offset, bytes)
    }

    /// The same, by a thread that holds the engine.
    pub(super) fn write_held(
        &self,
        engine: &mut Engine,
        gfn: Gfn,
        offset: u16,
        bytes: &[u8],
    ) -> Result<(), (Errno, String)> {
        self.has_content(engine, gfn)?;
        self.part(engine, gfn, offset)?;
        let written = self.host.write(gfn, offset, bytes);
        self.remark_written(engine, gfn);
        written.map_err(|error| (Errno::EFAULT, format!("frame {gfn}: {error}")))
    }

    /// Copies the code from there on that a vCPU may execute and QEMU may not read; not where it is on its way, or the rights are others by now.
    pub fn copy_of_code(&self, vcpu: VcpuId, gfn: Gfn, offset: u16, bytes: &mut [u8]) -> bool {
        let engine = self.engine();
        let is_there = self.has_content(&engine, gfn).is_ok() && self.host.may_only_execute(vcpu, gfn);
        is_there && self.host.read(gfn, offset, bytes).is_ok()
    }

    /// Where a frame lies in the memory file, or in that of frames beyond RAM, for a client that has pinned it and maps it: one that was shared
    /// has a page of its own then.
    pub fn place(&self, gfn: Gfn) -> Result<(u64, bool), (Errno, String)> {
        let mut engine = self.engine();
        self.has_content(&engine, gfn)?;
        self.part(&mut engine, gfn, 0)?;
        Ok(match self.host.memory.offset(gfn) {
            Some(offset) => (offset, false),
            None => (BeyondRam::offset(gfn), true),
        })
    }

    /// The memory file, or that of frames beyond RAM, where clients may map it.
    pub fn memory(&self, beyond: bool) -> Result<OwnedFd, (Errno, String)> {
        if !self.maps_foreign {
            let remedy = "start the plugin with foreign=map, or use ReadFrame and WriteFrame";
            return Err((Errno::EPERM, format!("frames cannot be mapped by other processes; {remedy}")));
        }
        let of_beyond = || self.host.beyond.descriptor().map_err(|error| (Errno::ENOENT, error.to_string()));
        let of_ram =
            || self.host.memory.descriptor().map_err(|error| (Errno::ENOMEM, format!("no descriptor: {error}")));
        if beyond { of_beyond() } else { of_ram() }
    }

    /// A client had a mapping of this frame: its code is made anew.
    pub fn may_be_written(&self, gfn: Gfn) {
        let mut engine = self.engine();
        self.host.bytes_changed(gfn, 0, PAGE_SIZE);
        self.remark_written(&mut engine, gfn);
    }

    /// A shared frame gets a page of its own, as for a write.
    fn part(&self, engine: &mut Engine, gfn: Gfn, offset: u16) -> Result<(), (Errno, String)> {
        if engine.domain.p2m_type(gfn) != P2mType::RamShared {
            return Ok(());
        }
        let (rights, source) = (Rights::W, AccessSource::Instruction);
        let access = Access { gfn, offset, gla: None, rights, source, rip: 0 };
        let outcome = engine.step(&self.host, Input::Foreign { access });
        engine.settle(&self.host);
        match outcome {
            Outcome::Proceed => Ok(()),
            Outcome::Retry(Errno::ENOMEM) => {
                Err((Errno::ENOMEM, format!("frame {gfn} is shared, and the budget has no frame for a copy; raise it")))
            }
            Outcome::Retry(errno) => Err((errno, format!("frame {gfn} is shared and watched; try again"))),
            Outcome::Refused(errno, sentence) => Err((errno, sentence)),
            _ => Err((Errno::EINVAL, "the domain has crashed".to_owned())),
        }
    }

    fn remark_written(&self, engine: &mut Engine, gfn: Gfn) {
        let mut content = [0; PAGE_SIZE];
        if engine.keeps_contents && self.host.memory.read(gfn, 0, &mut content).is_ok() {
            engine.remark_content(gfn, &content, Moment::Written);
        }
    }

    /// Copies bytes of a frame that holds some.
    pub fn read(&self, gfn: Gfn, offset: u16, bytes: &mut [u8]) -> Result<(), (Errno, String)> {
        self.has_content(&self.engine(), gfn)?;
        self.host.read(gfn, offset, bytes).map_err(|error| (Errno::EFAULT, format!("frame {gfn}: {error}")))
    }

    fn has_content(&self, engine: &Engine, gfn: Gfn) -> Result<(), (Errno, String)> {
        if self.host.memory.offset(gfn).is_none() && !engine.domain.is_beyond_ram(gfn) {
            Err((Errno::EINVAL, format!("frame {gfn} is no RAM")))
        } else if !engine.domain.is_held(gfn) {
            Err((Errno::ENOENT, format!("frame {gfn} has no content here: it is paged out")))
        } else {
            Ok(())
        }
    }
}
