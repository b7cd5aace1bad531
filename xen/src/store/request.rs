//! What is asked, and the reply.

use super::path;
use super::transaction::{Change, Transaction};
use super::tree::{Node, Tree};
use super::watch::{Client, Event, Watch};
use super::wire::{HEADER, Kind, LONGEST, Message, Refused};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A domain that `mem-event xen` brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Its number.
    pub number: u16,
    /// Its plugin's socket.
    pub socket: PathBuf,
    /// Its name.
    pub name: String,
}

/// The store.
#[derive(Debug, Default)]
pub struct Store {
    tree: Tree,
    watches: Vec<Watch>,
    transactions: BTreeMap<(Client, u32), Transaction>,
    last: u32,
    /// The domains that are there.
    domains: BTreeSet<u16>,
    /// Who is to be told what.
    out: Vec<(Client, Message)>,
    /// Domains that somebody brought along, and who waits for word of that.
    newcomers: Vec<(Client, Message, Newcomer)>,
}

/// The longest token.
const TOKEN: usize = 1000;

const DONE: &[u8] = b"OK\0";

impl Store {
    /// One with domain 0 alone.
    #[must_use]
    pub fn new() -> Store {
        let mut store = Store::default();
        store.domains.insert(0);
        for (path, value) in [("/tool/xenstored", ""), ("/vm", ""), ("domid", "0"), ("name", "Domain-0")] {
            let path = if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", path::HOME) };
            store.tree.write(&path, value.as_bytes());
        }
        store
    }

    /// What is to be said now.
    pub fn take(&mut self) -> Vec<(Client, Message)> {
        std::mem::take(&mut self.out)
    }

    /// Domains that were brought along, to be let in by [`Store::introduce`] and answered by [`Store::answer`].
    pub fn take_newcomers(&mut self) -> Vec<(Client, Message, Newcomer)> {
        std::mem::take(&mut self.newcomers)
    }

    /// A client is gone.
    pub fn part(&mut self, client: Client) {
        self.watches.retain(|watch| watch.client != client);
        self.transactions.retain(|(owner, _), _| *owner != client);
    }

    /// A domain is there from now on, with so much memory in KiB.
    pub fn introduce(&mut self, newcomer: &Newcomer, memory: u64) {
        let Newcomer { number, name, .. } = newcomer;
        let uuid = format!("00000000-0000-0000-0000-{number:012x}");
        let home = format!("/local/domain/{number}");
        let nodes = [
            (format!("{home}/domid"), number.to_string()),
            (format!("{home}/name"), name.clone()),
            (format!("{home}/vm"), format!("/vm/{uuid}")),
            (format!("{home}/memory/static-max"), memory.to_string()),
            (format!("{home}/memory/target"), memory.to_string()),
            (format!("/vm/{uuid}/uuid"), uuid.clone()),
            (format!("/vm/{uuid}/name"), name.clone()),
        ];
        self.domains.insert(*number);
        for (path, value) in nodes {
            let events = Change::Write(path, value.into_bytes()).make(&mut self.tree);
            self.fire(&events);
        }
        self.fire(&[Event { path: "@introduceDomain".to_owned(), exact: false }]);
    }

    /// A domain is gone. What stands in the tree is the toolstack's to take out, as in Xen.
    pub fn release(&mut self, number: u16) {
        if self.domains.remove(&number) {
            self.fire(&[Event { path: "@releaseDomain".to_owned(), exact: false }]);
        }
    }

    fn fire(&mut self, events: &[Event]) {
        for event in events {
            let seen = self.watches.iter().filter(|watch| watch.sees(event));
            self.out.extend(seen.map(|watch| (watch.client, watch.message(event))));
        }
    }

    /// Carries a request out; what is to be said for it comes from [`Store::take`].
    pub fn request(&mut self, client: Client, message: &Message) {
        // The reply comes before the events that follow from the request.
        let at = self.out.len();
        let result = self.carry_out(client, message);
        if let Some(result) = result.transpose() {
            let reply = reply(message, result);
            self.out.insert(at, (client, reply));
        }
    }

    /// Answers what was asked before.
    pub fn answer(&mut self, client: Client, message: &Message, result: Result<(), Refused>) {
        self.out.push((client, reply(message, result.map(|()| DONE.to_vec()))));
    }

