//! What clients ask for: control operations, rings that begin, consumers that are gone. What this host or these arguments cannot
//! do is refused here; everything else is the engine's to judge.

use crate::arguments::Gate;
use crate::engine::effects::{Engine, Told};
use crate::engine::hypervisor::Hypervisor;
use crate::host::event_channel::Link;
use mem_event::contents::Contents;
use mem_event::page::RingPage;
use mem_event::{Access, AccessSource, AccessType, Control, Errno, Gfn, Input, Outcome, P2mType, Rights, Ring, With};
use rustix::fd::OwnedFd;
use std::sync::Arc;

impl Engine {
    /// A control operation that is admitted, with the content of a page-in.
    pub fn control(&mut self, host: &Hypervisor, control: Control, content: Option<Box<[u8]>>) -> Outcome {
        let told = Told { content: content.as_deref(), ..Told::NOTHING };
        let outcome = self.step_with(host, Input::Control(control), told);
        let failed = !self.failures.is_empty();
        self.settle(host);
        if failed {
            return Outcome::Refused(
                Errno::EFAULT,
                "the content could not be written into the guest's memory".to_owned(),
            );
        }
        outcome
    }

    /// The contents that a pager has handed over.
    pub fn take_loads(&mut self, host: &Hypervisor, link: &Link) {
        link.take_loads(|gfn, content| match self.control(host, Control::Prep { gfn, buffer: true }, Some(content)) {
            Outcome::Refused(errno, _) | Outcome::Retry(errno) => Err(errno),
            Outcome::Crashed => Err(Errno::EINVAL),
            Outcome::Proceed | Outcome::Value(_) | Outcome::Wait(_) => Ok(()),
        });
    }
}

impl Hypervisor {
    /// The contents that a pager has handed over until now come before the calls that it sends from now on.
    pub fn take_loads(&self, link: &Link) {
        if !link.has_loads() {
            return;
        }
        let mut engine = self.engine();
        // As with responses: who lost his ring loads nothing any more.
        if self.is_current(link) {
            engine.take_loads(self, link);
        }
    }

    /// A control operation, with the content of a page-in.
    pub fn control(&self, control: Control, content: Option<Box<[u8]>>) -> Outcome {
        if let Err((errno, sentence)) = self.admit(&control) {
            return Outcome::Refused(errno, sentence);
        }
        if let Control::SetAccess { first, count, access } = control {
            return self.set_access(first, count, access);
        }
        let mut engine = self.engine();
        if let Control::Share { source, client, .. } = control
            && let Err((errno, sentence)) = self.can_share(&engine, source, client)
        {
            return Outcome::Refused(errno, sentence);
        }
        let outcome = engine.control(self, control, content);
        engine.arm(self);
        outcome
    }

    /// In spans, between which vCPUs get their turn (XSA-89).
    fn set_access(&self, mut first: Gfn, mut count: u64, access: AccessType) -> Outcome {
        loop {
            let mut engine = self.engine();
            let outcome = engine.step(self, Input::Control(Control::SetAccess { first, count, access }));
            engine.settle(self);
            if access.rights() != Rights::RWX {
                engine.arm(self);
            }
            match outcome {
                Outcome::Value(done) if done > 0 && done < count => {
                    first.0 += done;
                    count -= done;
                }
                other => return other,
            }
        }
    }

    /// What this host and these arguments cannot do.
    fn admit(&self, control: &Control) -> Result<(), (Errno, String)> {
        let unsupported = |sentence: &str| Err((Errno::EOPNOTSUPP, sentence.to_owned()));
        match control {
            Control::SetAccess { .. } | Control::SetDefaultAccess { .. } if self.gate() == Gate::None => {
                unsupported("QEMU was started with gate=none; start it with gate=callback to trap accesses")
            }
            Control::SetAccess { .. } if self.gate() == Gate::Mmu && !crate::memory::userfault::can_map_protected() => {
                let lack = crate::memory::userfault::probe().err().unwrap_or_default();
                unsupported(&format!("gate=mmu: {lack}"))
            }
            Control::SetAccess { first, count, access }
                if access.rights() != Rights::RWX
                    && crate::memory::machine::MemoryMap::meets_window(*first, *count) =>
            {
                Err((
                    Errno::EINVAL,
                    "frames 0xa0 to 0xff are the VGA and ROM window; accesses there cannot be trapped, leave them out"
                        .to_owned(),
                ))
            }
            Control::SetAccess { .. } => self.prepare(false),
            Control::Monitor { .. } | Control::SingleStep { .. } if self.gate() == Gate::None => {
                unsupported("QEMU was started with gate=none; start it with gate=callback for CPU events")
            }
            Control::NominateShare { .. } | Control::Share { .. } if !crate::memory::userfault::can_map_protected() => {
                let lack = crate::memory::userfault::probe().err().unwrap_or_default();
                unsupported(&format!("frames cannot be shared: {lack}"))
            }
            Control::NominateShare { .. } => self.prepare(false).and_then(|()| self.prepare_sharing()),
            // A frame that goes has no memory when it is touched again.
            Control::Enable { ring: Ring::Paging, .. } | Control::SetBudget { .. } | Control::Drop { .. } => {
                self.prepare(true)
            }
            _ => Ok(()),
        }
    }

