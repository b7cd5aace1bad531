//! Which CPU events are reported, and how.

use crate::control::MonitorMode;
use crate::cpu_events::CpuEventKind;
use bincode::{Decode, Encode};
use std::collections::BTreeMap;

/// How events of a kind are reported, and whether only where something changes.
pub(crate) type Setting = (MonitorMode, bool);

/// Which events are wanted. What is off stands nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub(crate) struct Monitor {
    on: BTreeMap<CpuEventKind, Setting>,
}

impl Monitor {
    /// How events of a kind are reported.
    pub fn of(&self, kind: CpuEventKind) -> Setting {
        self.on.get(&kind).copied().unwrap_or_default()
    }

    pub fn set(&mut self, kind: CpuEventKind, setting: Setting) {
        if setting.0 == MonitorMode::Disabled {
            self.on.remove(&kind);
        } else {
            self.on.insert(kind, setting);
        }
    }
}
