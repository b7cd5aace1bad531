//! An act as text: one name, of either type, and what it takes. It is read as the one enum that it looks like, so that what is wrong is
//! shown in its place with all that is allowed.

use super::act::{Act, ConsumerAct, MemoryAct};
use serde::de::value::{EnumAccessDeserializer, Error as Unread, StrDeserializer};
use serde::de::{DeserializeSeed, EnumAccess, Error, IntoDeserializer, Visitor};
use serde::{Deserialize, Deserializer, forward_to_deserialize_any};
use std::fmt;

impl<'de> Deserialize<'de> for Act {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Act, D::Error> {
        deserializer.deserialize_enum("Act", all(), Either)
    }
}

struct Either;

impl<'de> Visitor<'de> for Either {
    type Value = Act;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an act")
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<Act, A::Error> {
        let (Known(name), variant) = access.variant()?;
        let rest = EnumAccessDeserializer::new(Read { name, variant });
        if names::<MemoryAct>().contains(&name) {
            MemoryAct::deserialize(rest).map(Act::Memory)
        } else {
            ConsumerAct::deserialize(rest).map(Act::Consumer)
        }
    }
}

/// An act's name, refused where it stands if it is none.
struct Known(&'static str);

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Known, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = all().iter().find(|known| **known == name);
        known.copied().map(Known).ok_or_else(|| D::Error::unknown_variant(&name, all()))
    }
}

/// An enum of which the name has been read.
struct Read<V> {
    name: &'static str,
    variant: V,
}

impl<'de, V: serde::de::VariantAccess<'de>> EnumAccess<'de> for Read<V> {
    type Error = V::Error;
    type Variant = V;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, V), V::Error> {
        let name: StrDeserializer<'_, V::Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.variant))
    }
}

/// The names of both types.
fn all() -> &'static [&'static str] {
    static ALL: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
    ALL.get_or_init(|| [names::<MemoryAct>(), names::<ConsumerAct>()].concat())
}

/// The names of an enum's variants, which it tells its reader.
fn names<T: for<'de> Deserialize<'de>>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // It gets nothing to read, so that it fails.
    let _ = T::deserialize(Asked(&mut names));
    names
}

struct Asked<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Unread;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Unread> {
        *self.0 = variants;
        Err(Unread::custom("there is nothing to read"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Unread> {
        Err(Unread::custom("there is nothing to read"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}
