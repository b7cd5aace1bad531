//! What a consumer asks for, a method a call: frames and their rights, rings, vCPUs, the page file.

use crate::refusal::cannot;
use crate::socket::{Client, values_of};
use anyhow::{Context as _, bail};
use mem_event::message::{
    BreakpointReport, Call, DeviceReport, Info, MonitorReport, Over, Reply, RingReport, Space, VcpuReport,
    frame_of_byte,
};
use mem_event::registers::Context;
use mem_event::{AccessType, Control, Errno, Gfn, Gla, Gpa, P2mType, Rights, VcpuId};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// How often a call is made for which there is no memory.
const TRIES: u32 = 1000;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(1);

/// What a breakpoint was put over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PutOver {
    /// The byte beneath.
    pub beneath: u8,
    /// How many others have a breakpoint there.
    pub others: u64,
    /// How a vCPU gets over it.
    pub over: Over,
}

impl Client {
    /// The domain's figures.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn info(&mut self) -> anyhow::Result<Info> {
        self.values(&Call::Info).map(Info::from_values)
    }

    /// Where each vCPU stands.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn vcpus(&mut self) -> anyhow::Result<Vec<VcpuReport>> {
        let mut reports = Vec::new();
        loop {
            let first = VcpuId(u32::try_from(reports.len())?);
            let more = VcpuReport::decode_all(&self.some_bytes(&Call::Vcpus { first })?)?;
            reports.extend(&more);
            if more.len() < VcpuReport::MOST {
                return Ok(reports);
            }
        }
    }

    /// Puts a text into the trace, if there is one: a name for what this connection did since its last note or answer. How many steps the
    /// trace has by now, which are then on their way to its file; 0 without a trace.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn note(&mut self, text: &str) -> anyhow::Result<u64> {
        let [steps, ..] = self.values(&Call::Note { text: text.to_owned() })?;
        Ok(steps)
    }

    /// The accesses of devices that wait.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn devices(&mut self) -> anyhow::Result<Vec<DeviceReport>> {
        Ok(DeviceReport::decode_all(&self.some_bytes(&Call::Devices)?)?)
    }

    /// How the three rings stand.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn rings(&mut self) -> anyhow::Result<Vec<RingReport>> {
        Ok(RingReport::decode_all(&self.some_bytes(&Call::Rings)?)?)
    }

    /// Which CPU events are reported, and how; a report for each kind.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn monitors(&mut self) -> anyhow::Result<Vec<MonitorReport>> {
        Ok(MonitorReport::decode_all(&self.some_bytes(&Call::Monitors)?)?)
    }

    /// What each of so many frames is, from frame 0 on, and whether memory is behind it. All are told one after the other, while the
    /// guest goes on.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn types(&mut self) -> anyhow::Result<Vec<(P2mType, bool)>> {
        let mut types = Vec::new();
        loop {
            let more = self.types_from(Gfn(types.len() as u64))?;
            if more.is_empty() {
                return Ok(types);
            }
            types.extend(more);
        }
    }

    /// The same for as many frames as one call tells of, 4096, from this one on; none above the last frame. A frame that was never
    /// touched has no memory behind it.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn types_from(&mut self, first: Gfn) -> anyhow::Result<Vec<(P2mType, bool)>> {
        let one = |byte: &u8| frame_of_byte(*byte).with_context(|| format!("no type of a frame is {byte:#x}"));
        self.some_bytes(&Call::Types { first })?.iter().map(one).collect()
    }

    /// Hands the pager's page file over to the plugin, which keeps it for a successor. The connection must hold the paging ring.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn set_page_file(&mut self, file: impl AsFd) -> anyhow::Result<()> {
        self.hand_over(&Call::SetPageFile, file)
    }

    /// Records the run for this connection from here on, as a trace that begins with the engine's state, into a file or a pipe. It ends in
    /// order with the connection.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn record(&mut self, file: impl AsFd) -> anyhow::Result<()> {
        self.hand_over(&Call::Record, file)
    }

    fn hand_over(&mut self, call: &Call, file: impl AsFd) -> anyhow::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&files));
        self.send_with(call, &mut ancillary)?;
        match self.reply()? {
            Reply::Refused(errno, why) => bail!("{call} is refused: {errno}, {why}"),
            Reply::Done(_) | Reply::Bytes(_) => Ok(()),
        }
    }

    /// The page file that a pager before this one handed over. The connection must hold the paging ring.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn page_file(&mut self) -> anyhow::Result<Option<OwnedFd>> {
        let call = Call::PageFile;
        self.send(&call)?;
        let mut packet = self.packet_of_reply()?;
        match Reply::decode(&packet.bytes)?.1 {
            Reply::Refused(errno, why) => bail!("{call} is refused: {errno}, {why}"),
            _ => Ok(packet.descriptors.pop()),
        }
    }

    /// The memory file, or that of frames beyond RAM, for a client that maps frames of it; refused unless the plugin was started with
    /// `foreign=map`, or while there are no such frames.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn memory(&mut self, beyond: bool) -> anyhow::Result<Result<OwnedFd, (Errno, String)>> {
        let call = Call::Memory { beyond };
        self.send(&call)?;
        let mut packet = self.packet_of_reply()?;
        match Reply::decode(&packet.bytes)?.1 {
            Reply::Refused(errno, why) => Ok(Err((errno, why))),
            _ => packet.descriptors.pop().map(Ok).context("no descriptor came with the memory file"),
        }
    }

    /// Pins a frame that is then mapped from the memory file; its offset there, and whether that is the file of frames
    /// beyond RAM. [`Control::Unpin`] ends it, once it is mapped no more.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn map(&mut self, gfn: Gfn, write: bool) -> anyhow::Result<Result<(u64, bool), (Errno, String)>> {
        let call = Call::Map { gfn, write };
        Ok(match self.call(&call)? {
            Reply::Done([offset, beyond, ..]) => Ok((offset, beyond != 0)),
            Reply::Bytes(_) => bail!("bytes in reply to: {call}"),
            Reply::Refused(errno, why) => Err((errno, why)),
        })
    }

    /// Some bytes of a frame.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn read(&mut self, gfn: Gfn, offset: u16, len: u16) -> anyhow::Result<Vec<u8>> {
        match self.persist(&Call::ReadFrame { gfn, offset, len })? {
            Reply::Bytes(bytes) => Ok(bytes),
            Reply::Refused(errno, why) => bail!("frame {gfn} cannot be read: {errno}, {why}"),
            Reply::Done(_) => bail!("no bytes in reply to a read of frame {gfn}"),
        }
    }

    /// A vCPU's registers; refused with EAGAIN while it runs.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn registers(&mut self, vcpu: VcpuId) -> anyhow::Result<Result<Context, (Errno, String)>> {
        let call = Call::Registers { vcpu };
        Ok(match self.call(&call)? {
            Reply::Bytes(bytes) => {
                Ok(Context::decode(&bytes).with_context(|| format!("{} bytes in reply to: {call}", bytes.len()))?)
            }
            Reply::Refused(errno, why) => Err((errno, why)),
            Reply::Done(_) => bail!("no bytes in reply to: {call}"),
        })
    }

    /// Sets a vCPU's registers. Of one that waits they count when it goes on.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn set_registers(&mut self, vcpu: VcpuId, context: &Context) -> anyhow::Result<()> {
        self.values(&Call::SetRegisters { vcpu, context: context.encode().into() }).map(drop)
    }

    /// No vCPU runs once this returns, until [`Client::unpause`] or this connection's end.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn pause(&mut self) -> anyhow::Result<()> {
        self.values(&Call::Pause).map(drop)
    }

    /// Takes one [`Client::pause`] back.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn unpause(&mut self) -> anyhow::Result<()> {
        self.values(&Call::Unpause).map(drop)
    }

    /// Where a linear address leads.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn translate(&mut self, Space { vcpu, cr3 }: Space, address: Gla) -> anyhow::Result<Gpa> {
        let [gfn, offset, ..] = self.values(&Call::Translate { vcpu, cr3, address })?;
        Ok(Gpa(gfn << 12 | offset & 0xfff))
    }

    /// The bytes at a linear address, 4096 at most.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn read_linear(&mut self, Space { vcpu, cr3 }: Space, address: Gla, len: u16) -> anyhow::Result<Vec<u8>> {
        self.some_bytes(&Call::ReadLinear { vcpu, cr3, address, len })
    }

    /// Overwrites the bytes at a linear address, 4096 at most.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn write_linear(&mut self, Space { vcpu, cr3 }: Space, address: Gla, bytes: &[u8]) -> anyhow::Result<()> {
        self.values(&Call::WriteLinear { vcpu, cr3, address, bytes: bytes.to_vec() }).map(drop)
    }

    /// Puts a breakpoint over a byte, or puts its own over it again. It is taken back with this connection unless it is to stay.
    ///
    /// # Errors
    /// As [`Client::insist`].
    pub fn set_breakpoint(&mut self, gpa: Gpa, stays: bool) -> anyhow::Result<PutOver> {
        let [beneath, others, over, ..] =
            self.insist(&Call::SetBreakpoint { gfn: gpa.gfn(), offset: gpa.offset(), stays })?;
        let over = Over::of_number(over).with_context(|| format!("{over} is no way over a breakpoint"))?;
        Ok(PutOver { beneath: u8::try_from(beneath)?, others, over })
    }

    /// Ends its breakpoint, or one that was left there by a connection that has ended; how many others are there.
    ///
    /// # Errors
    /// As [`Client::insist`].
    pub fn clear_breakpoint(&mut self, gpa: Gpa) -> anyhow::Result<u64> {
        let [left, ..] = self.insist(&Call::ClearBreakpoint { gfn: gpa.gfn(), offset: gpa.offset() })?;
        Ok(left)
    }

    /// Whose breakpoints there are.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn breakpoints(&mut self) -> anyhow::Result<Vec<BreakpointReport>> {
        let (mut reports, mut first) = (Vec::new(), Gpa(0));
        loop {
            let more = self.breakpoints_from(first)?;
            let Some(last) = more.last() else { return Ok(reports) };
            first = Gpa(last.gpa.0 + 1);
            reports.extend(more);
        }
    }

    /// The same for as many as one call tells of, from this address on; none above the last.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn breakpoints_from(&mut self, first: Gpa) -> anyhow::Result<Vec<BreakpointReport>> {
        Ok(BreakpointReport::decode_all(&self.some_bytes(&Call::Breakpoints { first })?)?)
    }

    /// A call and its reply. Where there is no memory for it now (ENOMEM) it is made again, for a second at the longest: in Xen the p2m's own
    /// tables, a frame to load into, or a toolstack's mapping may find none for a while.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn persist(&mut self, call: &Call) -> anyhow::Result<Reply> {
        for _ in 1..TRIES {
            match self.call(call)? {
                Reply::Refused(Errno::ENOMEM, _) => std::thread::sleep(PAUSE),
                other => return Ok(other),
            }
        }
        self.call(call)
    }

    /// A call that is to be done in the end, and its values.
    ///
    /// # Errors
    /// As [`Client::persist`], and a refusal.
    pub fn insist(&mut self, call: &Call) -> anyhow::Result<[u64; 5]> {
        values_of(call, self.persist(call)?)
    }

    /// The access rights of a frame.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn access(&mut self, gfn: Gfn) -> anyhow::Result<AccessType> {
        let [number, ..] = self.values(&Call::Control(Control::GetAccess { gfn }))?;
        Ok(u8::try_from(number).ok().and_then(AccessType::from_number).unwrap_or_default())
    }

    /// Sets the access rights of a frame; they are in force when this returns.
    ///
    /// # Errors
    /// As [`Client::insist`].
    pub fn set_access(&mut self, first: Gfn, access: AccessType) -> anyhow::Result<()> {
        self.insist(&Call::Control(Control::SetAccess { first, count: 1, access })).map(drop)
    }

    /// Gives a frame these rights besides those that it has; what it has now.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn grant(&mut self, gfn: Gfn, rights: Rights) -> anyhow::Result<AccessType> {
        let access = self.access(gfn)?.with(rights);
        self.set_access(gfn, access)?;
        Ok(access)
    }

    /// Begins a foreign mapping of a frame: from true on it stays, and [`Client::read`] finds it. False: it is being paged in, or the
    /// paging ring is full; ask again when the pager has had its turn.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn pin(&mut self, gfn: Gfn) -> anyhow::Result<bool> {
        match self.control(Control::Pin { gfn })? {
            Ok(_) => Ok(true),
            Err((Errno::ENOENT | Errno::EBUSY | Errno::ENOMEM, _)) => Ok(false),
            Err((errno, why)) => bail!("frame {gfn} cannot be mapped: {errno}, {why}"),
        }
    }

    /// Enables a ring: its page, the eventfd that the engine signals, the eventfd that the consumer signals.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn enable(&mut self, enable: Control) -> anyhow::Result<[OwnedFd; 3]> {
        let call = Call::Control(enable.clone());
        match self.try_enable(enable)? {
            Ok(descriptors) => Ok(descriptors),
            Err((Errno::EOPNOTSUPP, why)) => Err(cannot(&why)),
            Err((errno, why)) => bail!("{call} is refused: {errno}, {why}"),
        }
    }

    /// The same, where a refusal is for the caller to judge.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn try_enable(&mut self, enable: Control) -> anyhow::Result<Result<[OwnedFd; 3], (Errno, String)>> {
        self.send(&Call::Control(enable))?;
        let packet = self.packet_of_reply()?;
        match Reply::decode(&packet.bytes)?.1 {
            Reply::Refused(errno, why) => Ok(Err((errno, why))),
            _ => packet.descriptors.try_into().map(Ok).map_err(|list: Vec<OwnedFd>| {
                anyhow::anyhow!("{} descriptors came with a ring where 3 are due", list.len())
            }),
        }
    }
}