    /// Opens userfaultfd. With paging, the engine learns which frames have no memory yet.
    fn prepare(&self, paging: bool) -> Result<(), (Errno, String)> {
        let mut engine = self.engine();
        if engine.stopped.is_prepared(paging) {
            return Ok(());
        }
        self.memory.userfault(paging).map_err(|sentence| (Errno::EOPNOTSUPP, sentence))?;
        engine.stopped.prepared(paging);
        if let Some(userfault) = self.memory.opened_userfault() {
            crate::service::thread::watch_userfault(userfault)
                .map_err(|error| (Errno::EOPNOTSUPP, format!("userfaultfd cannot be waited for: {error}")))?;
        }
        if paging {
            let holes =
                self.memory.holes().map_err(|error| (Errno::EFAULT, format!("the guest's memory file: {error}")))?;
            for (first, count) in holes {
                let _ = engine.step(self, Input::Unpopulated { first, count });
            }
        }
        Ok(())
    }

    fn prepare_sharing(&self) -> Result<(), (Errno, String)> {
        let mut engine = self.engine();
        let prepared = self.memory.prepare_sharing(&mut engine.met);
        engine.settle(self);
        prepared.map_err(|sentence| (Errno::EOPNOTSUPP, sentence))
    }

    /// What the engine cannot know, since it sees no contents and no host: both frames, which nobody can write to by now, are equal,
    /// and the host has room for one that shows another's page. Of frames that are not nominated the engine says so.
    fn can_share(&self, engine: &Engine, source: Gfn, client: Gfn) -> Result<(), (Errno, String)> {
        if [source, client].iter().any(|gfn| engine.domain.p2m_type(*gfn) != P2mType::RamShared) {
            return Ok(());
        }
        match self.memory.difference(source, client) {
            Ok(None) => self.memory.has_room_to_share().map_err(|sentence| (Errno::ENOMEM, sentence)),
            Ok(Some(at)) => Err((
                Errno::EINVAL,
                format!("frames {source} and {client} differ at offset {at:#x}; only equal frames can be shared"),
            )),
            Err(error) => Err((Errno::EFAULT, format!("frames {source} and {client} cannot be compared: {error}"))),
        }
    }

    /// Overwrites bytes of a frame that holds some, for one who maps it: a shared frame is unshared first.
    pub fn write(&self, gfn: Gfn, offset: u16, bytes: &[u8]) -> Result<(), (Errno, String)> {
        let mut engine = self.engine();
        self.has_content(&engine, gfn)?;
        if engine.domain.p2m_type(gfn) == P2mType::RamShared {
            let (rights, source) = (Rights::W, AccessSource::Instruction);
            let access = Access { gfn, offset, gla: None, rights, source, rip: 0 };
            let outcome = engine.step(self, Input::Foreign { access });
            engine.settle(self);
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
        self.memory.write(gfn, offset, bytes).map_err(|error| (Errno::EFAULT, format!("frame {gfn}: {error}")))
    }

    /// Copies bytes of a frame that holds some.
    pub fn read(&self, gfn: Gfn, offset: u16, bytes: &mut [u8]) -> Result<(), (Errno, String)> {
        self.has_content(&self.engine(), gfn)?;
        self.memory.read(gfn, offset, bytes).map_err(|error| (Errno::EFAULT, format!("frame {gfn}: {error}")))
    }

    fn has_content(&self, engine: &Engine, gfn: Gfn) -> Result<(), (Errno, String)> {
        if self.memory.offset(gfn).is_none() {
            Err((Errno::EINVAL, format!("frame {gfn} is no RAM")))
        } else if !engine.domain.is_held(gfn) {
            Err((Errno::ENOENT, format!("frame {gfn} has no content here: it is paged out")))
        } else {
            Ok(())
        }
    }

    /// Makes a ring: the reply's descriptors are the page, the engine's signal and the consumer's.
    pub fn enable(&self, control: Control, ring: Ring) -> Result<(Arc<Link>, [OwnedFd; 3]), (Errno, String)> {
        self.admit(&control)?;
        let io = |error: std::io::Error| (Errno::ENOMEM, format!("no ring page or event channel: {error}"));
        let (memory, page, contents) = match ring {
            Ring::Paging => Contents::create().map(|(memory, page, contents)| (memory, page, Some(contents))),
            _ => RingPage::create().map(|(memory, page)| (memory, page, None)),
        }
        .map_err(io)?;
        // A consumer may do so again, as Xen's do; one that does not still finds what says that signals are wanted.
        page.init();
        let (link, [to_consumer, to_engine]) = Link::new(ring, page.clone(), contents).map_err(io)?;
        let link = Arc::new(link);
        let mut engine = self.engine();
        let with = With::page(&page);
        match engine.step_with(self, Input::Control(control), Told { with, ..Told::NOTHING }) {
            Outcome::Refused(errno, sentence) => {
                link.end();
                Err((errno, sentence))
            }
            _ => {
                self.set_link(ring, Some(Arc::clone(&link)));
                // Requests that outlived the last consumer are on the new page; the signal of this step had no channel yet.
                link.signal();
                engine.settle(self);
                Ok((link, [memory, to_consumer, to_engine]))
            }
        }
    }

    /// The consumer who held this end of a ring is gone. The ring may be another's by now: one that broke, or that somebody disabled,
    /// can be enabled by anybody.
    pub fn consumer_lost(&self, link: &Arc<Link>) {
        let ring = link.ring;
        if self.link(ring).is_some_and(|current| !Arc::ptr_eq(&current, link)) {
            return;
        }
        let mut engine = self.engine();
        self.set_link(ring, None);
        let _ = engine.step(self, Input::ConsumerLost { ring });
        engine.settle(self);
    }
}