    /// The body of the reply; `None` where it comes later.
    fn carry_out(&mut self, client: Client, message: &Message) -> Result<Option<Vec<u8>>, Refused> {
        let words = Words(&message.body);
        let place = (client, message.transaction);
        if message.transaction != 0 && !self.transactions.contains_key(&place) {
            return Err(Refused("ENOENT"));
        }
        let done = match message.kind {
            Kind::Directory => self.directory(place, &path::node(words.only()?)?),
            Kind::DirectoryPart => self.directory_part(place, &path::node(words.get(0)?)?, words.get(1)?),
            Kind::Read => self.node(place, &path::node(words.only()?)?).map(|node| node.value.clone()),
            Kind::GetPerms => self.node(place, &path::node(words.only()?)?).map(|node| node.rights.clone()),
            Kind::Write => self.change(place, Change::Write(path::node(words.get(0)?)?, words.rest()?.to_vec())),
            Kind::Mkdir => self.change(place, Change::Make(path::node(words.only()?)?)),
            Kind::Rm => self.remove(place, path::node(words.only()?)?),
            Kind::SetPerms => {
                let path = path::node(words.get(0)?)?;
                self.node(place, &path)?;
                self.change(place, Change::Rights(path, words.rest()?.to_vec()))
            }
            Kind::Watch => self.watch(client, words.get(0)?, words.get(1)?),
            Kind::Unwatch => self.unwatch(client, words.get(0)?, words.get(1)?),
            Kind::ResetWatches => {
                self.watches.retain(|watch| watch.client != client);
                Ok(DONE.to_vec())
            }
            Kind::TransactionStart if message.transaction != 0 => Err(Refused("EBUSY")),
            Kind::TransactionStart => {
                self.last = self.last.wrapping_add(1).max(1);
                self.transactions.insert((client, self.last), Transaction::begin(&self.tree));
                Ok(format!("{}\0", self.last).into_bytes())
            }
            Kind::TransactionEnd => self.end(place, words.only()?),
            Kind::GetDomainPath => words.number(0).map(|number| format!("/local/domain/{number}\0").into_bytes()),
            Kind::IsDomainIntroduced => {
                words.number(0).map(|number| if self.domains.contains(&number) { b"T\0" } else { b"F\0" }.to_vec())
            }
            Kind::Introduce if words.get(1).is_ok_and(|word| word.starts_with('/')) => {
                let (socket, name) = (words.get(1)?.into(), words.get(2)?.to_owned());
                self.newcomers.push((client, message.clone(), Newcomer { number: words.number(0)?, socket, name }));
                return Ok(None);
            }
            // A domain is there as long as its QEMU is, whatever a tool says of it.
            Kind::Introduce | Kind::Release | Kind::Resume => {
                let known = self.domains.contains(&words.number(0)?);
                if known { Ok(DONE.to_vec()) } else { Err(Refused("ENOENT")) }
            }
            _ => Err(Refused("ENOSYS")),
        };
        done.map(Some)
    }

    fn tree(&mut self, place: (Client, u32), looked_at: &str) -> &Tree {
        match self.transactions.get_mut(&place) {
            Some(transaction) => {
                transaction.touched.insert(looked_at.to_owned());
                &transaction.tree
            }
            None => &self.tree,
        }
    }

    fn node(&mut self, place: (Client, u32), path: &str) -> Result<&Node, Refused> {
        self.tree(place, path).get(path).ok_or(Refused("ENOENT"))
    }

    fn names(&mut self, place: (Client, u32), path: &str) -> Result<Vec<u8>, Refused> {
        self.node(place, path)?;
        let names = self.tree(place, path).children(path).flat_map(|name| name.bytes().chain([0]));
        Ok(names.collect())
    }

    fn directory(&mut self, place: (Client, u32), path: &str) -> Result<Vec<u8>, Refused> {
        let names = self.names(place, path)?;
        // Who asks knows then that it has to ask for parts.
        if names.len() > LONGEST { Err(Refused("E2BIG")) } else { Ok(names) }
    }

