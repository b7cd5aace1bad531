//! `xenstore`: the store of the domains that tools of Xen's are started with. It outlives the tools, and ends with the last of its
//! domains and clients.

use super::arguments::Xenstore;
use super::xen::place;
use crate::refusal::Refusal;
use anyhow::Context;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use xen::environment::Place;
use xen::store::request::Newcomer;
use xen::store::server::{Server, hold};
use xen::store::wire::{HEADER, Kind, Message};

/// `xenstore`: joins the store at a path, or starts one.
///
/// # Errors
/// As a [`Refusal`], or what the kernel refuses.
pub fn xenstore(arguments: &Xenstore) -> anyhow::Result<u8> {
    let places = arguments.domains.iter().map(|text| place(text)).collect::<Result<Vec<_>, _>>()?;
    let newcomers: Vec<Newcomer> = places.into_iter().map(newcomer).collect();
    let path = std::path::absolute(&arguments.socket)?;
    if arguments.listening {
        let listener: OwnedFd = std::io::stdin().as_fd().try_clone_to_owned()?;
        Server::new(listener, path, &newcomers)?.serve()?;
        return Ok(0);
    }
    let _held = hold(&path).with_context(|| format!("no store can be at {}", path.display()))?;
    if let Ok(socket) = UnixStream::connect(&path) {
        newcomers.iter().try_for_each(|newcomer| bring(&socket, newcomer))?;
        return Ok(0);
    }
    // What is left of one that was killed.
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error)?,
        _ => {}
    }
    let listener = UnixListener::bind(&path).with_context(|| format!("no store can be at {}", path.display()))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("xenstore").arg("--listening").arg(&path);
    for domain in &arguments.domains {
        command.arg("--domain").arg(domain);
    }
    // What ends the tool at its terminal is not for the store; and nobody waits for its words.
    command.process_group(0).stdin(Stdio::from(OwnedFd::from(listener))).stdout(Stdio::null()).stderr(Stdio::null());
    command.current_dir("/").spawn()?;
    Ok(0)
}

fn newcomer(Place { number, socket, name }: Place) -> Newcomer {
    Newcomer { number, socket, name: name.unwrap_or_else(|| format!("guest-{number}")) }
}

/// Brings a domain along to a store that is there.
fn bring(mut socket: &UnixStream, newcomer: &Newcomer) -> anyhow::Result<()> {
    let Newcomer { number, socket: place, name } = newcomer;
    let body = format!("{number}\0{}\0{name}\0", place.display()).into_bytes();
    socket.write_all(&Message { kind: Kind::Introduce, request: 0, transaction: 0, body }.bytes())?;
    let mut bytes = vec![0; HEADER];
    socket.read_exact(&mut bytes)?;
    let length = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]) as usize;
    bytes.resize(HEADER + length.min(64), 0);
    socket.read_exact(&mut bytes[HEADER..])?;
    match Message::first(&bytes) {
        Ok(Some((reply, _))) if reply.kind == Kind::Introduce => Ok(()),
        // Its tool says why, when it asks something of it.
        Ok(Some((reply, _))) if reply.body == b"ENOENT\0" => Ok(()),
        Ok(Some(_)) => Err(Refusal::usage(
            format!("domain {number} of this store is another"),
            format!("{} is not the socket that it has; give it another number", Path::new(place).display()),
        )
        .into()),
        _ => anyhow::bail!("what listens there is no store"),
    }
}
