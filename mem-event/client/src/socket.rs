//! The plugin's control socket: calls with their replies, descriptors, notices.

use crate::refusal::{Lost, cannot, refusal};
use anyhow::{Context, bail};
use mem_event::message::{Call, LARGEST, Notice, Reply, VERSION};
use mem_event::{Control, Errno};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown,
    SocketAddrUnix, SocketFlags, SocketType,
};
use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// One connection. Calls may be sent ahead of their replies; replies come in the order of the calls.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    number: u32,
    sequence: u32,
    due: VecDeque<u32>,
    notices: VecDeque<Notice>,
    ended: bool,
}

/// What came on the socket.
pub(crate) struct Packet {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

impl Client {
    /// Connects and greets.
    ///
    /// # Errors
    /// No plugin listens there, or it speaks another version.
    pub fn connect(path: &Path) -> anyhow::Result<Client> {
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        if let Ok(kind) = std::fs::metadata(path).map(|found| found.file_type())
            && !kind.is_socket()
        {
            bail!("{} is no socket", path.display());
        }
        let address = SocketAddrUnix::new(path).with_context(|| format!("{} is no socket's path", path.display()))?;
        rustix::net::connect(&socket, &address).with_context(|| format!("nobody listens at {}", path.display()))?;
        let mut client = Client::greeted(socket);
        let [version, number, ..] =
            client.values(&Call::Hello { version: VERSION }).map_err(|error| client.why_closed(error))?;
        if version != VERSION {
            bail!("the plugin speaks version {version} of the protocol, this program version {VERSION}");
        }
        client.number = u32::try_from(number).unwrap_or_default();
        Ok(client)
    }

    /// A connection that has said Hello, made elsewhere.
    #[must_use]
    pub fn greeted(socket: OwnedFd) -> Client {
        Client { socket, number: 0, sequence: 0, due: VecDeque::new(), notices: VecDeque::new(), ended: false }
    }

    /// What the plugin said before it closed a connection that it does not want, if it said something.
    fn why_closed(&mut self, error: anyhow::Error) -> anyhow::Error {
        if error.downcast_ref::<Lost>().is_none() {
            return error;
        }
        let said = self.receive(RecvFlags::DONTWAIT).ok().flatten();
        let reply = said.and_then(|packet| Reply::decode(&packet.bytes).ok());
        reply.map_or(error, |(_, reply)| refusal(reply))
    }

    /// Its number in the trace, from 1; 0 of a connection that was made elsewhere.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The connection's descriptor, to hand it to another process.
    #[must_use]
    pub fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Ends the connection at once, even where its descriptor has other holders: a child that another thread has forked does until its exec.
    pub fn hang_up(&self) {
        // It fails where the plugin was faster.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
    }

    /// A call and its reply; a refusal is a reply.
    ///
    /// # Errors
    /// The connection ended, or what came is not the protocol.
    pub fn call(&mut self, call: &Call) -> anyhow::Result<Reply> {
        self.send(call)?;
        self.reply()
    }

    /// A call that is not to be refused, and its values.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn values(&mut self, call: &Call) -> anyhow::Result<[u64; 5]> {
        values_of(call, self.call(call)?)
    }

