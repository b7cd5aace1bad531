//! What this host or these arguments cannot do is refused here, before the engine judges a control operation.

use crate::arguments::Gate;
use crate::engine::hypervisor::Hypervisor;
use crate::engine::kernel_stops::Hears;
use crate::engine::step::Engine;
use crate::host::watched;
use crate::memory::map::MemoryMap;
use crate::memory::userfault;
use crate::qemu::capabilities::ALONE;
use crate::qemu::{alone, delivery};
use mem_event::{Control, CpuEventKind, Errno, Gfn, Input, MonitorMode, P2mType, Rights, Ring};
use std::sync::Once;

/// What passes a watch where the host's MMU does not stand behind the checks.
const UNSEEN: &str = "page walks, the delivery of interrupts and exceptions, devices' DMA, and what a vCPU was past its check of when \
                      rights were taken pass without an event";

/// Why nothing can be said of some frames.
const WINDOW: &str = "frames 0xa0 to 0xff are the VGA and ROM window; accesses there cannot be trapped, leave them out";

impl Hypervisor {
    /// What this host and these arguments cannot do.
    pub(super) fn admit(&self, engine: &mut Engine, control: &Control) -> Result<(), (Errno, String)> {
        let unsupported = |sentence: &str| Err((Errno::EOPNOTSUPP, sentence.to_owned()));
        match control {
            _ if (is_about_rights(control) || matches!(control, Control::SetDefaultAccess { .. }))
                && self.host.gate.now() == Gate::None =>
            {
                unsupported("QEMU was started with gate=none; start it with gate=callback to trap accesses")
            }
            _ if is_about_rights(control) && self.host.gate.now() == Gate::Mmu && !userfault::can_map_protected() => {
                let lack = userfault::probe().err().unwrap_or_default();
                unsupported(&format!("gate=mmu: {lack}"))
            }
            Control::SetAccess { first, count, access } | Control::SetViewAccess { first, count, access, .. }
                if access.rights() != Rights::RWX && MemoryMap::meets_window(*first, *count) =>
            {
                Err((Errno::EINVAL, WINDOW.to_owned()))
            }
            Control::ChangeGfn { old, new, .. } if *new != Gfn::INVALID && MemoryMap::meets_window(*old, 1) => {
                Err((Errno::EINVAL, WINDOW.to_owned()))
            }
            Control::ChangeGfn { new, .. } if *new != Gfn::INVALID && !alone::is_there() => {
                let lack = ALONE.lack().unwrap_or_default();
                unsupported(&format!(
                    "a frame that shows another one's memory is touched by instructions that run alone, and {lack}"
                ))
            }
            Control::Populate { gfn } if gfn.0 >= self.host.rights.frames() => {
                let error = |error| (Errno::ENOMEM, format!("no memory for frame {gfn}: {error}"));
                self.host.beyond.make_room(*gfn).map_err(error)
            }
            Control::SetAccess { first, count, access } | Control::SetViewAccess { first, count, access, .. }
                if access.rights() != Rights::RWX =>
            {
                self.are_ram(*first, *count)?;
                self.prepare_watching(engine, self.hears_where_are_watched(*count))
            }
            _ if is_about_rights(control) => self.prepare_watching(engine, Hears::Touches),
            Control::Monitor { .. } | Control::SingleStep { .. } if self.host.gate.now() == Gate::None => {
                unsupported("QEMU was started with gate=none; start it with gate=callback for CPU events")
            }
            Control::Monitor { kind: CpuEventKind::Interrupt, mode, .. } if *mode != MonitorMode::Disabled => {
                delivery::lack().map_or(Ok(()), |lack| unsupported(&lack))
            }
            Control::NominateShare { .. } | Control::Share { .. } if !userfault::can_map_protected() => {
                let lack = userfault::probe().err().unwrap_or_default();
                unsupported(&format!("frames cannot be shared: {lack}"))
            }
            Control::NominateShare { .. } => {
                self.prepare(engine, Hears::Touches).and_then(|()| self.prepare_sharing(engine))
            }
            // A frame that goes has no memory when it is touched again.
            Control::Drop { gfn } if self.host.memory.offset(*gfn).is_none() => Ok(()),
            Control::Enable { ring: Ring::Paging, .. } | Control::SetBudget { .. } | Control::Drop { .. } => {
                self.prepare(engine, Hears::Holes)
            }
            _ => Ok(()),
        }
    }

