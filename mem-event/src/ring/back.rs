//! The consumer's half of a ring.

use super::Shape;
use super::pollers::FAR;
use crate::atomics::fence;
use crate::control::{Layout, Ring};
use crate::event::{Request, Response};
use crate::page::{Index, RingPage};
use crate::registers::Registers;
use crate::wire::{Malformed, flags16, flags32, mem_event, response_bytes, vm_event};
use std::sync::atomic::Ordering;

/// The consumer's half.
#[derive(Debug)]
pub struct Back {
    page: RingPage,
    shape: Shape,
    req_cons: u32,
    rsp_prod_pvt: u32,
    /// How far ahead of `req_cons` the request is that the engine is to signal: the next one, or none.
    named: u32,
    /// The responses that the engine was asked about whether it wants to be signalled.
    signalled: u32,
}

impl Back {
    /// A consumer that takes a ring over where its predecessor left it: requests that were not answered come again.
    ///
    /// # Errors
    /// A sentence for a number of slots that is no power of two or too large.
    pub fn new(page: RingPage, ring: Ring, layout: Layout, slots: u32) -> Result<Back, String> {
        let shape = Shape::new(ring, layout, slots)?;
        let rsp_prod = page.load(Index::RspProd, Ordering::Acquire);
        Ok(Back { page, shape, req_cons: rsp_prod, rsp_prod_pvt: rsp_prod, named: 1, signalled: rsp_prod })
    }

    /// The first consumer of a ring: initialises the page. To be done before the engine puts anything.
    ///
    /// # Errors
    /// As [`Back::new`].
    pub fn init(page: RingPage, ring: Ring, layout: Layout, slots: u32) -> Result<Back, String> {
        page.init();
        Back::new(page, ring, layout, slots)
    }

