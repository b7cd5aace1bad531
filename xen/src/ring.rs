//! A ring as the tool sees it: a page of the tool's own. Tools initialise a ring after they have enabled it, which would hide the
//! requests that outlived a tool before; and the engine must not see an answer before the tool says that it is there. So requests
//! are copied to the tool's page when the tool reads its event channel, from the first time on also when it has waited for anything, and answers to the
//! engine's when it notifies.

use crate::errno::Errno;
use crate::layout::record::Record;
use crate::layout::vm_event;
use mem_event::page::{Index, RingPage};
use mem_event::wire::vm_event::{Slot, VERSION, WORDS};
use rustix::io::Errno as Kernel;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

/// Slots in a page.
const SLOTS: u32 = 8;

/// One of a domain's three rings.
#[derive(Debug)]
pub struct ToolRing {
    /// Whether the domain has a page at the ring's frame: tools take it out when they have mapped it.
    pub populated: bool,
    /// Answers that were made whole since the ring was enabled.
    pub repaired: u64,
    own: Option<(OwnedFd, RingPage)>,
    open: Option<Open>,
}

/// What came with the ring when it was enabled, and how far each page is.
#[derive(Debug)]
struct Open {
    page: RingPage,
    signalled: Arc<OwnedFd>,
    signal: OwnedFd,
    /// The tool has come to look at the ring: it has initialised its page.
    is_looked_at: bool,
    /// Requests taken from the engine's page, and put on the tool's.
    taken: u32,
    shown: u32,
    /// Answers taken from the tool's page, and put on the engine's.
    heard: u32,
    answered: u32,
}

impl Default for ToolRing {
    fn default() -> ToolRing {
        ToolRing { populated: true, repaired: 0, own: None, open: None }
    }
}

fn word(index: u32) -> usize {
    (index % SLOTS) as usize * WORDS
}

impl ToolRing {
    /// The file of the tool's page.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn file(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        Ok(self.own()?.0.as_fd())
    }

    fn own(&mut self) -> Result<&(OwnedFd, RingPage), Errno> {
        if self.own.is_none() {
            self.own = Some(RingPage::create().map_err(|_| Errno::ENOMEM)?);
        }
        self.own.as_ref().ok_or(Errno::ENOMEM)
    }

    /// The ring is enabled.
    ///
    /// # Errors
    /// A page cannot be mapped.
    pub fn open(&mut self, [page, signalled, signal]: [OwnedFd; 3]) -> Result<(), Errno> {
        self.own()?.1.init();
        self.repaired = 0;
        let page = RingPage::map(page).map_err(|_| Errno::ENOMEM)?;
        let answered = page.load(Index::RspProd, Ordering::Acquire);
        let signalled = Arc::new(signalled);
        self.open =
            Some(Open { page, signalled, signal, is_looked_at: false, taken: answered, shown: 0, heard: 0, answered });
        Ok(())
    }

    /// The ring has ended.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Whether this process has enabled it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// What the engine signals.
    #[must_use]
    pub fn signalled(&self) -> Option<Arc<OwnedFd>> {
        self.open.as_ref().map(|open| Arc::clone(&open.signalled))
    }

    /// Copies the requests that wait to the tool's page, if the tool has come to look at it before.
    pub fn show_more(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.is_looked_at) {
            self.show();
        }
    }

    /// Copies the requests that wait to the tool's page.
    pub fn show(&mut self) {
        let (Some((_, own)), Some(open)) = (&self.own, &mut self.open) else { return };
        open.is_looked_at = true;
        loop {
            while open.taken != open.page.load(Index::ReqProd, Ordering::Acquire) {
                let slot: Slot = open.page.read(word(open.taken));
                open.taken = open.taken.wrapping_add(1);
                own.write(word(open.shown), &slot);
                open.shown = open.shown.wrapping_add(1);
                own.store(Index::ReqProd, open.shown, Ordering::Release);
            }
            open.page.store(Index::ReqEvent, open.taken.wrapping_add(1), Ordering::Relaxed);
            // Either the engine sees `req_event` after its next put, or that put is seen here.
            fence(Ordering::SeqCst);
            if open.page.load(Index::ReqProd, Ordering::Acquire) == open.taken {
                break;
            }
        }
    }

    /// Copies the tool's answers to the engine's page and notifies the engine. Gives the version of an answer of another version; with
    /// `repairs` such an answer is made one that Xen takes, of a pager.
    pub fn hear(&mut self, repairs: bool) -> Option<u32> {
        let (Some((_, own)), Some(open)) = (&self.own, &mut self.open) else { return None };
        let produced = own.load(Index::RspProd, Ordering::Acquire);
        let mut other = None;
        if produced.wrapping_sub(open.heard) > open.shown.wrapping_sub(open.heard) {
            // An index that runs ahead: the engine judges it, as Xen does.
            open.answered = open.answered.wrapping_add(produced.wrapping_sub(open.heard));
            open.heard = produced;
            open.page.store(Index::RspProd, open.answered, Ordering::Release);
        }
        while open.heard != produced {
            let slot: Slot = own.read(word(open.heard));
            open.heard = open.heard.wrapping_add(1);
            let version = Record::of_words(&slot).get(vm_event::VERSION);
            if version == VERSION {
                open.answer(&slot);
                continue;
            }
            other = other.or(Some(version));
            self.repaired += u64::from(repairs);
            open.answer(&if repairs { whole(&slot) } else { slot });
        }
        own.store(Index::RspEvent, open.heard.wrapping_add(1), Ordering::Relaxed);
        open.notify();
        other
    }
}

/// An answer of a pager that says neither its version nor its reason, with both.
fn whole(slot: &Slot) -> Slot {
    let mut answer = Record::of_words(slot);
    answer.set(vm_event::VERSION, VERSION);
    answer.set(vm_event::REASON, vm_event::REASON_MEM_PAGING);
    answer.words()
}

impl Open {
    fn answer(&mut self, slot: &Slot) {
        self.page.write(word(self.answered), slot);
        self.answered = self.answered.wrapping_add(1);
        self.page.store(Index::RspProd, self.answered, Ordering::Release);
    }

    fn notify(&self) {
        signal(&self.signal);
    }
}

/// Signals an eventfd. It fails where the other side has gone, and then there is nobody to tell.
pub fn signal(eventfd: &OwnedFd) {
    let _ = rustix::io::retry_on_intr(|| rustix::io::write(eventfd, &1u64.to_ne_bytes()));
}

/// Takes an eventfd's signal.
pub fn clear(eventfd: &OwnedFd) {
    let mut count = [0; 8];
    while rustix::io::read(eventfd, &mut count) == Err(Kernel::INTR) {}
}
