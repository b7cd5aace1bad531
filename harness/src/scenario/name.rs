//! Values that a scenario writes by name, and which names there are.

use mem_event::message::VcpuState;
use mem_event::{
    AccessType, CpuEventKind, Errno, FlowKind, Layout, MonitorMode, NoConsumer, Reason, Rights, Ring, TrapKind,
};
use mem_event_server::chaos::{Kind as FaultKind, Refusable};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;

use crate::verdict::Kind;

/// A value that is written as its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name<T>(pub T);

/// A type whose values have names.
pub trait Named: Copy + 'static {
    /// What the type is called in the schema.
    const KIND: &'static str;
    /// All names with their values.
    const ALL: &'static [(&'static str, Self)];
}

/// The value with this name.
#[must_use]
pub fn named<T: Named>(name: &str) -> Option<T> {
    T::ALL.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
}

macro_rules! named {
    ($($kind:ident { $($name:literal => $value:expr,)* })*) => {
        $(impl Named for $kind {
            const KIND: &'static str = stringify!($kind);
            const ALL: &'static [(&'static str, $kind)] = &[$(($name, $value)),*];
        })*
    };
}

named! {
    AccessType {
        "n" => AccessType::N,
        "r" => AccessType::R,
        "w" => AccessType::W,
        "x" => AccessType::X,
        "rw" => AccessType::Rw,
        "rx" => AccessType::Rx,
        "wx" => AccessType::Wx,
        "rwx" => AccessType::Rwx,
        "rx2rw" => AccessType::Rx2rw,
        "n2rwx" => AccessType::N2rwx,
    }
    Rights {
        "r" => Rights::R,
        "w" => Rights::W,
        "x" => Rights::X,
        "rw" => Rights::RW,
        "rx" => Rights::from_bits(5),
        "wx" => Rights::from_bits(6),
        "rwx" => Rights::RWX,
    }
    Ring {
        "access" => Ring::Access,
        "paging" => Ring::Paging,
        "sharing" => Ring::Sharing,
    }
    Errno {
        "EPERM" => Errno::EPERM,
        "ENOENT" => Errno::ENOENT,
        "ESRCH" => Errno::ESRCH,
        "EAGAIN" => Errno::EAGAIN,
        "ENOMEM" => Errno::ENOMEM,
        "EFAULT" => Errno::EFAULT,
        "EBUSY" => Errno::EBUSY,
        "EEXIST" => Errno::EEXIST,
        "EXDEV" => Errno::EXDEV,
        "ENODEV" => Errno::ENODEV,
        "EINVAL" => Errno::EINVAL,
        "EMLINK" => Errno::EMLINK,
        "ERANGE" => Errno::ERANGE,
        "ENOSYS" => Errno::ENOSYS,
        "EOPNOTSUPP" => Errno::EOPNOTSUPP,
    }
    VcpuState {
        "answer" => VcpuState::Answer,
        "slot" => VcpuState::Slot,
        "consumer" => VcpuState::Consumer,
        "frame" => VcpuState::Frame,
        "checkpoint" => VcpuState::Checkpoint,
        "paused" => VcpuState::Paused,
    }
    Kind {
        "success" => Kind::Success,
        "skip" => Kind::Skip,
        "error" => Kind::Error,
        "failure" => Kind::Failure,
        "crash" => Kind::Crash,
    }
}

/// Tables of the crates below, which have the names.
macro_rules! rows {
    ($($kind:ident)*) => {
        $(impl Named for $kind {
            const KIND: &'static str = stringify!($kind);
            const ALL: &'static [(&'static str, $kind)] = &{
                let mut rows = [("", $kind::ALL[0]); $kind::ALL.len()];
                let mut at = 0;
                while at < rows.len() {
                    rows[at] = ($kind::ALL[at].name(), $kind::ALL[at]);
                    at += 1;
                }
                rows
            };
        })*
    };
}

rows! { Layout NoConsumer FlowKind CpuEventKind MonitorMode Refusable FaultKind TrapKind }

/// What a listener may be asked to tell apart: what comes on the access ring.
impl Named for Reason {
    const KIND: &'static str = "Reason";
    const ALL: &'static [(&'static str, Reason)] = &{
        let mut rows = [(Reason::Violation.name(), Reason::Violation); 1 + CpuEventKind::ALL.len()];
        let mut at = 1;
        while at < rows.len() {
            let kind = CpuEventKind::ALL[at - 1];
            rows[at] = (kind.name(), Reason::Cpu(kind));
            at += 1;
        }
        rows
    };
}

impl<T: Named + PartialEq> Name<T> {
    /// The name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        T::ALL.iter().find(|(_, value)| *value == self.0).map_or("", |(name, _)| name)
    }
}

impl<'de, T: Named> Deserialize<'de> for Name<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        named(&text).map(Name).ok_or_else(|| {
            let names: Vec<String> = T::ALL.iter().map(|(name, _)| format!("`{name}`")).collect();
            // In serde's own words, which the reader of errors knows.
            de::Error::custom(format!("unknown variant `{text}`, expected one of {}", names.join(", ")))
        })
    }
}

impl<T: Named> JsonSchema for Name<T> {
    fn schema_name() -> Cow<'static, str> {
        T::KIND.into()
    }

    // Two types that are called the same are not the same.
    fn schema_id() -> Cow<'static, str> {
        std::any::type_name::<T>().into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = T::ALL.iter().map(|(name, _)| *name).collect();
        json_schema!({ "type": "string", "enum": names })
    }
}