    /// Requests that wait to be taken.
    #[inline]
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.page.load(Index::ReqProd, Ordering::Acquire).wrapping_sub(self.req_cons)
    }

    /// From now on the consumer polls the ring, and the engine need not notify.
    pub fn begin_polling(&mut self) {
        self.named = FAR;
        self.name_event();
    }

    /// The consumer is about to sleep and wants to be notified. True: a request came meanwhile, perhaps without a notification.
    #[must_use = "a request that came meanwhile may not be signalled"]
    pub fn end_polling(&mut self) -> bool {
        self.named = 1;
        self.name_event();
        // Either the engine sees the index named, after the request that it puts, or that request is seen here: pairs with the
        // fence in `Pollers::must_signal`.
        fence(Ordering::SeqCst);
        self.pending() > 0
    }

    #[inline(always)]
    fn name_event(&self) {
        self.page.store(Index::ReqEvent, self.req_cons.wrapping_add(self.named), Ordering::Relaxed);
    }

    /// Whether the engine must be signalled of the responses pushed since this was last asked
    /// (`RING_PUSH_RESPONSES_AND_CHECK_NOTIFY`).
    #[must_use]
    pub fn must_signal(&mut self) -> bool {
        // Pairs with the fences in `Front::poll` and `Pollers::end_polling`.
        fence(Ordering::SeqCst);
        let (new, old) = (self.rsp_prod_pvt, std::mem::replace(&mut self.signalled, self.rsp_prod_pvt));
        new.wrapping_sub(self.page.load(Index::RspEvent, Ordering::Relaxed)) < new.wrapping_sub(old)
    }

    /// So many calls were handed over ([`crate::multicall::Multicall`]) until now: they take effect before any response that is
    /// pushed from now on.
    pub fn calls(&self, count: u32) {
        // The calls come before the count.
        self.page.store(Index::Calls, count, Ordering::Release);
    }

    /// Requests taken and not answered yet.
    #[inline]
    #[must_use]
    pub fn unanswered(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod_pvt)
    }

    /// The page.
    #[must_use]
    pub fn page(&self) -> &RingPage {
        &self.page
    }

    /// Takes the oldest waiting request, if there is one; its slot is then free for a response.
    ///
    /// # Errors
    /// [`Malformed`] where the slot is no request of this layout. It is taken all the same and can be answered.
    #[inline(always)]
    pub fn take(&mut self) -> Result<Option<Request>, Malformed> {
        if self.pending() == 0 {
            return Ok(None);
        }
        let word = self.shape.word(self.req_cons);
        self.req_cons = self.req_cons.wrapping_add(1);
        if self.shape.layout == Layout::Flags32 {
            let words = self.page.read(word);
            self.name_event();
            return flags32::read_request(self.shape.ring, &words).map(Some);
        }
        let request = self.read_other(word);
        self.name_event();
        request.map(Some)
    }

    /// The registers that came with the request that was taken last, while it is not answered; `None` where the layout has none.
    #[must_use]
    pub fn registers(&self) -> Option<Registers> {
        if self.shape.layout != Layout::VmEvent7 || self.unanswered() == 0 {
            return None;
        }
        let word = self.shape.word(self.req_cons.wrapping_sub(1));
        Some(vm_event::read_registers(&self.page.read(word)))
    }

    #[inline(never)]
    fn read_other(&self, word: usize) -> Result<Request, Malformed> {
        match self.shape.layout {
            Layout::Flags16 => flags16::read_request(&self.page.read(word)),
            Layout::Flags32 => flags32::read_request(self.shape.ring, &self.page.read(word)),
            Layout::VmEvent7 => vm_event::read_request(&self.page.read(word)),
        }
    }

    /// Copies the oldest waiting request out and answers it with the same bytes, unread: what a consumer in C does that only
    /// lets things go on. False where none waits.
    ///
    /// # Panics
    /// When a request taken before is not answered yet: answers go into slots in order.
    pub fn echo(&mut self) -> bool {
        if self.pending() == 0 {
            return false;
        }
        assert!(self.unanswered() == 0, "an echo before the answer that is due");
        let word = self.shape.word(self.req_cons);
        match self.shape.layout {
            Layout::Flags16 | Layout::Flags32 => self.page.write(word, &self.page.read::<{ mem_event::WORDS }>(word)),
            Layout::VmEvent7 => self.page.write(word, &self.page.read::<{ vm_event::WORDS }>(word)),
        }
        self.req_cons = self.req_cons.wrapping_add(1);
        self.name_event();
        self.set_rsp_prod(self.req_cons);
        true
    }

    /// Writes a response into the oldest slot that was taken and not answered, and makes it visible. The caller then
    /// signals the engine.
    ///
    /// # Panics
    /// When every request taken is answered already.
    #[inline(always)]
    pub fn answer(&mut self, response: &Response) {
        assert!(self.unanswered() > 0, "an answer without a request");
        let word = self.shape.word(self.rsp_prod_pvt);
        if self.shape.layout == Layout::Flags32 {
            self.page.write(word, &flags32::response(response));
        } else {
            let copy = *response;
            self.write_other(word, &copy);
        }
        // Release: the body's words are visible before the index that covers them.
        self.set_rsp_prod(self.rsp_prod_pvt.wrapping_add(1));
    }

    /// [`Back::answer`] with a register file, of which the engine sets a part ([`crate::Flags::SET_REGISTERS`]); for the layout that has one.
    ///
    /// # Panics
    /// As [`Back::answer`].
    pub fn answer_with(&mut self, response: &Response, registers: &Registers) {
        let bytes: Vec<u8> = registers.words().into_iter().flat_map(u64::to_le_bytes).collect();
        self.answer_with_data(response, &bytes);
    }

    #[inline(never)]
    fn write_other(&self, word: usize, response: &Response) {
        let Shape { ring, layout, .. } = self.shape;
        match layout {
            Layout::Flags16 => self.page.write(word, &flags16::response(ring, response)),
            Layout::Flags32 => self.page.write(word, &flags32::response(response)),
            Layout::VmEvent7 => self.page.write(word, &vm_event::response(ring, response)),
        }
    }

    /// [`Back::answer`] with data for the instruction that is to be emulated, which stand where a request has its registers: only the layout of
    /// `vm_event` has room for them, and for no more than 344 bytes.
    ///
    /// # Panics
    /// When every request taken is answered already.
    pub fn answer_with_data(&mut self, response: &Response, data: &[u8]) {
        assert!(self.unanswered() > 0, "an answer without a request");
        let Shape { ring, layout, .. } = self.shape;
        let mut bytes = response_bytes(layout, ring, response);
        if layout == Layout::VmEvent7 {
            let (_, room) = bytes.split_at_mut(vm_event::DATA * 8);
            room.iter_mut().zip(data).for_each(|(place, byte)| *place = *byte);
        }
        self.answer_raw(&bytes);
    }

    /// Writes bytes as the next response, cut to a slot's size, without making them visible: for consumers that misbehave,
    /// and for replay. Nothing is checked.
    pub fn write_raw(&mut self, bytes: &[u8]) {
        let word = self.shape.word(self.rsp_prod_pvt);
        for (at, chunk) in bytes.chunks(8).take(self.shape.layout.slot_bytes() / 8).enumerate() {
            let mut whole = [0; 8];
            whole[..chunk.len()].copy_from_slice(chunk);
            self.page.write_word(word + at, u64::from_le_bytes(whole));
        }
        self.rsp_prod_pvt = self.rsp_prod_pvt.wrapping_add(1);
    }

    /// [`Back::write_raw`], then made visible.
    pub fn answer_raw(&mut self, bytes: &[u8]) {
        self.write_raw(bytes);
        self.push();
    }

    /// Makes everything written visible.
    #[inline]
    pub fn push(&mut self) {
        self.set_rsp_prod(self.rsp_prod_pvt);
    }

    /// Writes any producer index, and goes on from there.
    #[inline]
    pub fn set_rsp_prod(&mut self, rsp_prod: u32) {
        self.rsp_prod_pvt = rsp_prod;
        self.page.store(Index::RspProd, rsp_prod, Ordering::Release);
    }
}