    /// A control operation: done, or refused with Xen's error.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn control(&mut self, control: Control) -> anyhow::Result<Result<u64, (Errno, String)>> {
        Ok(match self.call(&Call::Control(control))? {
            Reply::Done([value, ..]) => Ok(value),
            Reply::Bytes(_) => bail!("bytes in reply to a control operation"),
            Reply::Refused(errno, why) => Err((errno, why)),
        })
    }

    /// A call that gives bytes, perhaps none.
    pub(crate) fn some_bytes(&mut self, call: &Call) -> anyhow::Result<Vec<u8>> {
        match self.call(call)? {
            Reply::Bytes(bytes) => Ok(bytes),
            Reply::Done(_) => Ok(Vec::new()),
            Reply::Refused(errno, why) => bail!("{call} is refused: {errno}, {why}"),
        }
    }

    /// A call that must give bytes.
    ///
    /// # Errors
    /// As [`Client::call`], and a refusal.
    pub fn bytes(&mut self, call: &Call) -> anyhow::Result<Vec<u8>> {
        match self.some_bytes(call)? {
            none if none.is_empty() => bail!("no bytes in reply to: {call}"),
            bytes => Ok(bytes),
        }
    }

    /// Sends a call; its reply is taken later by [`Client::reply`], in the order of the calls.
    ///
    /// # Errors
    /// The connection ended.
    pub fn send(&mut self, call: &Call) -> anyhow::Result<()> {
        self.send_with(call, &mut SendAncillaryBuffer::default())
    }

    pub(crate) fn send_with(
        &mut self,
        call: &Call,
        ancillary: &mut SendAncillaryBuffer<'_, '_, '_>,
    ) -> anyhow::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = call.encode(self.sequence);
        let mut send = || rustix::net::sendmsg(&self.socket, &[IoSlice::new(&bytes)], ancillary, SendFlags::NOSIGNAL);
        rustix::io::retry_on_intr(&mut send).map_err(|error| match error {
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => Lost.into(),
            other => anyhow::Error::new(other).context(format!("the plugin takes no {call}")),
        })?;
        self.due.push_back(self.sequence);
        Ok(())
    }

    /// The reply to the oldest call without one.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub fn reply(&mut self) -> anyhow::Result<Reply> {
        Ok(Reply::decode(&self.packet_of_reply()?.bytes)?.1)
    }

    /// The next notice that is here already; call it when the descriptor can be read, until it gives none.
    ///
    /// # Errors
    /// What came is not the protocol.
    pub fn notice(&mut self) -> anyhow::Result<Option<Notice>> {
        if let Some(notice) = self.notices.pop_front() {
            return Ok(Some(notice));
        }
        match self.receive(RecvFlags::DONTWAIT)? {
            None => Ok(None),
            Some(packet) if Notice::is_notice(&packet.bytes) => Ok(Some(Notice::decode(&packet.bytes)?)),
            Some(_) => bail!("a reply without a call"),
        }
    }

    /// Whether the other side closed the connection.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn packet_of_reply(&mut self) -> anyhow::Result<Packet> {
        let due = self.due.pop_front().context("no reply is due")?;
        loop {
            let packet = self.receive(RecvFlags::empty())?.ok_or(Lost)?;
            if Notice::is_notice(&packet.bytes) {
                self.notices.push_back(Notice::decode(&packet.bytes)?);
                continue;
            }
            let (sequence, reply) = Reply::decode(&packet.bytes)?;
            if due != 0 && sequence == 0 {
                return Err(refusal(reply));
            }
            if sequence != due {
                bail!("reply {sequence} where {due} is due");
            }
            return Ok(packet);
        }
    }

    /// One packet; `None` when nothing is here (without blocking) or the connection ended.
    fn receive(&mut self, flags: RecvFlags) -> anyhow::Result<Option<Packet>> {
        let mut bytes = vec![0; LARGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut once = || {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            rustix::net::recvmsg(&self.socket, &mut slices, &mut ancillary, flags | RecvFlags::CMSG_CLOEXEC)
        };
        let received = match rustix::io::retry_on_intr(&mut once) {
            // It comes before what was said last, and once.
            Err(rustix::io::Errno::CONNRESET) => rustix::io::retry_on_intr(once),
            other => other,
        };
        let length = match received {
            Ok(received) => received.bytes,
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(rustix::io::Errno::CONNRESET) => 0,
            Err(error) => return Err(error).context("the control socket cannot be read"),
        };
        if length == 0 {
            self.ended = true;
            return Ok(None);
        }
        bytes.truncate(length);
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        Ok(Some(Packet { bytes, descriptors }))
    }
}

/// The values of a reply to a call that is not to be refused.
///
/// # Errors
/// It is refused, or the reply is another call's.
pub(crate) fn values_of(call: &Call, reply: Reply) -> anyhow::Result<[u64; 5]> {
    match reply {
        Reply::Done(values) => Ok(values),
        Reply::Bytes(_) => bail!("bytes in reply to: {call}"),
        Reply::Refused(Errno::EOPNOTSUPP, why) => Err(cannot(&why)),
        Reply::Refused(errno, why) => bail!("{call} is refused: {errno}, {why}"),
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::{AddressFamily, Client, RecvFlags, SocketFlags, SocketType};

    #[test]
    fn who_hangs_up_is_gone_also_where_a_child_holds_the_descriptor() {
        let (ours, plugins) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let _child = ours.try_clone().unwrap();
        Client::greeted(ours).hang_up();
        let (count, _) = rustix::net::recv(&plugins, &mut [0; 8], RecvFlags::DONTWAIT).unwrap();
        assert_eq!(count, 0, "the plugin reads the end");
    }
}
