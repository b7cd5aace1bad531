//! The store's socket, and the domains' ends. One thread waits for all of them; it ends when there is neither a domain nor a client.

use super::request::{Newcomer, Store};
use super::watch::Client as Number;
use super::wire::{Message, Refused};
use mem_event_client::Client;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::FlockOperation;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// What a client may leave unread before it is dropped.
const UNREAD: usize = 1 << 20;

/// Where the store of a domain is, by its plugin's socket.
#[must_use]
pub fn beside(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".xenstore");
    path.into()
}

/// Holds off everybody else who looks for this store, or ends it, for as long as the value lives.
///
/// # Errors
/// What the kernel refuses: there is no such folder.
pub fn hold(path: &Path) -> io::Result<File> {
    let name = lock_of(path);
    loop {
        let file = File::options().create(true).truncate(false).write(true).open(&name)?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
        // The store that held it before has taken the file away at its end, where these differ.
        let ours = file.metadata()?.ino();
        if std::fs::metadata(&name).is_ok_and(|now| now.ino() == ours) {
            return Ok(file);
        }
    }
}

fn lock_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

/// A client of the store.
#[derive(Debug)]
struct Peer {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    gone: bool,
}

/// A store that is served.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    store: Store,
    peers: BTreeMap<Number, Peer>,
    /// The connections whose ends are the domains'.
    domains: BTreeMap<u16, (PathBuf, Client)>,
    last: Number,
}

impl Server {
    /// At this socket, for these domains; one that is not there is left out.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn new(listener: OwnedFd, path: PathBuf, newcomers: &[Newcomer]) -> io::Result<Server> {
        let listener = UnixListener::from(listener);
        listener.set_nonblocking(true)?;
        let (store, peers, domains) = (Store::new(), BTreeMap::new(), BTreeMap::new());
        let mut server = Server { listener, path, store, peers, domains, last: 0 };
        for newcomer in newcomers {
            // Its tool says why, when it asks something of it.
            let _ = server.introduce(newcomer);
        }
        Ok(server)
    }

    fn introduce(&mut self, newcomer: &Newcomer) -> Result<(), Refused> {
        if let Some((socket, _)) = self.domains.get(&newcomer.number) {
            return if *socket == newcomer.socket { Ok(()) } else { Err(Refused("EEXIST")) };
        }
        let connected = Client::connect(&newcomer.socket).and_then(|mut client| Ok((client.info()?, client)));
        let (info, client) = connected.map_err(|_| Refused("ENOENT"))?;
        self.domains.insert(newcomer.number, (newcomer.socket.clone(), client));
        self.store.introduce(newcomer, info.frames * 4);
        Ok(())
    }

    /// Serves until nobody is there.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn serve(mut self) -> io::Result<()> {
        loop {
            self.once()?;
            if self.domains.is_empty() && self.peers.is_empty() {
                let _held = hold(&self.path)?;
                if !self.accept() {
                    std::fs::remove_file(&self.path)?;
                    return std::fs::remove_file(lock_of(&self.path));
                }
            }
        }
    }

    fn once(&mut self) -> io::Result<()> {
        if self.domains.is_empty() && self.peers.is_empty() {
            return Ok(());
        }
        let mut waited = vec![PollFd::new(&self.listener, PollFlags::IN)];
        waited.extend(self.domains.values().map(|(_, client)| PollFd::new(client, PollFlags::IN)));
        waited.extend(self.peers.values().map(|peer| {
            let output = if peer.output.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            PollFd::new(&peer.socket, PollFlags::IN | output)
        }));
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, None))?;
        drop(waited);
        self.accept();
        self.look_for_ends();
        for number in self.peers.keys().copied().collect::<Vec<_>>() {
            self.read(number);
        }
        self.newcomers();
        for (number, message) in self.store.take() {
            if let Some(peer) = self.peers.get_mut(&number) {
                peer.output.extend(message.bytes());
            }
        }
        self.peers.values_mut().for_each(Peer::write);
        let gone: Vec<Number> = self.peers.iter().filter(|(_, peer)| peer.gone).map(|(number, _)| *number).collect();
        for number in gone {
            self.peers.remove(&number);
            self.store.part(number);
        }
        Ok(())
    }

    /// Lets in who waits; whether anybody did.
    fn accept(&mut self) -> bool {
        let mut any = false;
        while let Ok((socket, _)) = self.listener.accept() {
            let user = rustix::net::sockopt::socket_peercred(&socket).map(|peer| peer.uid);
            let known = user.is_ok_and(|user| user.is_root() || user == rustix::process::geteuid());
            if known && socket.set_nonblocking(true).is_ok() {
                self.last += 1;
                let (input, output) = (Vec::new(), Vec::new());
                self.peers.insert(self.last, Peer { socket, input, output, gone: false });
                any = true;
            }
        }
        any
    }

    fn look_for_ends(&mut self) {
        let has_ended = |client: &mut Client| loop {
            match client.notice() {
                Ok(Some(_)) => {}
                Ok(None) => break client.has_ended(),
                Err(_) => break true,
            }
        };
        let ended = self.domains.iter_mut().filter_map(|(number, (_, client))| has_ended(client).then_some(*number));
        for number in ended.collect::<Vec<_>>() {
            self.domains.remove(&number);
            self.store.release(number);
        }
    }

    fn read(&mut self, number: Number) {
        let Some(peer) = self.peers.get_mut(&number) else { return };
        for message in peer.read() {
            self.store.request(number, &message);
        }
    }

    fn newcomers(&mut self) {
        for (number, message, newcomer) in self.store.take_newcomers() {
            let result = self.introduce(&newcomer);
            self.store.answer(number, &message, result);
        }
    }
}

impl Peer {
    /// The messages that have come whole.
    fn read(&mut self) -> Vec<Message> {
        let mut bytes = [0; 8192];
        loop {
            match self.socket.read(&mut bytes) {
                Ok(0) => self.gone = true,
                Ok(count) => {
                    self.input.extend(&bytes[..count]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.gone = true,
            }
            break;
        }
        let mut messages = Vec::new();
        loop {
            match Message::first(&self.input) {
                Ok(Some((message, length))) => {
                    self.input.drain(..length);
                    messages.push(message);
                }
                Ok(None) => return messages,
                Err(_) => {
                    self.gone = true;
                    return messages;
                }
            }
        }
    }

    fn write(&mut self) {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.gone = true;
                    break;
                }
            }
        }
        self.gone |= self.output.len() > UNREAD;
    }
}
