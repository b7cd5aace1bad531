//! How frames get the contents that their pager brings: by the memory file, or with their pages.

use crate::engine::step::Engine;
use crate::host::domain_host::{Host, report};
use mem_event::{Gfn, Input, Rights};

impl Engine {
    /// A frame gets its content: at once, or with its page where somebody stands on it.
    pub(super) fn fill(&mut self, host: &Host, gfn: Gfn, content: &[u8]) -> Result<(), Input> {
        match content.try_into() {
            Ok(page) if self.stopped.is_touched(gfn) => self.arriving.sets_out(gfn, page),
            _ => write(host, gfn, content)?,
        }
        Ok(())
    }

    /// What is on its way is there from now on; what cannot be is told to the engine by [`Engine::settle`]. Says whether all went well.
    pub(crate) fn arrives(&mut self, host: &Host) -> bool {
        let failed = self.arriving.take().and_then(|(gfn, content)| write(host, gfn, content).err());
        let is_well = failed.is_none();
        self.failures.extend(failed);
        is_well
    }

    /// The frame goes back to the guest, with its content where that is on its way, and those go on that stand on it. If it cannot be filled they
    /// touch it anew.
    pub(super) fn gives_back(&mut self, host: &Host, gfn: Gfn) {
        let Some(content) = self.arriving.of(gfn) else { return host.map(gfn) };
        if host.memory.fill(gfn, content, host.rights.allowed(gfn).contains(Rights::W)) {
            let _ = self.arriving.take();
        } else if self.arrives(host) {
            host.map(gfn);
        } else {
            report("wake", gfn, host.memory.wake(gfn));
        }
    }
}

fn write(host: &Host, gfn: Gfn, content: &[u8]) -> Result<(), Input> {
    host.memory.write(gfn, 0, content).map_err(|error| {
        eprintln!("mem-event: frame {gfn} cannot be filled: {error}");
        Input::FillFailed { gfn }
    })
}
