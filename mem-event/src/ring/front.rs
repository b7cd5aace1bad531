//! The engine's half of a ring.

use super::{Broken, Shape};
use crate::atomics::fence;
use crate::control::{Layout, Ring};
use crate::event::{Request, Response};
use crate::packed::Packed;
use crate::page::{Index, RingPage};
use crate::registers::Registers;
use crate::taken;
use crate::wire::{flags16, flags32, vm_event};
use bincode::{Decode, Encode};
use std::sync::atomic::Ordering;

/// The engine's half.
#[derive(Clone, Debug)]
pub struct Front {
    page: RingPage,
    shape: Shape,
    req_prod_pvt: u32,
    rsp_cons: u32,
    seen: u32,
}

/// A front half's private counters: all of its state that is not in the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct FrontState {
    /// Requests put.
    pub req_prod_pvt: u32,
    /// Responses taken.
    pub rsp_cons: u32,
    /// Number of slots.
    pub slots: u32,
}

impl Front {
    /// A new half with `slots` slots, 0 for as many as the page holds. Nothing is written: initialising the page is the
    /// consumer's part, and what it holds is not believed.
    ///
    /// # Errors
    /// A sentence for a number of slots that is no power of two or too large.
    pub fn new(page: RingPage, ring: Ring, layout: Layout, slots: u32) -> Result<Front, String> {
        Front::starting_at(page, ring, layout, slots, 0)
    }

    /// The same with the counters preset, as after that many exchanges.
    ///
    /// # Errors
    /// As [`Front::new`].
    pub fn starting_at(page: RingPage, ring: Ring, layout: Layout, slots: u32, index: u32) -> Result<Front, String> {
        let shape = Shape::new(ring, layout, slots)?;
        Ok(Front { page, shape, req_prod_pvt: index, rsp_cons: index, seen: index })
    }

    /// A half with the counters of another one, on a page whose indices are set to them: every response up to `rsp_cons` was
    /// taken, and the requests from there on are out. Their slots are empty.
    ///
    /// # Errors
    /// As [`Front::new`]; also where more requests are out than there are slots.
    pub fn restore(page: RingPage, ring: Ring, layout: Layout, state: FrontState) -> Result<Front, String> {
        let FrontState { req_prod_pvt, rsp_cons, slots } = state;
        let shape = Shape::new(ring, layout, slots)?;
        let out = req_prod_pvt.wrapping_sub(rsp_cons);
        if out > shape.slots {
            return Err(format!("{out} requests are out on a ring of {} slots", shape.slots));
        }
        page.preset(rsp_cons);
        page.store(Index::ReqProd, req_prod_pvt, Ordering::Release);
        Ok(Front { page, shape, req_prod_pvt, rsp_cons, seen: rsp_cons })
    }

