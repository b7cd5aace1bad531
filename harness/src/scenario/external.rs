//! A consumer that is a process of its own, as a scenario or the command line names it.

use super::name::named;
use crate::refusal::{Refusal, nearest};
use mem_event::{Layout, Ring};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::path::PathBuf;

const RING_FORMS: &str =
    "write RING[:LAYOUT[:SLOTS]]; rings are paging, access and sharing, layouts flags16, flags32 and vm_event7";

/// A ring to hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedRing {
    /// Which.
    pub ring: Ring,
    /// The layout of its slots; the scenario's if none is named.
    pub layout: Option<Layout>,
    /// How many slots, a power of two; 0 for as many as fit.
    pub slots: u32,
}

/// A command to start as a consumer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// The rings that are handed over; a consumer without one enables what it needs.
    #[serde(default)]
    pub rings: Vec<HandedRing>,
    /// What the shell runs, in the folder of the scenario's file; for one of the command line, where `mem-event` was started.
    pub command: String,
    /// That folder.
    #[serde(skip)]
    pub folder: Option<PathBuf>,
    /// Where its output and its error output are kept: files of this name with the endings `stdout` and `stderr`. Without one both go where
    /// this program's own remarks go.
    #[serde(skip)]
    pub words: Option<PathBuf>,
    /// A tool of Xen's, which does not hear that its domain has ended.
    #[serde(skip)]
    pub is_xens: bool,
}

impl External {
    /// `RING[:LAYOUT[:SLOTS]][,…]=COMMAND`, or only a command.
    ///
    /// # Errors
    /// The part before the first `=` is to be rings and names none.
    pub fn parse(text: &str) -> Result<External, Refusal> {
        let plain =
            || External { rings: Vec::new(), command: text.to_owned(), folder: None, words: None, is_xens: false };
        let Some((rings, command)) = text.split_once('=') else { return Ok(plain()) };
        let first = rings.split([',', ':']).next().unwrap_or_default();
        let names: Vec<String> = Ring::ALL.iter().map(Ring::to_string).collect();
        if !names.iter().any(|name| name == first) {
            // No command is a word with `=` behind it: the shell would take it for a variable.
            let is_word =
                !first.is_empty() && first.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_');
            if !is_word {
                return Ok(plain());
            }
            let near = nearest(first, names.iter().map(String::as_str));
            let meant = near.first().map(|name| format!("did you mean {name}? ")).unwrap_or_default();
            return Err(Refusal::usage(format!("no ring {first:?}"), format!("{meant}{RING_FORMS}")));
        }
        let rings = rings.split(',').map(parse_ring).collect::<Option<_>>().ok_or_else(|| {
            Refusal::usage(format!("{rings:?} are no rings"), format!("{RING_FORMS}, with a comma between several"))
        })?;
        Ok(External { rings, command: command.to_owned(), folder: None, words: None, is_xens: false })
    }

    /// Whether a ring is handed over to it.
    #[must_use]
    pub fn has(&self, ring: Ring) -> bool {
        self.rings.iter().any(|handed| handed.ring == ring)
    }
}

fn parse_ring(text: &str) -> Option<HandedRing> {
    let mut parts = text.split(':');
    let ring = named(parts.next()?)?;
    let layout = match parts.next() {
        None => None,
        Some(name) => Some(named(name)?),
    };
    let slots = parts.next().map_or(Some(0), |slots| slots.parse().ok())?;
    parts.next().is_none().then_some(HandedRing { ring, layout, slots })
}

impl<'de> Deserialize<'de> for HandedRing {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HandedRing, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_ring(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is no ring; {RING_FORMS}")))
    }
}

impl JsonSchema for HandedRing {
    fn schema_name() -> Cow<'static, str> {
        "HandedRing".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(paging|access|sharing)(:(flags16|flags32|vm_event7)(:[0-9]+)?)?$",
            "description": "A ring, with its layout and number of slots if they are not those of [rings]: access:vm_event7:4.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{External, HandedRing};
    use mem_event::{Layout, Ring};

    #[test]
    fn rings_come_before_the_command() {
        let parsed = External::parse("access:vm_event7:4,paging=./tool --x=1").unwrap();
        let access = HandedRing { ring: Ring::Access, layout: Some(Layout::VmEvent7), slots: 4 };
        let paging = HandedRing { ring: Ring::Paging, layout: None, slots: 0 };
        assert_eq!(
            parsed,
            External {
                rings: vec![access, paging],
                command: "./tool --x=1".into(),
                folder: None,
                words: None,
                is_xens: false
            }
        );
    }

    #[test]
    fn a_command_with_an_equals_sign_and_no_ring_is_a_command() {
        for command in ["./tool", "./tool --level=3", "env A=1 ./tool"] {
            assert_eq!(
                External::parse(command).unwrap(),
                External { rings: vec![], command: command.into(), folder: None, words: None, is_xens: false }
            );
        }
    }

    #[test]
    fn a_ring_that_is_written_wrongly_is_no_command() {
        let refusal = External::parse("acces=./x").unwrap_err();
        assert_eq!(refusal.what, "no ring \"acces\"");
        assert!(refusal.remedy.starts_with("did you mean access? write RING"), "{refusal}");
        assert!(External::parse("zzz:flags32=./x").unwrap_err().remedy.starts_with("write RING"));
    }

    #[test]
    fn what_begins_as_a_ring_and_is_none_is_refused() {
        for text in ["access:nothing=x", "access,nothing=x", "access:flags32:x=x", "access:flags32:1:1=x"] {
            assert!(External::parse(text).is_err(), "{text}");
        }
    }
}
