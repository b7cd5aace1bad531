//! The access listener: sees each violation while the vCPU is stopped, does what the scenario says, answers.

use super::breaks::Heard;
use super::ending;
use super::looking::Looking;
use super::open_page::OpenPage;
use super::touches::Touches;
use crate::guest::symbols::Symbols;
use crate::scenario::hex::Hex;
use crate::scenario::{EmulateWith, Listening, Rule, StepInView, Then};
use crate::toolstack;
use anyhow::Context as _;
use mem_event::message::{Call, Space};
use mem_event::registers::Registers;
use mem_event::{AccessType, Control, Cpu, Event, Flags, Gfn, Gla, Layout, Request, Rights, Ring, Trap, ViewId};
use mem_event_client::Client;
use mem_event_client::channel::{Channel, RingSettings};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

/// Among the general registers.
const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;

/// A listener with its ring.
#[derive(Debug)]
pub struct Listener {
    channel: Channel,
    rules: Vec<Rule>,
    looking: Looking,
    touches: Option<Touches>,
    /// For a device's access to a page whose accesses are let through.
    open: OpenPage,
}

impl Listener {
    /// Enables the access ring.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn enable(
        socket: &Path,
        settings: RingSettings,
        wanted: &Listening,
        looking: Looking,
    ) -> anyhow::Result<Listener> {
        let channel = Channel::enable(socket, Ring::Access, settings)?;
        let touches = wanted.touches.as_ref().map(Touches::new);
        Ok(Listener { channel, rules: wanted.rules.clone(), looking, touches, open: OpenPage::default() })
    }

    /// Forgets the engine's signals.
    pub fn clear_signal(&mut self) {
        self.channel.clear_signal();
    }

    /// Its ring.
    pub fn channel(&mut self) -> &mut Channel {
        &mut self.channel
    }

    /// What it does besides its rules.
    pub fn looking(&mut self) -> (&mut Looking, &mut Client) {
        (&mut self.looking, &mut self.channel.client)
    }

    /// The guest is about to start, or runs: from now on it is found which pages it touches, if that is wanted.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn begin_touches(&mut self, is_running: bool) -> anyhow::Result<()> {
        let Some(touches) = &mut self.touches else { return Ok(()) };
        touches.begin(is_running, &mut self.channel.client)
    }

    /// A moment has passed.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn tick(&mut self) -> anyhow::Result<()> {
        let Some(touches) = &mut self.touches else { return Ok(()) };
        touches.tick(&mut self.channel.client)
    }

    /// Whether it has told as much as was wanted.
    #[must_use]
    pub fn has_enough(&self) -> bool {
        self.looking.has_enough()
    }

    /// The next request.
    pub fn take(&mut self) -> Option<Request> {
        self.channel.take()
    }

    /// Does what the rules say about an event and answers it; expectations that did not hold.
    ///
    /// # Errors
    /// The connection ended, or the plugin refuses what a rule wants.
    pub fn serve(&mut self, request: &Request, symbols: &Symbols) -> anyhow::Result<Vec<String>> {
        let is_touch = match &mut self.touches {
            Some(touches) => touches.hears(request, &mut self.channel)?,
            None => false,
        };
        let heard = if is_touch {
            Heard::Answer
        } else {
            let registers = self.channel.registers();
            self.looking.hears((request, registers.as_ref()), &mut self.channel.client, symbols)?
        };
        let then = match heard {
            Heard::ByRules => return self.follow_rules(request, symbols),
            Heard::Answer => Then::Answer,
            Heard::Emulate => Then::Emulate,
            Heard::Instead(code) => Then::EmulateWith(EmulateWith { code: Some(Hex(code)), ..EmulateWith::default() }),
        };
        self.answer(request, &then, Flags::NONE);
        self.channel.kick()?;
        Ok(Vec::new())
    }

    /// Does what the rules say about an event, and answers it.
    fn follow_rules(&mut self, request: &Request, symbols: &Symbols) -> anyhow::Result<Vec<String>> {
        let mut failures = Vec::new();
        let mut then = Then::Relax;
        let mut flags = Flags::NONE;
        for rule in &self.rules {
            if !rule.fits(request, symbols)? {
                continue;
            }
            for act in &rule.acts {
                let done = toolstack::carry_out(act, &mut self.channel.client, symbols)?;
                self.channel.client.note(&done.text)?;
                failures.extend(done.failure);
            }
            then = rule.then.clone();
            if rule.next_interrupt {
                flags = Flags::GET_NEXT_INTERRUPT;
            }
            break;
        }
        if let Event::Violation { gfn, rights, .. } = request.event {
            self.changes_rights(&then, (gfn, rights), request.flags.contains(Flags::FOREIGN))?;
        }
        if let Then::Return(value) = then {
            self.skip_function(request, value.0, flags)?;
        } else if let (Then::Cpuid(values), Event::Cpu(Cpu::Cpuid { length, .. }), true) =
            (&then, request.event, request.flags.contains(Flags::VCPU_PAUSED))
        {
            self.identify(request, values.map(|value| value.0), (length, flags))?;
        } else if then != Then::Silence {
            // In another view there is another instruction.
            let stays_in_view = !matches!(then, Then::View(_) | Then::StepInView(_));
            if self.channel.shape().1.layout == Layout::VmEvent7
                && stays_in_view
                && !matches!(then, Then::EmulateWith(_) | Then::Withhold)
                && let Some(trap) = own_trap(request)
            {
                // The guest's own, unless a rule has overwritten it. The older layouts need no word of it.
                self.channel.client.values(&Call::Control(trap))?;
            }
            match then {
                Then::View(view) => self.channel.answer(&request.answer().with(flags).switching_to(ViewId(view))),
                Then::StepInView(StepInView { view, back }) => {
                    let response = request.answer().with(flags).switching_to(ViewId(view)).stepping_into(ViewId(back));
                    self.channel.answer(&response);
                }
                _ => self.answer(request, &then, flags),
            }
            self.channel.kick()?;
        }
        Ok(failures)
    }

    /// What a violation has done to rights before its answer.
    fn changes_rights(&mut self, then: &Then, (gfn, rights): (Gfn, Rights), is_foreign: bool) -> anyhow::Result<()> {
        let (channel, looking) = (&mut self.channel, &self.looking);
        match then {
            Then::Relax => channel.set_access(gfn, looking.keep(gfn, AccessType::Rwx)),
            Then::Grant => channel.grant(gfn, rights).map(drop),
            Then::Set(access) => channel.set_access(gfn, looking.keep(gfn, access.0)),
            // A device does no instruction that could be let through.
            Then::Emulate | Then::EmulateWith(_) if is_foreign => self.open.open(channel, gfn),
            Then::Emulate | Then::EmulateWith(_) => self.open.close(channel),
            Then::Answer
            | Then::Deny
            | Then::Withhold
            | Then::Return(_)
            | Then::Cpuid(_)
            | Then::View(_)
            | Then::StepInView(_)
            | Then::Silence => Ok(()),
        }
    }

    /// The vCPU, which stands at a function's first instruction, goes on where the function would return to.
    fn skip_function(&mut self, request: &Request, value: u64, flags: Flags) -> anyhow::Result<()> {
        let mut registers = self.channel.registers().context("to skip a function wants the layout vm_event7")?;
        let stack = Gla(registers.general[RSP]);
        let space = Space { vcpu: request.vcpu, cr3: None };
        let address = self.channel.client.read_linear(space, stack, 8)?;
        registers.rip = u64::from_le_bytes(address.as_slice().try_into().context("eight bytes are no address")?);
        registers.general[RSP] += 8;
        registers.general[RAX] = value;
        self.goes_on_with(request, &registers, flags)
    }

    /// The vCPU goes on behind its `cpuid`, which has returned these.
    fn identify(&mut self, request: &Request, values: [u64; 4], (length, flags): (u8, Flags)) -> anyhow::Result<()> {
        let mut registers = self.channel.registers().context("to say what cpuid returns wants the layout vm_event7")?;
        for (register, value) in [RAX, RBX, RCX, RDX].into_iter().zip(values) {
            registers.general[register] = value & 0xffff_ffff;
        }
        registers.rip += u64::from(length);
        self.goes_on_with(request, &registers, flags)
    }

    fn goes_on_with(&mut self, request: &Request, registers: &Registers, flags: Flags) -> anyhow::Result<()> {
        self.channel.answer_with(&request.answer().with(flags.union(Flags::SET_REGISTERS)), registers);
        self.channel.kick()
    }

    fn answer(&mut self, request: &Request, then: &Then, also: Flags) {
        let (flags, data) = match then {
            Then::Emulate => EmulateWith::default().answer(),
            Then::EmulateWith(with) => with.answer(),
            Then::Deny => (Flags::DENY, Vec::new()),
            _ => (Flags::NONE, Vec::new()),
        };
        self.channel.answer_with_data(&request.answer().with(flags.union(also)), &data);
    }

    /// Ends the ring; what is still on it is answered.
    ///
    /// # Errors
    /// The connection ended.
    pub fn finish(mut self) -> anyhow::Result<()> {
        self.looking.leave(&mut self.channel.client)?;
        if let Some(touches) = &mut self.touches {
            touches.end(&mut self.channel.client)?;
        }
        ending::in_order(&mut self, Listener::channel, |listener| match listener.take() {
            Some(request) => {
                listener.channel.answer(&request.answer());
                listener.channel.kick().map(|()| true)
            }
            None => Ok(false),
        })?;
        // What was handed over last was taken before that call, and may have to be done on the connection.
        self.channel.settle()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// What injects the trap that an event tells of, whose vCPU waits.
fn own_trap(request: &Request) -> Option<Control> {
    match request.event {
        _ if !request.flags.contains(Flags::VCPU_PAUSED) => None,
        Event::Cpu(Cpu::Int3 { .. }) => Some(Trap::breakpoint(request.vcpu)),
        Event::Cpu(Cpu::Debug { length, .. }) => Some(Trap::debug(request.vcpu, length)),
        _ => None,
    }
}
