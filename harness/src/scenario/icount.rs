//! A machine whose time is counted in instructions, so that its guest does the same in each run.
//!
//! QEMU's `-icount` gives each instruction 2^N nanoseconds and lets time stand while the vCPU does: how long a consumer takes to answer
//! is nothing that the guest could see. What else would be another in each run: the clock of the mainboard, which then counts
//! from one day on, and what QEMU gives a kernel for its random numbers.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;

/// The largest number that QEMU takes.
const MOST: u8 = 10;

/// How much time an instruction takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icount {
    /// It takes 2^this nanoseconds.
    pub shift: u8,
}

impl Icount {
    /// QEMU's arguments for it.
    #[must_use]
    pub fn arguments(&self) -> [String; 6] {
        let icount = format!("shift={},sleep=off", self.shift);
        ["-icount", &icount, "-rtc", "base=2020-01-01,clock=vm", "-seed", "1"].map(str::to_owned)
    }
}

impl<'de> Deserialize<'de> for Icount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Icount, D::Error> {
        match u8::try_from(i64::deserialize(deserializer)?) {
            Ok(shift @ 0..=MOST) => Ok(Icount { shift }),
            _ => Err(D::Error::custom(format!("no time of an instruction; write 0 (1 ns) to {MOST} (1024 ns)"))),
        }
    }
}

impl JsonSchema for Icount {
    fn schema_name() -> Cow<'static, str> {
        "Icount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer",
            "minimum": 0,
            "maximum": MOST,
            "description": "An instruction takes 2 to this power nanoseconds.",
        })
    }
}
