//! The process at the other end of a connection, and whether there is room for it.
//!
//! A client may read and write the guest's memory, so only processes of QEMU's user and of root may be one. The socket's mode says so
//! to a process that finds it by its path; but modes can be changed, and folders shared, so the kernel is asked as well.

use mem_event::Errno;
use rustix::fd::AsFd;
use rustix::net::sockopt::socket_peercred;
use rustix::process::Uid;

/// More clients than any scenario has; a flood stops here.
const MOST: usize = 64;
/// So that one process that connects without end leaves room for others.
const MOST_OF_PROCESS: usize = 32;

/// The process that made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// 0 for one in a namespace that this process does not see into.
    process: i32,
    user: Uid,
}

impl Peer {
    /// Its number, as QEMU sees it; 0 where QEMU does not see it.
    pub fn number(self) -> u32 {
        u32::try_from(self.process).unwrap_or(0)
    }

    /// Its user's number.
    pub fn user(self) -> u32 {
        self.user.as_raw()
    }

    /// The name of its program as the kernel tells it (`/proc/PID/comm`, 15 bytes at most); empty where it does not.
    pub fn program(self) -> String {
        let told = std::fs::read(format!("/proc/{}/comm", self.process)).unwrap_or_default();
        String::from_utf8_lossy(&told).trim_end().to_owned()
    }

    /// The process at the other end, if it may come in besides those that are here.
    ///
    /// # Errors
    /// The error and the sentence that it is to hear.
    pub fn admit(socket: impl AsFd, here: impl Iterator<Item = Peer> + Clone) -> Result<Peer, (Errno, String)> {
        let credentials = socket_peercred(socket)
            .map_err(|error| (Errno::EPERM, format!("the kernel does not say who this is: {error}")))?;
        may_call(credentials.uid, rustix::process::geteuid())?;
        let peer = Peer { process: credentials.pid.as_raw_nonzero().get(), user: credentials.uid };
        if here.clone().count() >= MOST {
            return Err((Errno::EBUSY, format!("{MOST} clients are connected already; wait until one has gone")));
        }
        if here.filter(|other| *other == peer).count() >= MOST_OF_PROCESS {
            let process = peer.process;
            return Err((
                Errno::EBUSY,
                format!("process {process} has {MOST_OF_PROCESS} connections already; close one"),
            ));
        }
        Ok(peer)
    }
}

fn may_call(user: Uid, owner: Uid) -> Result<(), (Errno, String)> {
    if user == owner || user.is_root() {
        return Ok(());
    }
    let (user, owner) = (user.as_raw(), owner.as_raw());
    Err((
        Errno::EPERM,
        format!(
            "this QEMU belongs to user {owner}, and the connection comes from user {user}; connect as {owner} or as root"
        ),
    ))
}
