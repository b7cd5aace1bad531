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
    /// Of control registers the bits whose change alone is no event.
    ignored: BTreeMap<CpuEventKind, u64>,
    /// Single model-specific registers.
    msrs: BTreeMap<u32, Setting>,
}

impl Monitor {
    /// How events of a kind are reported, but for single registers.
    pub fn of(&self, kind: CpuEventKind) -> Setting {
        self.on.get(&kind).copied().unwrap_or_default()
    }

    /// How writes of a model-specific register are reported: as it is itself, else as all are.
    pub fn of_msr(&self, msr: u32) -> Setting {
        self.msrs.get(&msr).copied().unwrap_or_else(|| self.of(CpuEventKind::Msr))
    }

    /// The same of a single one alone.
    pub fn of_single_msr(&self, msr: u32) -> Setting {
        self.msrs.get(&msr).copied().unwrap_or_default()
    }

    /// Whether any single one is reported, and if so whether one of those stops its vCPU.
    pub fn single_msrs(&self) -> Option<MonitorMode> {
        let mut modes = self.msrs.values().map(|(mode, _)| *mode);
        let first = modes.next()?;
        Some(if modes.any(|mode| mode == MonitorMode::Sync) { MonitorMode::Sync } else { first })
    }

    pub fn set(&mut self, kind: CpuEventKind, setting: Setting) {
        put(&mut self.on, kind, setting);
        if kind == CpuEventKind::Msr && setting.0 == MonitorMode::Disabled {
            self.msrs.clear();
        }
    }

    pub fn set_msr(&mut self, msr: u32, setting: Setting) {
        put(&mut self.msrs, msr, setting);
    }

    pub fn ignore(&mut self, kind: CpuEventKind, bits: u64) {
        if bits == 0 {
            self.ignored.remove(&kind);
        } else {
            self.ignored.insert(kind, bits);
        }
    }

    /// Whether a register changes by a write, in bits that count.
    pub fn changes(&self, kind: CpuEventKind, new: u64, old: u64) -> bool {
        let ignored = self.ignored.get(&kind).copied().unwrap_or(0);
        (new ^ old) & !ignored != 0
    }
}

fn put<K: Ord>(map: &mut BTreeMap<K, Setting>, key: K, setting: Setting) {
    if setting.0 == MonitorMode::Disabled {
        map.remove(&key);
    } else {
        map.insert(key, setting);
    }
}