    fn directory_part(&mut self, place: (Client, u32), path: &str, from: &str) -> Result<Vec<u8>, Refused> {
        let generation = self.node(place, path)?.generation;
        let names = self.names(place, path)?;
        let from: usize = from.parse().map_err(|_| Refused("EINVAL"))?;
        let names = names.get(from..).ok_or(Refused("EINVAL"))?;
        let mut part = format!("{generation}\0").into_bytes();
        let room = LONGEST - HEADER - part.len();
        if names.len() < room {
            part.extend(names);
            part.push(0);
        } else {
            let end = names[..room].iter().rposition(|byte| *byte == 0).map_or(0, |end| end + 1);
            part.extend(&names[..end]);
        }
        Ok(part)
    }

    fn change(&mut self, place: (Client, u32), change: Change) -> Result<Vec<u8>, Refused> {
        match self.transactions.get_mut(&place) {
            Some(transaction) => transaction.change(change),
            None => {
                let events = change.make(&mut self.tree);
                self.fire(&events);
            }
        }
        Ok(DONE.to_vec())
    }

    fn remove(&mut self, place: (Client, u32), path: String) -> Result<Vec<u8>, Refused> {
        let above = path::parent(&path).ok_or(Refused("EINVAL"))?.to_owned();
        // What is not there can be taken out, but not from below nothing.
        self.node(place, &above)?;
        self.change(place, Change::Remove(path))
    }

    fn watch(&mut self, client: Client, said: &str, token: &str) -> Result<Vec<u8>, Refused> {
        // What is heard must fit into a message.
        if token.len() > TOKEN {
            return Err(Refused("EINVAL"));
        }
        let watch = Watch { client, path: path::watchable(said)?, said: said.to_owned(), token: token.to_owned() };
        if self.watches.contains(&watch) {
            return Err(Refused("EEXIST"));
        }
        // It is heard of at once, so that who begins to watch looks.
        let event = Event { path: watch.path.clone(), exact: false };
        self.out.push((client, watch.message(&event)));
        self.watches.push(watch);
        Ok(DONE.to_vec())
    }

    fn unwatch(&mut self, client: Client, said: &str, token: &str) -> Result<Vec<u8>, Refused> {
        let path = path::watchable(said)?;
        let is_it = |watch: &Watch| watch.client == client && watch.path == path && watch.token == token;
        let at = self.watches.iter().position(is_it).ok_or(Refused("ENOENT"))?;
        self.watches.remove(at);
        Ok(DONE.to_vec())
    }

    fn end(&mut self, place: (Client, u32), word: &str) -> Result<Vec<u8>, Refused> {
        let counts = match word {
            "T" => true,
            "F" => false,
            _ => return Err(Refused("EINVAL")),
        };
        let transaction = self.transactions.remove(&place).ok_or(Refused("ENOENT"))?;
        if counts {
            let events = transaction.end(&mut self.tree).ok_or(Refused("EAGAIN"))?;
            self.fire(&events);
        }
        Ok(DONE.to_vec())
    }
}

fn reply(asked: &Message, result: Result<Vec<u8>, Refused>) -> Message {
    let (kind, body) = match result {
        Ok(body) if body.len() <= LONGEST => (asked.kind, body),
        Ok(_) => (Kind::Error, b"E2BIG\0".to_vec()),
        Err(Refused(name)) => (Kind::Error, format!("{name}\0").into_bytes()),
    };
    Message { kind, request: asked.request, transaction: asked.transaction, body }
}

/// A body's words, each of which ends with a zero; behind the first may be any bytes.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn get(&self, index: usize) -> Result<&'a str, Refused> {
        let parts: Vec<&[u8]> = self.0.split(|byte| *byte == 0).collect();
        // Behind the last zero there is no word.
        let word = parts.get(index).filter(|_| index + 1 < parts.len()).ok_or(Refused("EINVAL"))?;
        std::str::from_utf8(word).map_err(|_| Refused("EINVAL"))
    }

    /// The only word.
    fn only(&self) -> Result<&'a str, Refused> {
        let word = self.get(0)?;
        if self.0.len() == word.len() + 1 { Ok(word) } else { Err(Refused("EINVAL")) }
    }

    /// What stands behind the first word.
    fn rest(&self) -> Result<&'a [u8], Refused> {
        let word = self.get(0)?;
        self.0.get(word.len() + 1..).ok_or(Refused("EINVAL"))
    }

    fn number(&self, index: usize) -> Result<u16, Refused> {
        self.get(index)?.parse().map_err(|_| Refused("EINVAL"))
    }
}
