//! A sequence of inputs as a test in Rust.

use super::search::{Minimal, Shown};
use crate::trace::row::kind;
use mem_event::trace::Header;
use mem_event::{DomainConfig, Effect, Input};

/// What the test may have to name, besides what it always does.
const NAMES: [&str; 14] = [
    "Access",
    "AccessSource",
    "AccessType",
    "Control",
    "CpuEvent",
    "CpuEventKind",
    "Gfn",
    "Gla",
    "Layout",
    "MonitorMode",
    "NoConsumer",
    "Rights",
    "Ring",
    "VcpuId",
];

/// The sequence as a test for `mem-event/tests/regressions.rs`.
#[must_use]
pub fn as_test(header: &Header, minimal: &Minimal) -> String {
    let Minimal { inputs, shown, step } = minimal;
    let name: String =
        header.guest.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
    let last = inputs.last().map(|told| kind(&told.input)).unwrap_or_default();
    let sources: Vec<String> = inputs.iter().map(|told| source(&told.input)).collect();
    let config = config(&header.config);
    let is_named = |name: &&str| {
        let named = |text: &str| text.contains(&format!("{name}(")) || text.contains(&format!("{name}::"));
        named(&config) || sources.iter().any(|text| named(text) || text.contains(&format!("{name} {{")))
    };
    let names: Vec<&str> = NAMES.into_iter().filter(is_named).collect();
    let mut text = format!(
        "/// Minimised from a trace of {}, whose step {step} ({last}) shows it.\n#[test]\n\
         fn minimised_from_{name}_step_{step}() {{\n    use mem_event::trace::RecordedConsumers;\n    \
         use mem_event::{{Domain, DomainConfig, Effects, Input, {}}};\n    \
         let config = {config};\n    let inputs: &[(Input, &[u8])] = &[\n",
        header.guest,
        names.join(", "),
    );
    for (told, source) in inputs.iter().zip(&sources) {
        let bytes: Vec<String> = told.taken.concat().iter().map(u8::to_string).collect();
        text += &format!("        ({}, &[{}]),\n", source, bytes.join(", "));
    }
    text += "    ];\n    let (mut domain, mut consumers) = (Domain::new(config).unwrap(), RecordedConsumers::default());\n    \
             let (mut effects, mut outcome) = (Effects::default(), None);\n    for (input, taken) in inputs {\n        \
             effects.clear();\n        outcome = Some(consumers.step(&mut domain, input, taken, &mut effects).unwrap());\n        \
             domain.check_invariants().unwrap();\n    }\n    let said = format!(\"{outcome:?} {:?}\", effects.list);\n";
    if let Shown::Difference(differs) = shown {
        let wanted = differs.missing.iter().map(|effect| (true, in_words(effect)));
        let unwanted = differs.extra.iter().map(|effect| (false, in_words(effect)));
        let outcome = differs.outcome.iter().map(|outcome| (true, format!("Some({outcome})")));
        for (is, part) in outcome.chain(wanted).chain(unwanted) {
            let not = if is { "" } else { "!" };
            text += &format!("    assert!({not}said.contains({part:?}), \"{{said}}\");\n");
        }
    } else {
        text += "    assert!(!said.is_empty());\n";
    }
    text + "}\n"
}

/// An effect as its debug text names it, without a slot's number, which depends on what was left out.
fn in_words(effect: &Effect) -> String {
    match effect {
        Effect::Requested { request, .. } => format!("request: {request:?}"),
        Effect::Answered { response, .. } => format!("response: {response:?}"),
        other => format!("{other:?}"),
    }
}

fn config(config: &DomainConfig) -> String {
    // The RAM stays as it is: frames are numbers that the inputs name.
    format!("{config:?}").replace("ram: [", "ram: vec![")
}

/// An input as the source spells it, from its debug text, which leaves out the names of enums.
fn source(input: &Input) -> String {
    let text = format!("Input::{input:?}").replace("Input::Control(", "Input::Control(Control::");
    let mut text = rights(&text);
    for (field, name) in [
        ("ring: ", "Ring"),
        ("layout: ", "Layout"),
        ("policy: ", "NoConsumer"),
        ("source: ", "AccessSource"),
        ("kind: ", "CpuEventKind"),
        ("mode: ", "MonitorMode"),
        ("access: ", "AccessType"),
    ] {
        let mut parts = text.split(field);
        let first = parts.next().unwrap_or_default().to_owned();
        text = parts.fold(first, |text, part| {
            let is_enum = part.starts_with(char::is_uppercase) && !part.starts_with("Access {");
            if is_enum { format!("{text}{field}{name}::{part}") } else { format!("{text}{field}{part}") }
        });
    }
    text
}

/// `Rights(r-x)` as `Rights::from_bits(5)`.
fn rights(text: &str) -> String {
    let mut parts = text.split("Rights(");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (letters, rest) = part.split_at(part.len().min(3));
        let bits: u8 = letters.bytes().zip([1, 2, 4]).map(|(letter, bit)| if letter == b'-' { 0 } else { bit }).sum();
        format!("{text}Rights::from_bits({bits}{rest}")
    })
}

#[cfg(test)]
mod tests {
    use super::source;
    use mem_event::{Access, AccessSource, AccessType, Control, Gfn, Input, Layout, NoConsumer, Rights, Ring, VcpuId};

    #[test]
    fn inputs_are_spelt_as_the_source_spells_them() {
        let access = Access {
            gfn: Gfn(5),
            offset: 8,
            gla: None,
            rights: Rights::RW,
            source: AccessSource::Instruction,
            rip: 16,
        };
        assert_eq!(
            source(&Input::Access { vcpu: VcpuId(1), access }),
            "Input::Access { vcpu: VcpuId(1), access: Access { gfn: Gfn(0x5), offset: 8, gla: None, \
             rights: Rights::from_bits(3), source: AccessSource::Instruction, rip: 16 } }"
        );
        let spelt = |control| source(&Input::Control(control));
        let enable = Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 4 };
        assert_eq!(
            spelt(enable),
            "Input::Control(Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 4 })"
        );
        let set = Control::SetAccess { first: Gfn(1), count: 2, access: AccessType::Rx };
        assert!(spelt(set).ends_with("access: AccessType::Rx })"));
        let policy = Control::SetNoConsumer { ring: Ring::Paging, policy: NoConsumer::Crash };
        assert!(spelt(policy).ends_with("ring: Ring::Paging, policy: NoConsumer::Crash })"));
    }
}