    /// Rights that are taken from what is no RAM (a device's registers, a hole) would stop nothing. All of them at once, before the first
    /// frame is set. That everything passes is true of any frame.
    fn are_ram(&self, first: Gfn, count: u64) -> Result<(), (Errno, String)> {
        let map = self.host.memory.map();
        let Some((from, to)) = map.gap(first, count) else { return Ok(()) };
        let which = if from == to { format!("frame {from} is") } else { format!("frames {from} to {to} are") };
        Err((
            Errno::EINVAL,
            format!(
                "{which} no RAM; accesses there meet devices or nothing, and cannot be trapped. RAM is frames {map}, \
                 which is the highest"
            ),
        ))
    }

    /// Opens userfaultfd, or does without where checks stop instructions: then what no instruction shows passes, and that is said.
    fn prepare_watching(&self, engine: &mut Engine, hears: Hears) -> Result<(), (Errno, String)> {
        static SAID: Once = Once::new();
        match (self.host.gate.now(), userfault::right()) {
            (Gate::Callback, Err(lack)) => {
                SAID.call_once(|| eprintln!("mem-event: {}: {UNSEEN}; {lack}", userfault::WITHOUT));
                Ok(())
            }
            _ => self.prepare(engine, hears),
        }
    }

    /// Where nearly all memory is watched, the kernel is to tell of first touches. Else what is watched gets memory, and first touches of the rest
    /// cost nothing.
    fn hears_where_are_watched(&self, count: u64) -> Hears {
        if count >= self.host.memory.frames() / 8 * 7 { Hears::FirstTouches } else { Hears::Touches }
    }

    /// Opens userfaultfd, and registers it for that. With paging, the engine learns which frames have no memory yet.
    fn prepare(&self, engine: &mut Engine, hears: Hears) -> Result<(), (Errno, String)> {
        if engine.stopped.hears() >= hears {
            return Ok(());
        }
        self.host.memory.userfault(hears >= Hears::FirstTouches).map_err(|sentence| (Errno::EOPNOTSUPP, sentence))?;
        engine.stopped.will_hear(hears);
        if let Some(userfault) = self.host.memory.opened_userfault() {
            watched::watch_userfault(userfault)
                .map_err(|error| (Errno::EOPNOTSUPP, format!("userfaultfd cannot be waited for: {error}")))?;
        }
        if hears == Hears::Holes {
            let holes = self
                .host
                .memory
                .holes()
                .map_err(|error| (Errno::EFAULT, format!("the guest's memory file: {error}")))?;
            for (first, count) in holes {
                let _ = engine.step(&self.host, Input::Unpopulated { first, count });
            }
        }
        Ok(())
    }

    fn prepare_sharing(&self, engine: &mut Engine) -> Result<(), (Errno, String)> {
        let prepared = self.host.memory.prepare_sharing(&mut engine.met);
        engine.settle(&self.host);
        prepared.map_err(|sentence| (Errno::EOPNOTSUPP, sentence))
    }

    /// What the engine cannot know, since it sees no contents and no host: both frames, which nobody can write to by now, are equal,
    /// and the host has room for one that shows another's page. Of frames that are not nominated the engine says so.
    pub(super) fn can_share(&self, engine: &Engine, source: Gfn, client: Gfn) -> Result<(), (Errno, String)> {
        if [source, client].iter().any(|gfn| engine.domain.p2m_type(*gfn) != P2mType::RamShared) {
            return Ok(());
        }
        match self.host.memory.difference(source, client) {
            Ok(None) => self.host.memory.has_room_to_share().map_err(|sentence| (Errno::ENOMEM, sentence)),
            Ok(Some(at)) => Err((
                Errno::EINVAL,
                format!("frames {source} and {client} differ at offset {at:#x}; only equal frames can be shared"),
            )),
            Err(error) => Err((Errno::EFAULT, format!("frames {source} and {client} cannot be compared: {error}"))),
        }
    }
}

/// Whether it says what may be done with frames that are there.
fn is_about_rights(control: &Control) -> bool {
    matches!(
        control,
        Control::SetAccess { .. }
            | Control::CreateView { .. }
            | Control::SetViewAccess { .. }
            | Control::SetViewDefault { .. }
            | Control::ChangeGfn { .. }
    )
}
