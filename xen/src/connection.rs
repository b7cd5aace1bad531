//! A domain behind a plugin's control socket.

use crate::domain::{Domain, Ram};
use crate::errno::Errno;
use mem_event::message::{Call, Info, Reply, RingState, VcpuReport};
use mem_event::p2m::P2mType;
use mem_event::registers::Context;
use mem_event::{Control, Gfn, Layout, Ring, VcpuId};
use mem_event_client::Client;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// One connection, made at the first call. Its end is the domain's.
#[derive(Debug)]
pub struct Connection {
    socket: PathBuf,
    state: State,
    /// The memory file, and that of frames beyond RAM, once something was mapped from it.
    memory: [Option<OwnedFd>; 2],
}

#[derive(Debug)]
enum State {
    /// Nothing was asked yet.
    Unused,
    Open(Box<Client>),
    /// Nobody listens, or the domain has ended; why.
    Ended(String),
}

impl Connection {
    /// To the plugin that listens here.
    #[must_use]
    pub fn new(socket: PathBuf) -> Connection {
        Connection { socket, state: State::Unused, memory: [None, None] }
    }

    /// Why there is no domain, where there is none.
    #[must_use]
    pub fn why_ended(&self) -> Option<&str> {
        match &self.state {
            State::Ended(why) => Some(why),
            _ => None,
        }
    }

    fn ask<T>(&mut self, ask: impl FnOnce(&mut Client) -> anyhow::Result<T>) -> Result<T, Errno> {
        if matches!(self.state, State::Unused) {
            self.state = match Client::connect(&self.socket) {
                Ok(client) => State::Open(Box::new(client)),
                Err(why) => State::Ended(format!("{why:#}")),
            };
        }
        let State::Open(client) = &mut self.state else { return Err(Errno::ESRCH) };
        ask(client).map_err(|why| {
            self.state = State::Ended(format!("{why:#}"));
            Errno::ESRCH
        })
    }

    /// A call that is done or refused.
    fn call(&mut self, call: &Call) -> Result<(), Errno> {
        match self.ask(|client| client.call(call))? {
            Reply::Refused(errno, _) => Err(errno.into()),
            _ => Ok(()),
        }
    }
}

impl Domain for Connection {
    fn info(&mut self) -> Result<Info, Errno> {
        self.ask(Client::info)
    }

    fn ram(&mut self) -> Result<Ram, Errno> {
        let types = self.ask(Client::types)?;
        Ok(Ram::new(types.iter().map(|(kind, _)| *kind != P2mType::MmioDm)))
    }

    fn control(&mut self, control: Control) -> Result<u64, Errno> {
        self.ask(|client| client.control(control))?.map_err(|(errno, _)| errno.into())
    }

    fn load(&mut self, gfn: Gfn, content: &[u8]) -> Result<(), Errno> {
        self.call(&Call::Load { gfn, content: content.into() })
    }

    fn map(&mut self, gfn: Gfn, write: bool) -> Result<(BorrowedFd<'_>, u64), Errno> {
        let (offset, beyond) = self.ask(|client| client.map(gfn, write))?.map_err(|(errno, _)| errno)?;
        let place = usize::from(beyond);
        if self.memory[place].is_none() {
            match self.ask(|client| client.memory(beyond))? {
                Ok(memory) => self.memory[place] = Some(memory),
                Err((errno, _)) => {
                    self.control(Control::Unpin { gfn })?;
                    return Err(errno.into());
                }
            }
        }
        let memory = self.memory[place].as_ref().ok_or(Errno::ENOMEM)?;
        Ok((memory.as_fd(), offset))
    }

    fn enable(&mut self, ring: Ring) -> Result<[OwnedFd; 3], Errno> {
        let enable = Control::Enable { ring, layout: Layout::VmEvent7, slots: 0 };
        self.ask(|client| client.try_enable(enable))?.map_err(|(errno, _)| errno.into())
    }

    fn pause(&mut self) -> Result<(), Errno> {
        self.call(&Call::Pause)
    }

    fn unpause(&mut self) -> Result<(), Errno> {
        self.call(&Call::Unpause)
    }

    fn context(&mut self, vcpu: VcpuId) -> Result<Context, Errno> {
        self.ask(|client| client.registers(vcpu))?.map_err(|(errno, _)| errno.into())
    }

    fn set_context(&mut self, vcpu: VcpuId, context: &Context) -> Result<(), (Errno, String)> {
        let call = Call::SetRegisters { vcpu, context: context.encode().into() };
        match self.ask(|client| client.call(&call)).map_err(|errno| (errno, String::new()))? {
            Reply::Refused(errno, why) => Err((errno.into(), why)),
            _ => Ok(()),
        }
    }

    fn vcpus(&mut self) -> Result<Vec<VcpuReport>, Errno> {
        self.ask(Client::vcpus)
    }

    fn has_ring(&mut self, ring: Ring) -> Result<bool, Errno> {
        let rings = self.ask(Client::rings)?;
        Ok(rings.iter().any(|report| report.ring == ring && report.state != RingState::Absent))
    }
}
