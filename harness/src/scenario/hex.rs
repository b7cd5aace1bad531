//! Bytes in a scenario or on the command line: pairs of hexadecimal digits, which blanks may part.

use crate::refusal::Refusal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Some bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = "^([0-9a-fA-F]{2}\\s*)*$"))]
pub struct Hex(pub Vec<u8>);

impl FromStr for Hex {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Hex, Refusal> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).ok().filter(|text| text.len() == 2)?;
            u8::from_str_radix(text, 16).ok().filter(|_| !text.starts_with('+'))
        };
        digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>().map(Hex).ok_or_else(|| {
            Refusal::machine(
                format!("`{text}` is no bytes"),
                "write each byte as two hexadecimal digits, as in \"90 c3\"",
            )
        })
    }
}

impl TryFrom<String> for Hex {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Hex, Refusal> {
        text.parse()
    }
}

impl From<Hex> for String {
    fn from(hex: Hex) -> String {
        hex.to_string()
    }
}

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Hex;

    #[test]
    fn bytes_are_pairs_of_digits_and_nothing_else() {
        let read = |text: &str| text.parse::<Hex>().ok().map(|hex| hex.0);
        assert_eq!(read("77 77\n0f"), Some(vec![0x77, 0x77, 0x0f]));
        assert_eq!(read(""), Some(vec![]));
        for wrong in ["7", "0x77", "77 7", "zz", "+1", "é"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
