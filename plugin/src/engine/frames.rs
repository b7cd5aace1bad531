//! Contents of frames, read and written by a client that maps them.

use crate::engine::hypervisor::Hypervisor;
use crate::engine::step::Engine;
use mem_event::trace::remark::Moment;
use mem_event::{Access, AccessSource, Errno, Gfn, Input, Outcome, P2mType, PAGE_SIZE, Rights};

impl Hypervisor {
    /// Overwrites bytes of a frame that holds some, for a client that maps it: a shared frame is unshared first.
    pub fn write(&self, gfn: Gfn, offset: u16, bytes: &[u8]) -> Result<(), (Errno, String)> {
        let mut engine = self.engine();
        self.has_content(&engine, gfn)?;
        if engine.domain.p2m_type(gfn) == P2mType::RamShared {
            let (rights, source) = (Rights::W, AccessSource::Instruction);
            let access = Access { gfn, offset, gla: None, rights, source, rip: 0 };
            let outcome = engine.step(&self.host, Input::Foreign { access });
            engine.settle(&self.host);
            match outcome {
                Outcome::Proceed => {}
                Outcome::Retry(Errno::ENOMEM) => {
                    return Err((
                        Errno::ENOMEM,
                        format!("frame {gfn} is shared, and the budget has no frame for a copy; raise it"),
                    ));
                }
                Outcome::Retry(errno) => return Err((errno, format!("frame {gfn} is shared and watched; try again"))),
                Outcome::Refused(errno, sentence) => return Err((errno, sentence)),
                _ => return Err((Errno::EINVAL, "the domain has crashed".to_owned())),
            }
        }
        let written = self.host.memory.write(gfn, offset, bytes);
        // Whatever of it was written.
        self.host.bytes_changed(gfn, offset, bytes.len());
        let mut content = [0; PAGE_SIZE];
        if engine.keeps_contents && self.host.memory.read(gfn, 0, &mut content).is_ok() {
            engine.remark_content(gfn, &content, Moment::Written);
        }
        written.map_err(|error| (Errno::EFAULT, format!("frame {gfn}: {error}")))
    }

    /// Copies bytes of a frame that holds some.
    pub fn read(&self, gfn: Gfn, offset: u16, bytes: &mut [u8]) -> Result<(), (Errno, String)> {
        self.has_content(&self.engine(), gfn)?;
        self.host.memory.read(gfn, offset, bytes).map_err(|error| (Errno::EFAULT, format!("frame {gfn}: {error}")))
    }

    fn has_content(&self, engine: &Engine, gfn: Gfn) -> Result<(), (Errno, String)> {
        if self.host.memory.offset(gfn).is_none() {
            Err((Errno::EINVAL, format!("frame {gfn} is no RAM")))
        } else if !engine.domain.is_held(gfn) {
            Err((Errno::ENOENT, format!("frame {gfn} has no content here: it is paged out")))
        } else {
            Ok(())
        }
    }
}
