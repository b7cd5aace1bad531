//! Conditions on steps, as people write them.
//!
//! ```text
//! vcpu == 1 and (kind == access or kind == kick)
//! gfn >= 0x500 and gfn < 0x510 and not outcome ~ proceed
//! wait > 2ms
//! ```
//!
//! A comparison is a field, an operator (`==`, `!=`, `<`, `<=`, `>`, `>=`, and `~` for "contains"), and a number or word; words with
//! spaces stand in double quotes. Comparisons are joined by `and`, `or`, `not` and parentheses; `and` binds before `or`. A
//! comparison with a field that a step does not have is false.

use super::row::Row;
use crate::refusal::{Refusal, nearest};
use crate::scenario::amount;
use std::cmp::Ordering;

/// Fields and what they are.
const FIELDS: [&str; 12] =
    ["step", "time", "wait", "vcpu", "gfn", "offset", "rip", "ring", "kind", "rights", "outcome", "effects"];
/// Those that are numbers.
const NUMBERS: usize = 7;

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Both.
    And(Box<Condition>, Box<Condition>),
    /// One of them, or both.
    Or(Box<Condition>, Box<Condition>),
    /// Not.
    Not(Box<Condition>),
    /// A field compared with a value.
    Compare(usize, Operator, Value),
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Is,
    /// `!=`
    IsNot,
    /// `<`
    Below,
    /// `<=`
    AtMost,
    /// `>`
    Above,
    /// `>=`
    AtLeast,
    /// `~`
    Contains,
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number; times in nanoseconds.
    Number(u64),
    /// A word.
    Word(String),
}

/// The longest condition, which bounds how deep one can be.
const LONGEST: usize = 2000;

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong and where, with what may stand there.
    pub fn parse(text: &str) -> Result<Condition, Refusal> {
        let remedy = "write comparisons like `vcpu == 1 and gfn >= 0x500`, joined by and, or, not and parentheses";
        if text.len() > LONGEST {
            return Err(Refusal::usage(format!("the condition has more than {LONGEST} bytes"), remedy));
        }
        let mut parser = Parser { words: words(text), at: 0 };
        let parsed = parser.any().and_then(|condition| match parser.peek() {
            None => Ok(condition),
            Some(word) => Err(format!("{word:?} follows where the condition has ended")),
        });
        parsed.map_err(|why| Refusal::usage(format!("the condition {text:?}: {why}"), remedy))
    }

    /// Whether a step meets it; `wait` is how long the wait took that began with the step, if one did.
    #[must_use]
    pub fn holds(&self, row: &Row, wait: Option<u64>) -> bool {
        match self {
            Condition::And(a, b) => a.holds(row, wait) && b.holds(row, wait),
            Condition::Or(a, b) => a.holds(row, wait) || b.holds(row, wait),
            Condition::Not(a) => !a.holds(row, wait),
            Condition::Compare(field, operator, Value::Number(value)) => {
                number(*field, row, wait).is_some_and(|field| operator.fits(field.cmp(value)))
            }
            Condition::Compare(field, operator, Value::Word(value)) => word(*field, row).is_some_and(|field| {
                if *operator == Operator::Contains { field.contains(value) } else { operator.fits(field.cmp(value)) }
            }),
        }
    }

    /// Whether it asks how long waits took.
    #[must_use]
    pub fn asks_for_waits(&self) -> bool {
        match self {
            Condition::And(a, b) | Condition::Or(a, b) => a.asks_for_waits() || b.asks_for_waits(),
            Condition::Not(a) => a.asks_for_waits(),
            Condition::Compare(field, ..) => FIELDS[*field] == "wait",
        }
    }
}

fn number(field: usize, row: &Row, wait: Option<u64>) -> Option<u64> {
    match FIELDS[field] {
        "step" => Some(row.step),
        "time" => Some(row.time),
        "wait" => wait,
        "vcpu" => row.vcpu.map(u64::from),
        "gfn" => row.gfn,
        "offset" => row.offset.map(u64::from),
        _ => (row.rip != 0).then_some(row.rip),
    }
}

fn word(field: usize, row: &Row) -> Option<String> {
    match FIELDS[field] {
        "ring" => row.ring.clone(),
        "kind" => Some(row.kind.clone()),
        "rights" => row.rights.clone(),
        "outcome" => Some(row.outcome.clone()),
        _ => Some(row.effects.join("; ")),
    }
}

impl Operator {
    fn parse(text: &str) -> Option<Operator> {
        Some(match text {
            "==" | "=" => Operator::Is,
            "!=" => Operator::IsNot,
            "<" => Operator::Below,
            "<=" => Operator::AtMost,
            ">" => Operator::Above,
            ">=" => Operator::AtLeast,
            "~" => Operator::Contains,
            _ => return None,
        })
    }

    fn fits(self, order: Ordering) -> bool {
        match self {
            Operator::Is | Operator::Contains => order.is_eq(),
            Operator::IsNot => order.is_ne(),
            Operator::Below => order.is_lt(),
            Operator::AtMost => order.is_le(),
            Operator::Above => order.is_gt(),
            Operator::AtLeast => order.is_ge(),
        }
    }
}

/// Words, operators, parentheses; a quoted word keeps its first quote, so that it is no name.
fn words(text: &str) -> Vec<String> {
    let (mut words, mut rest) = (Vec::new(), text.trim_start());
    while let Some(first) = rest.chars().next() {
        let end = if first == '"' {
            rest[1..].find('"').map_or(rest.len(), |end| end + 1)
        } else if "=!<>~".contains(first) {
            rest.find(|letter| !"=!<>~".contains(letter)).unwrap_or(rest.len())
        } else if "()".contains(first) {
            1
        } else {
            rest.find(|letter: char| letter.is_whitespace() || "=!<>~()\"".contains(letter)).unwrap_or(rest.len())
        };
        words.push(rest[..end].to_owned());
        let after = &rest[end..];
        rest = if first == '"' { after.strip_prefix('"').unwrap_or(after) } else { after }.trim_start();
    }
    words
}

