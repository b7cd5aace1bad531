//! An access listener with one treatment for all violations. The listener with a scenario's rules is `listener`.

use super::open_page::OpenPage;
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use crate::scenario::EmulateWith;
use crate::scenario::settings::{ListenerSettings, Treatment};
use crate::toolstack::transcript;
use mem_event::{AccessType, Event, Flags, Gfn, Layout, Request, Rights, Ring};
use mem_event_client::Channel;

/// The listener.
#[derive(Debug)]
pub struct Watcher {
    channel: Channel,
    settings: ListenerSettings,
    /// `rearm`, and a device's access where instructions are let through.
    open: OpenPage,
}

impl Watcher {
    /// A listener on an access ring that is enabled.
    ///
    /// # Errors
    /// A [`Refusal`] for what cannot be done.
    pub fn new(channel: Channel, settings: &ListenerSettings) -> Result<Watcher, Refusal> {
        possible(settings.treatment, channel.shape().1.layout)?;
        Ok(Watcher { channel, settings: settings.clone(), open: OpenPage::default() })
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
                if let Event::Violation { gfn, rights, .. } = request.event {
                    self.violation(gfn, rights, request.flags.contains(Flags::FOREIGN))?;
                }
                self.answer(&request);
                self.channel.kick()?;
            }
        }
        Ok(())
    }

    fn violation(&mut self, gfn: Gfn, rights: Rights, is_foreign: bool) -> anyhow::Result<()> {
        let channel = &mut self.channel;
        match self.settings.treatment {
            // A device does no instruction that could be let through.
            Treatment::Once | Treatment::Emulate if is_foreign => self.open.open(channel, gfn),
            Treatment::Once | Treatment::Emulate => self.open.close(channel),
            // The last is refused at the start.
            Treatment::Log | Treatment::Deny => Ok(()),
            Treatment::Relax => channel.set_access(gfn, AccessType::Rwx),
            Treatment::Grant => channel.grant(gfn, rights).map(drop),
            Treatment::Rearm => self.open.open(channel, gfn),
        }
    }

    fn answer(&mut self, request: &Request) {
        let is_violation = matches!(request.event, Event::Violation { .. });
        let (flags, data) = match self.settings.treatment {
            Treatment::Once if is_violation => EmulateWith::default().answer(),
            Treatment::Emulate if is_violation => {
                EmulateWith { read: Some(self.settings.data.clone()), ..EmulateWith::default() }.answer()
            }
            _ => (Flags::NONE, Vec::new()),
        };
        self.channel.answer_with_data(&request.answer().with(flags), &data);
    }
}

/// Whether this can be done at all.
fn possible(treatment: Treatment, layout: Layout) -> Result<(), Refusal> {
    match treatment {
        Treatment::Deny => Err(Refusal::machine(
            "an access cannot be answered with a fault",
            "take `once` or `log`; a fault is injected by the toolstack",
        )),
        Treatment::Emulate if layout != Layout::VmEvent7 => Err(Refusal::machine(
            "an answer of this layout has no room for other data",
            "enable the ring as `access:vm_event7`",
        )),
        _ => Ok(()),
    }
}
