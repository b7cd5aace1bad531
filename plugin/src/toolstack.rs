//! What clients ask for: control operations, rings that begin, consumers that are gone. What this host or these arguments cannot
//! do is refused here; everything else is the engine's to judge.

use crate::arguments::Gate;
use crate::effects::Engine;
use crate::hypervisor::Hypervisor;
use crate::link::Link;
use mem_event::contents::Contents;
use mem_event::page::RingPage;
use mem_event::{AccessType, Control, Errno, Gfn, Input, Outcome, Rights, Ring};
use rustix::fd::OwnedFd;
use std::sync::Arc;

impl Engine {
    /// A control operation that is admitted, with the content of a page-in.
    pub fn control(&mut self, host: &Hypervisor, control: Control, content: Option<Box<[u8]>>) -> Outcome {
        self.content = content;
        let outcome = self.step(host, Input::Control(control));
        self.content = None;
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
            Control::SetAccess { .. } if self.gate() == Gate::Mmu && !crate::userfault::can_map_protected() => {
                let lack = crate::userfault::probe().err().unwrap_or_default();
                unsupported(&format!("gate=mmu: {lack}"))
            }
            Control::SetAccess { first, count, access }
                if access.rights() != Rights::RWX && crate::machine::MemoryMap::meets_window(*first, *count) =>
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
            Control::NominateShare { .. } | Control::Share { .. } => {
                unsupported("frames are not shared by this plugin yet")
            }
            Control::Enable { ring: Ring::Paging, .. } | Control::SetBudget { .. } => self.prepare(true),
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
            crate::service::watch_userfault(userfault)
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
        engine.domain.supply(ring, page);
        match engine.step(self, Input::Control(control)) {
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