    /// Number of slots.
    #[inline]
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.shape.slots
    }

    /// The layout of the slots.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.shape.layout
    }

    /// Requests whose response was not taken yet.
    #[inline]
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.req_prod_pvt.wrapping_sub(self.rsp_cons)
    }

    /// Slots that hold neither a request nor a response.
    #[inline]
    #[must_use]
    pub fn free(&self) -> u32 {
        self.slots() - self.outstanding()
    }

    /// The private counters.
    #[must_use]
    pub fn state(&self) -> FrontState {
        FrontState { req_prod_pvt: self.req_prod_pvt, rsp_cons: self.rsp_cons, slots: self.slots() }
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> &RingPage {
        &self.page
    }

    /// The page, for another half on it.
    #[must_use]
    pub fn into_page(self) -> RingPage {
        self.page
    }

    /// Writes a request and makes it visible; returns its slot's number.
    ///
    /// # Panics
    /// When no slot is free: a put belongs to a claim, and a claim to a free slot.
    #[inline(always)]
    pub fn put(&mut self, request: &Request) -> u32 {
        if self.shape.layout == Layout::Flags32 {
            let word = self.next_slot();
            self.page.write(word, &flags32::request(request));
            return self.show();
        }
        self.put_other(Packed::new(request), None)
    }

    /// [`Front::put`] with the vCPU's registers, for the layout that has them.
    ///
    /// # Panics
    /// As [`Front::put`].
    #[inline(always)]
    pub fn put_with(&mut self, request: &Request, registers: Option<&Registers>) -> u32 {
        self.put_other(Packed::new(request), registers)
    }

    /// Takes the request packed, so that the one of the usual layout stays in registers.
    #[inline(never)]
    fn put_other(&mut self, request: Packed, registers: Option<&Registers>) -> u32 {
        let request = &request.request();
        let word = self.next_slot();
        match self.shape.layout {
            Layout::Flags16 => self.page.write(word, &flags16::request(self.shape.ring, request)),
            Layout::Flags32 => self.page.write(word, &flags32::request(request)),
            Layout::VmEvent7 => self.page.write(word, &vm_event::request(request, registers)),
        }
        self.show()
    }

    #[inline(always)]
    fn next_slot(&self) -> usize {
        assert!(self.free() > 0, "a put without a free slot");
        self.shape.word(self.req_prod_pvt)
    }

    #[inline(always)]
    fn show(&mut self) -> u32 {
        let slot = self.shape.slot(self.req_prod_pvt);
        self.req_prod_pvt = self.req_prod_pvt.wrapping_add(1);
        // Release: the body's words are visible before the index that covers them.
        self.page.store(Index::ReqProd, self.req_prod_pvt, Ordering::Release);
        slot
    }

    /// Reads the consumer's producer index, once for a step, and returns how many responses [`Front::take`] will give.
    /// What is pushed later comes with a notification of its own. With `until` that number is taken for the index, which it was; the
    /// caller must poll the page again afterwards.
    ///
    /// # Errors
    /// [`Broken`] for an index ahead of the requests put or behind the responses taken; the index is appended to `taken`.
    #[inline]
    pub fn poll(&mut self, until: Option<u32>, taken: &mut Vec<u8>) -> Result<u32, Broken> {
        loop {
            // Acquire: pairs with the consumer's release store, so the slots below the index are whole.
            let rsp_prod = until.unwrap_or_else(|| self.page.load(Index::RspProd, Ordering::Acquire));
            let pending = rsp_prod.wrapping_sub(self.rsp_cons);
            let outstanding = self.outstanding();
            if pending > outstanding {
                taken::push_broken(taken, self.shape.ring, rsp_prod);
                return Err(Broken { rsp_prod, rsp_cons: self.rsp_cons, outstanding });
            }
            self.seen = rsp_prod;
            self.page.store(Index::RspEvent, rsp_prod.wrapping_add(1), Ordering::Relaxed);
            if pending == outstanding {
                return Ok(pending);
            }
            // A consumer may spare a notification where `rsp_event` says that nobody waits for it. Either it sees our
            // `rsp_event` after its push, or we see its push here: both stores are before a full fence. The loop ends
            // because `rsp_prod` can move at most `outstanding` times before it is refused.
            fence(Ordering::SeqCst);
            if until.is_some() || self.page.load(Index::RspProd, Ordering::Relaxed) == rsp_prod {
                return Ok(pending);
            }
        }
    }

    /// Takes the oldest response that the last [`Front::poll`] saw: copies its slot once, appends the copy to `taken` (see
    /// [`crate::taken`]), frees the slot. Returns the slot's number and the response, unchecked.
    #[inline]
    pub fn take(&mut self, taken: &mut Vec<u8>) -> Option<(u32, Response)> {
        if self.rsp_cons == self.seen {
            return None;
        }
        let response = self.read_any(self.shape.word(self.rsp_cons), taken);
        Some((self.free_slot(), response))
    }

    /// [`Front::take`] for the usual layout, as words: decoded where the response is wanted, it stays in registers. The caller
    /// puts it on record. `None` also for the other layouts.
    #[inline(always)]
    pub(crate) fn take_flags32(&mut self) -> Option<(u32, flags32::Slot)> {
        if self.rsp_cons == self.seen || self.shape.layout != Layout::Flags32 {
            return None;
        }
        let words = self.page.read(self.shape.word(self.rsp_cons));
        Some((self.free_slot(), words))
    }

    #[inline(always)]
    fn free_slot(&mut self) -> u32 {
        let slot = self.shape.slot(self.rsp_cons);
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        slot
    }

    #[inline(never)]
    fn read_any(&self, word: usize, taken: &mut Vec<u8>) -> Response {
        let Shape { ring, layout, .. } = self.shape;
        if layout == Layout::VmEvent7 {
            let words = self.page.read(word);
            taken::push_slot(taken, ring, &words);
            return vm_event::read_response(&words);
        }
        let words = self.page.read(word);
        taken::push_slot(taken, ring, &words);
        if layout == Layout::Flags16 { flags16::read_response(&words) } else { flags32::read_response(ring, &words) }
    }
}
