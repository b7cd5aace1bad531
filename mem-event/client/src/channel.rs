//! A consumer's end of one ring: the ring page, the event channel, the connection that holds them.

use crate::socket::Client;
use anyhow::Context;
use mem_event::contents::Contents;
use mem_event::page::RingPage;
use mem_event::ring::Back;
use mem_event::{Control, Errno, Gfn, Layout, PAGE_SIZE, Request, Response, Ring};
use rustix::event::{PollFd, PollFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// How a ring is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct RingSettings {
    /// The layout of its slots.
    pub layout: Layout,
    /// How many slots, a power of two; 0 for as many as fit.
    pub slots: u32,
}

/// An enabled ring. When it is dropped its connection closes, and the engine sees the consumer as lost.
#[derive(Debug)]
pub struct Channel {
    /// The connection that enabled the ring; the consumer's own calls go here.
    pub client: Client,
    back: Back,
    ring: Ring,
    settings: RingSettings,
    signalled: OwnedFd,
    signal: OwnedFd,
    /// Memory for contents, which the paging ring has.
    contents: Option<Contents>,
    /// Contents handed over.
    loads: u32,
}

impl Channel {
    /// Connects and enables the ring.
    ///
    /// # Errors
    /// The plugin refuses, or no plugin listens.
    pub fn enable(socket: &Path, ring: Ring, settings: RingSettings) -> anyhow::Result<Channel> {
        let RingSettings { layout, slots } = settings;
        let mut client = Client::connect(socket)?;
        let descriptors = client.enable(Control::Enable { ring, layout, slots })?;
        Channel::new(client, ring, settings, descriptors)
    }

    /// A ring that is enabled on this connection: its page, the eventfd that the engine signals, the one that it hears.
    ///
    /// # Errors
    /// The page cannot be mapped.
    pub fn new(
        client: Client,
        ring: Ring,
        settings: RingSettings,
        descriptors: [OwnedFd; 3],
    ) -> anyhow::Result<Channel> {
        let RingSettings { layout, slots } = settings;
        let [page, signalled, signal] = descriptors;
        let contents = (ring == Ring::Paging).then(|| Contents::map(&page)).transpose();
        let contents = contents.context("cannot map the paging ring's memory for contents")?;
        let page = RingPage::map(page).with_context(|| format!("cannot map the {ring} ring"))?;
        // The engine hands an initialised page over. To initialise it again would race with the first event.
        let back = Back::new(page, ring, layout, slots).map_err(|why| anyhow::anyhow!("the {ring} ring: {why}"))?;
        Ok(Channel { client, back, ring, settings, signalled, signal, contents, loads: 0 })
    }

    /// The next request. What is no request of the layout is answered with nothing and skipped, as Xen's tools do.
    pub fn take(&mut self) -> Option<Request> {
        loop {
            match self.back.take() {
                Ok(request) => return request,
                Err(_) => self.back.answer_raw(&[]),
            }
        }
    }

    /// The registers that came with the request that was taken last, while it is not answered; `None` where the layout has none.
    #[must_use]
    pub fn registers(&self) -> Option<mem_event::wire::vm_event::Registers> {
        self.back.registers()
    }

    /// Whether a request waits; reads memory only.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.back.pending() > 0
    }

    /// Requests taken and not answered, and those that wait.
    #[must_use]
    pub fn unanswered(&self) -> u32 {
        self.back.unanswered() + self.back.pending()
    }

    /// Writes the answer to the oldest request without one; [`Channel::kick`] tells the engine.
    pub fn answer(&mut self, response: &Response) {
        self.back.answer(response);
    }

    /// [`Channel::answer`] with a register file, of which the engine sets a part where the response says so
    /// ([`mem_event::Flags::SET_REGISTERS`]).
    pub fn answer_with(&mut self, response: &Response, registers: &mem_event::registers::Registers) {
        self.back.answer_with(response, registers);
    }

    /// [`Channel::answer`] with data for the instruction that is to be emulated, where the layout has room for them.
    pub fn answer_with_data(&mut self, response: &Response, data: &[u8]) {
        if data.is_empty() {
            self.back.answer(response);
        } else {
            self.back.answer_with_data(response, data);
        }
    }

    /// The ring's half itself, for consumers that misbehave.
    pub fn back(&mut self) -> &mut Back {
        &mut self.back
    }

    /// Which ring it is, and how it was enabled.
    #[must_use]
    pub fn shape(&self) -> (Ring, RingSettings) {
        (self.ring, self.settings)
    }

    /// Signals the engine of what was answered, unless a thread there polls the ring.
    ///
    /// # Errors
    /// The event channel is gone.
    pub fn kick(&mut self) -> anyhow::Result<()> {
        if self.back.must_signal() {
            rustix::io::write(&self.signal, &1u64.to_ne_bytes()).context("the event channel is gone")?;
        }
        Ok(())
    }

    /// Waits until there may be a request, or the domain has ended: then false.
    ///
    /// # Errors
    /// What came on the connection is not the protocol.
    pub fn wait(&mut self) -> anyhow::Result<bool> {
        let mut waited = [PollFd::new(&self.signalled, PollFlags::IN), PollFd::new(&self.client, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, None))?;
        let heard = !waited[1].revents().is_empty();
        self.clear_signal();
        while heard && self.client.notice()?.is_some() {}
        Ok(!self.client.has_ended())
    }

    /// Hands the content of a frame over: it comes back before the responses from now on take effect. The number of this load, for
    /// [`Channel::loaded`]; nothing where the ring has no memory for contents, or as many are under way as it has place for:
    /// then there is [`mem_event::message::Call::Load`].
    pub fn load(&mut self, gfn: Gfn, content: &[u8; PAGE_SIZE]) -> Option<u32> {
        let contents = self.contents.as_ref()?;
        let number = self.loads;
        // The place's last load must have been taken.
        let _ = contents.result(number)?;
        contents.put(number, gfn, content);
        self.loads = number.wrapping_add(1);
        self.back.loads(self.loads);
        Some(number)
    }

    /// What became of a load; nothing until the engine took it. It does so before the next call on this connection is served.
    #[must_use]
    pub fn loaded(&self, number: u32) -> Option<Result<(), Errno>> {
        self.contents.as_ref()?.result(number)
    }

    /// From now on the caller polls the ring: the engine need not signal.
    pub fn begin_polling(&mut self) {
        self.back.begin_polling();
    }

    /// The caller wants to be signalled, and sleeps; true where a request came meanwhile, perhaps without a signal.
    #[must_use = "a request that came meanwhile may not be signalled"]
    pub fn end_polling(&mut self) -> bool {
        self.back.end_polling()
    }

    /// Forgets the signals that came; call it when the descriptor can be read, before the ring is polled.
    pub fn clear_signal(&mut self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.signalled, &mut count);
    }
}

impl AsFd for Channel {
    /// Readable when the engine has signalled.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signalled.as_fd()
    }
}
