//! An access listener with one treatment for all violations. The listener with a scenario's rules is `listener`.

use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use crate::scenario::settings::{ListenerSettings, Treatment};
use crate::toolstack::transcript;
use anyhow::bail;
use mem_event::message::Call;
use mem_event::{AccessType, Control, Cpu, CpuEventKind, Errno, Event, Gfn, MonitorMode, Rights, Ring, VcpuId};
use mem_event_client::Channel;
use std::collections::HashMap;

/// The listener.
#[derive(Debug)]
pub struct Watcher {
    channel: Channel,
    settings: ListenerSettings,
    /// `once`: the pages that each vCPU's step passes, with the rights that they had.
    stepping: HashMap<VcpuId, Vec<(Gfn, AccessType)>>,
    /// `rearm`: the page that is open, with the rights that it had.
    open: Option<(Gfn, AccessType)>,
}

impl Watcher {
    /// A listener on an access ring that is enabled.
    ///
    /// # Errors
    /// A [`Refusal`] for what this plugin cannot do; the plugin refuses to report single steps.
    pub fn new(mut channel: Channel, settings: &ListenerSettings) -> anyhow::Result<Watcher> {
        possible(settings.treatment)?;
        if settings.treatment == Treatment::Once {
            let (kind, mode) = (CpuEventKind::SingleStep, MonitorMode::Sync);
            match channel.client.control(Control::Monitor { kind, mode, on_change_only: false })? {
                // A predecessor that was lost has left it on.
                Ok(_) | Err((Errno::EEXIST, _)) => {}
                Err((errno, why)) => bail!("steps cannot be monitored: {errno}, {why}"),
            }
        }
        Ok(Watcher { channel, settings: settings.clone(), stepping: HashMap::new(), open: None })
    }

    /// Serves until the domain ends.
    ///
    /// # Errors
    /// The connection ended, or the plugin refuses something.
    pub fn serve(&mut self) -> anyhow::Result<()> {
        while self.channel.wait()? {
            while let Some(request) = self.channel.take() {
                if self.settings.verbose {
                    println!("{}", transcript::asked(Ring::Access, &request, &Symbols::default()));
                }
                match request.event {
                    Event::Violation { gfn, rights, .. } => self.violation(request.vcpu, gfn, rights)?,
                    Event::Cpu(Cpu::SingleStep { .. }) => self.stepped(request.vcpu)?,
                    _ => {}
                }
                self.channel.answer(&request.answer());
                self.channel.kick()?;
            }
        }
        Ok(())
    }

    fn violation(&mut self, vcpu: VcpuId, gfn: Gfn, rights: Rights) -> anyhow::Result<()> {
        match self.settings.treatment {
            // Refused at the start.
            Treatment::Log | Treatment::Deny | Treatment::Emulate => Ok(()),
            Treatment::Relax => self.channel.client.set_access(gfn, AccessType::Rwx),
            Treatment::Grant => self.channel.client.grant(gfn, rights).map(drop),
            Treatment::Rearm => {
                if let Some((before, access)) = self.open.take() {
                    self.channel.client.set_access(before, access)?;
                }
                self.open = Some((gfn, self.channel.client.access(gfn)?));
                self.channel.client.set_access(gfn, AccessType::Rwx)
            }
            Treatment::Once => {
                let access = self.had(gfn)?;
                self.stepping.entry(vcpu).or_default().push((gfn, access));
                self.channel.client.set_access(gfn, AccessType::Rwx)?;
                self.step(vcpu, true)
            }
        }
    }

    /// The instruction is done: its pages (it may touch several) get their rights back, but for those that another vCPU is
    /// stepping over.
    fn stepped(&mut self, vcpu: VcpuId) -> anyhow::Result<()> {
        for (gfn, access) in self.stepping.remove(&vcpu).unwrap_or_default() {
            if self.stepping.values().flatten().all(|(other, _)| *other != gfn) {
                self.channel.client.set_access(gfn, access)?;
            }
        }
        self.step(vcpu, false)
    }

    /// The rights that a page had before anybody was let pass.
    fn had(&mut self, gfn: Gfn) -> anyhow::Result<AccessType> {
        let open = self.stepping.values().flatten().find(|(other, _)| *other == gfn).copied();
        open.map_or_else(|| self.channel.client.access(gfn), |(_, access)| Ok(access))
    }

    fn step(&mut self, vcpu: VcpuId, on: bool) -> anyhow::Result<()> {
        self.channel.client.values(&Call::Control(Control::SingleStep { vcpu, on })).map(drop)
    }
}

/// Whether the plugin can do this at all.
fn possible(treatment: Treatment) -> Result<(), Refusal> {
    let what = match treatment {
        Treatment::Deny => "a fault cannot be injected instead of an access",
        Treatment::Emulate => "an access cannot be answered with other data",
        _ => return Ok(()),
    };
    let remedy = "this plugin does neither; take `once`, and write the page's content before the answer";
    Err(Refusal::machine(what, remedy))
}
