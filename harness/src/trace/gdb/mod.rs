//! A trace for gdb: it stops at the events of vCPUs, forwards and back (`replay TRACE --gdb`).
//!
//! | file | what lives there |
//! |---|---|
//! | [`packet`] | gdb's packets |
//! | [`events`] | where gdb can stop, and what the trace holds there |
//! | [`session`] | what gdb asks, and what it is answered |
//!
//! The crate gdbstub has a target run until something stops it. Here nothing runs, and a stop is the next row of a list, so that less is left to do than to
//! tell gdbstub.

pub mod events;
pub mod packet;
pub mod session;

use self::events::Events;
use self::session::Session;
use super::{exit_code, open};
use crate::output::print;
use crate::refusal::Refusal;
use anyhow::Context;
use std::net::TcpListener;
use std::path::Path;

/// Waits for gdb at an address, and serves it until it goes.
///
/// # Errors
/// A file that is no trace, or one without an event; an address that cannot be listened at; the connection.
pub fn serve(trace: &Path, address: &str) -> anyhow::Result<u8> {
    let (events, end) = Events::of(open(trace)?);
    if events.list.is_empty() {
        let what = format!("{} has no event of a vCPU, and gdb nowhere to stop", trace.display());
        return Err(Refusal::usage(what, "record a run whose guest is watched, monitored or paged").into());
    }
    let listener = TcpListener::bind(address).map_err(|error| {
        Refusal::usage(format!("cannot listen at {address}: {error}"), "name another one, as in --gdb 127.0.0.1:1234")
    })?;
    let here = listener.local_addr().context("a socket without an address")?;
    print(&format!("{} events; in gdb: target remote {here}\n", events.list.len()))?;
    let (stream, _) = listener.accept().context("nobody could be let in")?;
    // Packets are small, and each is waited for.
    stream.set_nodelay(true).context("a connection that cannot be set up")?;
    Session::new(events).serve(stream).context("the connection to gdb ended")?;
    Ok(exit_code(&end))
}
