//! A consumer's end of one ring: the ring page, the event channel, the connection that holds them.

use crate::socket::Client;
use anyhow::Context;
use mem_event::message::Call;
use mem_event::multicall::{self, Multicall};
use mem_event::page::RingPage;
use mem_event::ring::Back;
use mem_event::{AccessType, Control, Errno, Gfn, Layout, PAGE_SIZE, Request, Response, Rights, Ring};
use rustix::event::{PollFd, PollFlags};
use std::collections::VecDeque;
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
    /// Memory for calls.
    multicall: Multicall,
    /// Calls handed over.
    calls: u32,
    /// Of them those of which it is not known yet what became.
    due: VecDeque<(u32, Call)>,
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
        let multicall =
            Multicall::map(&page, ring).with_context(|| format!("cannot map the {ring} ring's memory for calls"))?;
        let page = RingPage::map(page).with_context(|| format!("cannot map the {ring} ring"))?;
        // The engine hands an initialised page over. To initialise it again would race with the first event.
        let back = Back::new(page, ring, layout, slots).map_err(|why| anyhow::anyhow!("the {ring} ring: {why}"))?;
        Ok(Channel { client, back, ring, settings, signalled, signal, multicall, calls: 0, due: VecDeque::new() })
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
        self.settle()?;
        let mut waited = [PollFd::new(&self.signalled, PollFlags::IN), PollFd::new(&self.client, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, None))?;
        let heard = !waited[1].revents().is_empty();
        self.clear_signal();
        while heard && self.client.notice()?.is_some() {}
        Ok(!self.client.has_ended())
    }

    /// Hands the content of a frame over: it comes back before the responses from now on take effect. The number of this call, for
    /// [`Channel::became`]; nothing where the ring has no memory for contents, or as many calls are under way as it has place for:
    /// then there is [`Call::Load`].
    pub fn load(&mut self, gfn: Gfn, content: &[u8; PAGE_SIZE]) -> Option<u32> {
        self.hand_over_by(|multicall, number| multicall.put_load(number, gfn, content))
    }

    /// Hands a call over: it is done before the responses from now on take effect, in the order of those that are handed over. The number
    /// of this call, for [`Channel::became`]; nothing where it cannot be handed over, or as many are under way as there is place
    /// for: then it is made on the connection.
    pub fn hand_over(&mut self, call: &Call) -> Option<u32> {
        multicall::takes(call).then_some(())?;
        self.hand_over_by(|multicall, number| multicall.put(number, call))
    }

    fn hand_over_by(&mut self, put: impl FnOnce(&Multicall, u32) -> bool) -> Option<u32> {
        let number = self.calls;
        // The place's last call must have been taken.
        let _ = self.multicall.result(number)?;
        put(&self.multicall, number).then_some(())?;
        self.calls = number.wrapping_add(1);
        self.back.calls(self.calls);
        Some(number)
    }

    /// Has a call done before the responses from now on take effect: handed over where it can be, else on the connection. What became of
    /// one that is handed over is known when the engine has taken it: what it refuses is an error of a later one of these, or of
    /// [`Channel::wait`]; for what there is no memory now (ENOMEM) is done on the connection then, as [`Client::insist`] has it.
    ///
    /// # Errors
    /// As [`Client::insist`].
    pub fn before_answer(&mut self, call: Call) -> anyhow::Result<()> {
        self.settle()?;
        match self.hand_over(&call) {
            Some(number) => self.due.push_back((number, call)),
            None => {
                self.client.insist(&call)?;
            }
        }
        Ok(())
    }

    /// Sets the access rights of a frame, before the answer to the request that is being served.
    ///
    /// # Errors
    /// As [`Channel::before_answer`].
    pub fn set_access(&mut self, first: Gfn, access: AccessType) -> anyhow::Result<()> {
        self.before_answer(Call::Control(Control::SetAccess { first, count: 1, access }))
    }

    /// Gives a frame these rights besides those that it has, before the answer; what it has then.
    ///
    /// # Errors
    /// As [`Channel::before_answer`].
    pub fn grant(&mut self, gfn: Gfn, rights: Rights) -> anyhow::Result<AccessType> {
        let access = self.client.access(gfn)?.with(rights);
        self.set_access(gfn, access)?;
        Ok(access)
    }

    /// Learns what became of calls that were handed over, as far as that is known: of all, once a call on the connection has its reply.
    ///
    /// # Errors
    /// As [`Channel::before_answer`].
    pub fn settle(&mut self) -> anyhow::Result<()> {
        while let Some((number, _)) = self.due.front()
            && let Some(result) = self.became(*number)
            && let Some((_, call)) = self.due.pop_front()
        {
            match result {
                Ok(()) => {}
                Err(Errno::ENOMEM) => {
                    self.client.insist(&call)?;
                }
                Err(errno) => anyhow::bail!("{call} is refused: {errno}"),
            }
        }
        Ok(())
    }

    /// What became of a call that was handed over; nothing until the engine took it. It does so before the next call on this connection
    /// is served.
    #[must_use]
    pub fn became(&self, number: u32) -> Option<Result<(), Errno>> {
        self.multicall.result(number)
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
