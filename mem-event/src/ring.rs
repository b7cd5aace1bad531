//! The two halves of a ring: [`Front`] is the engine's, [`Back`] the consumer's.
//!
//! Requests and responses share the slots: a response overwrites the oldest slot that holds no response yet. A slot is free
//! again only when the engine has taken its response, so everything that the engine decides by (how many slots are free,
//! how many answers are due) comes from counters of its own. From the page it believes one number, the consumer's
//! `rsp_prod`, and only after [`Front::look`] has found it possible.
//!
//! All counters run freely over 32 bits; a counter's slot is its remainder by the number of slots, a power of two.
//!
//! **Orderings.** A slot's words are relaxed. The side that fills a slot then stores its producer index with *release*, and
//! the other side loads that index with *acquire* before it reads the slot: so the body is seen whole. A slot changes sides
//! only through such a pair: the consumer reuses a slot after it has copied the request out (same thread, and its release
//! store of `rsp_prod` comes after), the engine after it has taken the response out. `tests/memory_order.rs` has loom try every
//! order of these effects, and shows that it would find a weaker one.

use crate::atomics::fence;
use crate::control::{Layout, Ring};
use crate::event::{Request, Response};
use crate::packed::Packed;
use crate::page::{Index, RingPage};
use crate::taken;
use crate::wire::vm_event::Registers;
use crate::wire::{Malformed, flags16, flags32, mem_event, vm_event};
use std::fmt;
use std::sync::atomic::Ordering;

/// A producer index that an honest consumer cannot have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What the page says.
    pub rsp_prod: u32,
    /// Responses that the engine has taken.
    pub rsp_cons: u32,
    /// Responses that are due at most.
    pub outstanding: u32,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Broken { rsp_prod, rsp_cons, outstanding } = self;
        write!(f, "rsp_prod is {rsp_prod:#x}, but {outstanding} responses are due after {rsp_cons:#x}")
    }
}

impl std::error::Error for Broken {}

/// Which slots a ring has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    ring: Ring,
    layout: Layout,
    slots: u32,
}

impl Shape {
    fn new(ring: Ring, layout: Layout, slots: u32) -> Result<Shape, String> {
        let most = layout.max_slots();
        let slots = if slots == 0 { most } else { slots };
        if !slots.is_power_of_two() || slots > most {
            return Err(format!("{slots} slots: a power of two up to {most} is needed"));
        }
        Ok(Shape { ring, layout, slots })
    }

    #[inline]
    fn slot(self, counter: u32) -> u32 {
        counter & (self.slots - 1)
    }

    /// Where the slot's words begin in the page.
    #[inline]
    fn word(self, counter: u32) -> usize {
        self.slot(counter) as usize * (self.layout.slot_bytes() / 8)
    }
}

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
        self.put_other(Packed::new(request))
    }

    /// Takes the request packed, so that the one of the usual layout stays in registers.
    #[inline(never)]
    fn put_other(&mut self, request: Packed) -> u32 {
        self.put_with(&request.request(), None)
    }

    /// [`Front::put`] with the vCPU's registers, for the layout that has them.
    ///
    /// # Panics
    /// As [`Front::put`].
    #[inline(never)]
    pub fn put_with(&mut self, request: &Request, registers: Option<&Registers>) -> u32 {
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
    /// What is pushed later comes with a notification of its own.
    ///
    /// # Errors
    /// [`Broken`] for an index ahead of the requests put or behind the responses taken; the index is appended to `taken`.
    #[inline]
    pub fn look(&mut self, taken: &mut Vec<u8>) -> Result<u32, Broken> {
        loop {
            // Acquire: pairs with the consumer's release store, so the slots below the index are whole.
            let rsp_prod = self.page.load(Index::RspProd, Ordering::Acquire);
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
            if self.page.load(Index::RspProd, Ordering::Relaxed) == rsp_prod {
                return Ok(pending);
            }
        }
    }

    /// Takes the oldest response that the last [`Front::look`] saw: copies its slot once, appends the copy to `taken` (see
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

/// The consumer's half.
#[derive(Debug)]
pub struct Back {
    page: RingPage,
    shape: Shape,
    req_cons: u32,
    rsp_prod_pvt: u32,
}

impl Back {
    /// A consumer that takes a ring over where its predecessor left it: requests that were not answered come again.
    ///
    /// # Errors
    /// A sentence for a number of slots that is no power of two or too large.
    pub fn new(page: RingPage, ring: Ring, layout: Layout, slots: u32) -> Result<Back, String> {
        let shape = Shape::new(ring, layout, slots)?;
        let rsp_prod = page.load(Index::RspProd, Ordering::Acquire);
        Ok(Back { page, shape, req_cons: rsp_prod, rsp_prod_pvt: rsp_prod })
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
            self.page.store(Index::ReqEvent, self.req_cons.wrapping_add(1), Ordering::Relaxed);
            return flags32::read_request(self.shape.ring, &words).map(Some);
        }
        let request = self.read_other(word);
        self.page.store(Index::ReqEvent, self.req_cons.wrapping_add(1), Ordering::Relaxed);
        request.map(Some)
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
        self.page.store(Index::ReqEvent, self.req_cons.wrapping_add(1), Ordering::Relaxed);
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

    #[inline(never)]
    fn write_other(&self, word: usize, response: &Response) {
        let Shape { ring, layout, .. } = self.shape;
        match layout {
            Layout::Flags16 => self.page.write(word, &flags16::response(ring, response)),
            Layout::Flags32 => self.page.write(word, &flags32::response(response)),
            Layout::VmEvent7 => self.page.write(word, &vm_event::response(ring, response)),
        }
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
