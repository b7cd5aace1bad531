//! What a scenario writes as text: places in the guest's memory, sizes, times, numbers.

use super::amount;
use super::range::{self, Frames};
use crate::guest::linear;
use crate::guest::symbols::Symbols;
use crate::refusal::Refusal;
use mem_event::{AccessType, Gpa};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// Frames or an address of the guest as people write them (see [`range`]); looked up when the guest is known.
#[derive(Clone, Debug)]
pub struct Place {
    /// As it was written.
    pub text: String,
    /// Where it stands in its file.
    pub span: Option<Range<usize>>,
}

/// Two places are the same if they are written the same.
impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        self.text == other.text
    }
}

impl Eq for Place {}

impl From<&str> for Place {
    fn from(text: &str) -> Place {
        Place { text: text.into(), span: None }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Place {
    /// Whether it is a linear address, which is known only when the guest runs.
    #[must_use]
    pub fn is_linear(&self) -> bool {
        linear::is_one(&self.text)
    }

    /// Whether it is all of the guest's memory, which is known only when the guest is there.
    #[must_use]
    pub fn is_ram(&self) -> bool {
        self.text == range::RAM
    }

    /// Checks what can be known of it before the guest runs.
    ///
    /// # Errors
    /// It is no range, or its symbol is not in the guest.
    pub fn check(&self, symbols: &Symbols) -> Result<(), Refusal> {
        if self.is_linear() { symbols.linear().check(&self.text) } else { self.frames(symbols).map(drop) }
    }

    /// The frames.
    ///
    /// # Errors
    /// It is no range, or its symbol is not in the guest.
    pub fn frames(&self, symbols: &Symbols) -> Result<Frames, Refusal> {
        Frames::parse(&self.text, symbols)
    }

    /// The address.
    ///
    /// # Errors
    /// It is no address, or its symbol is not in the guest.
    pub fn address(&self, symbols: &Symbols) -> Result<Gpa, Refusal> {
        range::address(&self.text, symbols)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Place, D::Error> {
        let spanned = toml::Spanned::<String>::deserialize(deserializer)?;
        Ok(Place { span: Some(spanned.span()), text: spanned.into_inner() })
    }
}

impl JsonSchema for Place {
    fn schema_name() -> Cow<'static, str> {
        "Place".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "description": "A symbol of the guest (NAME: all frames that it lies in; NAME+0x1000), frames (0x100..0x110, the end not included), guest-physical addresses (gpa:0x1000-0x1fff), linear ones (kernel:NAME, gla:0x1000-0x2fff), or, where rights are set, `ram`.",
        })
    }
}

/// Where in the guest's program a step is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// At the checkpoint with this number.
    Number(u64),
    /// Before the instruction here.
    Place(Place),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Number(number) => write!(f, "checkpoint {number}"),
            At::Place(place) => write!(f, "place {place}"),
        }
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<At, D::Error> {
        let spanned = toml::Spanned::<Written>::deserialize(deserializer)?;
        let span = Some(spanned.span());
        Ok(match spanned.into_inner() {
            Written::Number(number) => At::Number(number),
            Written::Text(text) => At::Place(Place { text, span }),
        })
    }
}

/// A step's place as it stands in the file.
enum Written {
    Number(u64),
    Text(String),
}

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Written, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a checkpoint's number, or a symbol or address of the guest's program as text")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Written, E> {
                u64::try_from(value)
                    .map(Written::Number)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(value), &self))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Written, E> {
                Ok(Written::Number(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Written, E> {
                Ok(Written::Text(text.into()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for At {
    fn schema_name() -> Cow<'static, str> {
        "At".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A checkpoint's number; or a symbol (main, main+0x10) or guest-physical address (gpa:0x100040) of the guest's program.",
            "oneOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "minLength": 1 },
            ],
        })
    }
}

/// Bytes, a multiple of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl Size {
    /// What a guest gets that does not ask: 64 MiB.
    #[must_use]
    pub fn small() -> Size {
        Size(64 << 20)
    }
}

/// As a scenario writes it: settings are handed to consumers in processes of their own.
impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// How long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Duration);

impl Time {
    /// The deadline of a domain that is left when somebody says so.
    pub const FOREVER: Time = Time(Duration::from_secs(86_400 * 365));
}

/// Text that one of the readers of [`amount`] understands.
macro_rules! read_by {
    ($kind:ident, $reader:path, $pattern:literal, $about:literal) => {
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$kind, D::Error> {
                $reader(&String::deserialize(deserializer)?).map($kind).map_err(D::Error::custom)
            }
        }

        impl JsonSchema for $kind {
            fn schema_name() -> Cow<'static, str> {
                stringify!($kind).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $about })
            }
        }
    };
}

/// Accesses that stop, as the rights that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop(pub AccessType);

read_by!(
    Stop,
    range::left_by_watching,
    "^([rwx]{1,3}|rx2rw|n2rwx)$",
    "The accesses that stop: some of the letters r, w, x; or one of Xen's types rx2rw and n2rwx."
);
read_by!(Size, amount::size, "^[0-9]+([KMGkmg]|[KMG]iB)?$", "A multiple of 4096 bytes: 512M, 2G or 65536K.");
read_by!(Time, amount::time, "^[0-9]+(ms|s|m|min)?$", "A time: 500ms, 60s or 5m.");

/// An unsigned number of 64 bits. TOML's integers end at 63: what is larger is written as text, "0xaaaaaaaaaaaaaaaa".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number from 0 to 0xffffffffffffffff, as text above 0x7fffffffffffffff")
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
                u64::try_from(value)
                    .map(Number)
                    .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(value), &self))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                amount::number(text)
                    .map(Number)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for Number {
    fn schema_name() -> Cow<'static, str> {
        "Number".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number from 0 to 0xffffffffffffffff, as text above 0x7fffffffffffffff.",
            "oneOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": "^(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})$" },
            ],
        })
    }
}

/// A number of vCPUs.
pub(super) fn vcpus<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match i64::deserialize(deserializer)? {
        number @ 1..=255 => Ok(u32::try_from(number).unwrap_or(1)),
        other => Err(D::Error::custom(format!("{other} vCPUs; write 1 to 255"))),
    }
}

/// The version of the format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version;

impl Version {
    /// The one version that there is.
    pub const NUMBER: i64 = 1;
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
        match i64::deserialize(deserializer)? {
            Version::NUMBER => Ok(Version),
            other => Err(D::Error::custom(format!(
                "version {other} of the scenario format is unknown; this program reads version {}",
                Version::NUMBER
            ))),
        }
    }
}

impl JsonSchema for Version {
    fn schema_name() -> Cow<'static, str> {
        "Version".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "const": Version::NUMBER })
    }
}
