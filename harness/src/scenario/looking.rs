//! What a listener looks at besides events: where the guest's program breaks, and who made an event.

use crate::refusal::Refusal;
use clap::ValueEnum;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::str::FromStr;

/// General registers in the order of their encoding.
pub const REGISTERS: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// By what a guest's program breaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BreakBy {
    /// The instruction there is replaced by INT3, which the guest can read, and done by the answer. Where a ring is of another layout than `vm_event7`
    /// it is stepped over, and another vCPU can run past it meanwhile.
    #[default]
    Int3,
    /// Its frame may not be executed: nothing is written, and each instruction in that frame is an event.
    Frame,
}

/// A register that points to a text: `rsi`, or `rsi=/etc/passwd` for breaks alone at which the text holds that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// The register, by its number.
    pub register: usize,
    /// What the text must hold.
    pub holds: Option<String>,
}

impl FromStr for Pointer {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Pointer, Refusal> {
        let (name, holds) = text.split_once('=').map_or((text, None), |(name, holds)| (name, Some(holds.to_owned())));
        let register = REGISTERS.iter().position(|known| *known == name).ok_or_else(|| {
            Refusal::usage(format!("{name:?} is no register"), format!("write one of {}", REGISTERS.join(", ")))
        })?;
        Ok(Pointer { register, holds })
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pointer, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Pointer {
    fn schema_name() -> Cow<'static, str> {
        "Pointer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": format!("^({})(=.*)?$", REGISTERS.join("|")),
            "description": "A register that points to a text (`rsi`); with `=TEXT` only breaks count at which the text holds that.",
        })
    }
}
