//! Which CPU events are reported from now on.

use super::done::{Done, judge};
use anyhow::Context as _;
use mem_event::{Control, CpuEventKind, Errno, MonitorMode};
use mem_event_client::socket::Client;

/// What is switched.
#[derive(Clone, Copy, Debug)]
pub struct Monitored {
    /// The kind.
    pub kind: CpuEventKind,
    /// How.
    pub mode: MonitorMode,
    /// Only where the new value differs from the old.
    pub on_change_only: bool,
    /// The bits of a control register whose change alone is no event.
    pub ignored: Option<u64>,
    /// One model-specific register alone.
    pub msr: Option<u32>,
}

/// What is switched, in words.
pub fn switched(kind: CpuEventKind, msr: Option<u32>, mode: MonitorMode, on_change_only: bool) -> String {
    let of = msr.map_or_else(String::new, |msr| format!(" {msr:#x}"));
    format!("monitor {kind}{of} {mode}{}", if on_change_only { " changes only" } else { "" })
}

impl Monitored {
    /// Switches it. What is so already is as wanted, and the sequence says so.
    ///
    /// # Errors
    /// The connection ended.
    pub fn switch(self, client: &mut Client) -> anyhow::Result<Done> {
        let Monitored { kind, mode, on_change_only, ignored, msr } = self;
        let ignoring = ignored.map_or_else(String::new, |bits| format!(" ignoring {bits:#x}"));
        let text = switched(kind, msr, mode, on_change_only) + &ignoring;
        if let Some(ignored) = ignored {
            let masked = client.control(Control::MonitorMask { kind, ignored }).with_context(|| text.clone())?;
            if masked.is_err() {
                return Ok(judge(masked.map(drop), None, &text));
            }
        }
        let control = match msr {
            Some(msr) if kind == CpuEventKind::Msr => Control::MonitorMsr { msr, mode, on_change_only },
            Some(_) => {
                let failure = Some(format!("{text}: {kind} is no kind of model-specific registers"));
                return Ok(Done { text, failure });
            }
            None => Control::Monitor { kind, mode, on_change_only },
        };
        match client.control(control).with_context(|| text.clone())? {
            Err((Errno::EEXIST, _)) => Ok(Done { text: format!("{text}, as it was"), failure: None }),
            answer => Ok(judge(answer.map(drop), None, &text)),
        }
    }
}
