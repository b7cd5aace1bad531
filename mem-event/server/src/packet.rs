//! Packets with descriptors, sent and received.

use mem_event::Errno;
use mem_event::message::Reply;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// One packet: its length, and the last descriptor that came with it. It does not wait for one.
///
/// # Errors
/// The kernel's error: `AGAIN` where no packet is here.
pub fn receive(socket: &OwnedFd, packet: &mut [u8]) -> rustix::io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(packet)], &mut ancillary, flags)?;
    let files = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    Ok((received.bytes, files.last()))
}

/// Sends one packet with up to three descriptors. It does not wait for room.
///
/// # Errors
/// The kernel's error: `AGAIN` where the peer reads nothing.
pub fn send(socket: &OwnedFd, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(packet)], &mut ancillary, flags)
}

/// A process that may not come in is told why; whether it reads that is its own matter.
pub fn refuse(socket: &OwnedFd, errno: Errno, sentence: String) {
    let _ = send(socket, &Reply::Refused(errno, sentence).encode(0, 0), &[]);
}
