//! The socket that clients find by its path.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// The listening control socket.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Makes the socket, for its owner alone. A socket that a dead process left there is replaced.
    ///
    /// # Errors
    /// A sentence with the path.
    pub fn bind(path: &Path) -> Result<Listener, String> {
        let fail = |what: &str, error: Errno| format!("control socket {}: {what}: {error}", path.display());
        let address =
            SocketAddrUnix::new(path).map_err(|error| fail("the path is longer than a socket's may be", error))?;
        let make = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        };
        let socket = make().map_err(|error| fail("socket", error))?;
        if path.exists() {
            let probe = make().map_err(|error| fail("socket", error))?;
            match rustix::net::connect(&probe, &address) {
                Err(Errno::CONNREFUSED) => {
                    std::fs::remove_file(path)
                        .map_err(|error| format!("control socket {}: {error}", path.display()))?;
                }
                Ok(()) => return Err(fail("another QEMU serves it", Errno::ADDRINUSE)),
                Err(error) => return Err(fail("something else is there; remove it or name another path", error)),
            }
        }
        rustix::net::bind(&socket, &address).map_err(|error| fail("bind", error))?;
        // Before `listen`, so that nobody can connect in between.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(|error| format!("control socket {}: {error}", path.display()))?;
        rustix::net::listen(&socket, 16).map_err(|error| fail("listen", error))?;
        Ok(Listener(socket))
    }

    /// The next connection, if one waits.
    #[must_use]
    pub fn accept(&self) -> Option<OwnedFd> {
        rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