struct Parser {
    words: Vec<String>,
    at: usize,
}

impl Parser {
    fn peek(&self) -> Option<&str> {
        self.words.get(self.at).map(String::as_str)
    }

    fn next(&mut self) -> Option<String> {
        self.at += 1;
        self.words.get(self.at - 1).cloned()
    }

    fn takes(&mut self, word: &str) -> bool {
        let is = self.peek() == Some(word);
        self.at += usize::from(is);
        is
    }

    fn any(&mut self) -> Result<Condition, String> {
        let mut condition = self.all()?;
        while self.takes("or") {
            condition = Condition::Or(Box::new(condition), Box::new(self.all()?));
        }
        Ok(condition)
    }

    fn all(&mut self) -> Result<Condition, String> {
        let mut condition = self.one()?;
        while self.takes("and") {
            condition = Condition::And(Box::new(condition), Box::new(self.one()?));
        }
        Ok(condition)
    }

    fn one(&mut self) -> Result<Condition, String> {
        if self.takes("not") {
            return Ok(Condition::Not(Box::new(self.one()?)));
        }
        if self.takes("(") {
            let condition = self.any()?;
            return if self.takes(")") { Ok(condition) } else { Err("a parenthesis is not closed".into()) };
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Condition, String> {
        let name = self.next().ok_or("it ends where a field is due")?;
        let Some(field) = FIELDS.iter().position(|field| *field == name) else {
            let near = nearest(&name, FIELDS);
            let known =
                if near.is_empty() { FIELDS.join(", ") } else { format!("did you mean {}?", near.join(" or ")) };
            return Err(format!("{name:?} is no field: {known}"));
        };
        let operator = self.next().ok_or_else(|| format!("it ends after {name}, where an operator is due"))?;
        let operator = Operator::parse(&operator)
            .ok_or_else(|| format!("{operator:?} after {name} is no operator (==, !=, <, <=, >, >=, ~)"))?;
        let value = self.next().ok_or_else(|| format!("it ends after {name}, where a value is due"))?;
        let value = value_of(field, &value)?;
        match (&value, operator) {
            (Value::Number(_), Operator::Contains) => Err(format!("{name} is a number, and ~ compares words")),
            _ => Ok(Condition::Compare(field, operator, value)),
        }
    }
}

fn value_of(field: usize, text: &str) -> Result<Value, String> {
    if field >= NUMBERS {
        return Ok(Value::Word(text.strip_prefix('"').unwrap_or(text).to_owned()));
    }
    let value = match FIELDS[field] {
        "time" | "wait" => nanoseconds(text),
        _ => amount::number(text),
    };
    value.map(Value::Number).ok_or_else(|| format!("{text:?} is no {} for {}", kind_of(field), FIELDS[field]))
}

fn kind_of(field: usize) -> &'static str {
    if matches!(FIELDS[field], "time" | "wait") { "time (20us, 3ms, 1.5s)" } else { "number" }
}

/// A time with its unit (ns, us, ms, s).
#[must_use]
pub fn nanoseconds(text: &str) -> Option<u64> {
    let unit = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let factor = match &text[unit..] {
        "ns" => 1.0,
        "us" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        _ => return None,
    };
    let value: f64 = text[..unit].parse().ok()?;
    let value = value * factor;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in the range")]
    (0.0..1.8e19).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::{Condition, nanoseconds};
    use crate::trace::row::Row;

    fn row() -> Row {
        Row {
            step: 7,
            time: 1500,
            kind: "access".into(),
            vcpu: Some(1),
            ring: None,
            gfn: Some(0x502),
            offset: Some(8),
            place: None,
            rights: Some("r--".into()),
            rip: 0,
            at: None,
            code: None,
            outcome: "wait: answer on access".into(),
            effects: vec!["wake vcpu 2".into()],
            connection: 0,
            remark: None,
        }
    }

    #[test]
    fn conditions_hold_for_what_they_say() {
        for (text, holds) in [
            ("vcpu == 1", true),
            ("vcpu=1 and gfn>=0x500", true),
            ("vcpu == 2 or kind == access and step < 7", false),
            ("(vcpu == 2 or kind == access) and step <= 7", true),
            ("not vcpu == 1", false),
            ("outcome ~ answer and effects ~ \"wake vcpu 2\"", true),
            ("rip == 0", false),
            ("ring == access", false),
            ("wait > 1us", true),
            ("time < 1.5us", false),
        ] {
            let condition = Condition::parse(text).unwrap();
            assert_eq!(condition.holds(&row(), Some(2000)), holds, "{text}");
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_with_what_may_stand_there() {
        for (text, why) in [
            ("vcp == 1", "did you mean vcpu?"),
            ("vcpu is 1", "is no operator"),
            ("vcpu ==", "where a value is due"),
            ("vcpu == one", "is no number for vcpu"),
            ("wait > 3", "is no time"),
            ("(vcpu == 1", "not closed"),
            ("vcpu == 1 vcpu == 2", "has ended"),
            ("gfn ~ 5", "compares words"),
            ("", "where a field is due"),
        ] {
            let refusal = Condition::parse(text).unwrap_err();
            assert!(refusal.what.contains(why), "{text}: {}", refusal.what);
        }
        assert!(Condition::parse(&"(".repeat(5000)).is_err());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(nanoseconds("1.5ms"), Some(1_500_000));
        assert_eq!(nanoseconds("7"), None);
        assert_eq!(nanoseconds("-1s"), None);
    }
}
