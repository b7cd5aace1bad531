//! QEMU's command line: options with their values taken apart, so that a word in a path, a name or the guest's own command line is no device.

use std::fs;

/// Options whose value is text, whatever it begins with.
const TEXTS: [&str; 4] = ["append", "initrd", "kernel", "name"];

/// Options that are properties, and which property the first word names if it names none.
const PROPERTIES: [(&str, &str); 12] = [
    ("M", "type"),
    ("accel", "accel"),
    ("blockdev", "driver"),
    ("chardev", "backend"),
    ("device", "driver"),
    ("drive", "file"),
    ("machine", "type"),
    ("net", "type"),
    ("netdev", "type"),
    ("nic", "type"),
    ("object", "qom-type"),
    ("overcommit", "mem-lock"),
];

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOption {
    /// Its name, without dashes.
    pub name: String,
    /// Its value as it stands there; empty for none.
    pub value: String,
    /// The value taken apart, with nested names joined by dots; `on` and `off` for switches.
    pub properties: Vec<(String, String)>,
}

impl CommandOption {
    fn new(name: &str, value: &str) -> CommandOption {
        let first = PROPERTIES.iter().find(|(known, _)| *known == name).map(|(_, first)| *first);
        let properties = first.map(|first| properties(value, first)).unwrap_or_default();
        CommandOption { name: name.into(), value: value.into(), properties }
    }

    /// A property's value; of several, the last counts.
    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// All options.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct CommandLine(Vec<CommandOption>);

impl CommandLine {
    /// The one that this process was started with.
    pub fn of_this_process() -> CommandLine {
        let bytes = fs::read("/proc/self/cmdline").unwrap_or_default();
        let words: Vec<String> =
            bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        CommandLine::parse(&words)
    }

    /// From words, of which the first is the program.
    pub fn parse(words: &[impl AsRef<str>]) -> CommandLine {
        let mut options = Vec::new();
        let mut words = words.iter().map(AsRef::as_ref).skip(1).peekable();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { continue };
            let takes_any = TEXTS.contains(&name) || PROPERTIES.iter().any(|(known, _)| *known == name);
            let value = words.next_if(|next| takes_any || !next.starts_with('-')).unwrap_or_default();
            options.push(CommandOption::new(name, value));
        }
        CommandLine(options)
    }

    /// The options of these names.
    pub fn options<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a CommandOption> {
        self.0.iter().filter(move |option| names.contains(&option.name.as_str()))
    }

    /// What the machine's options say of a property, together: the last counts.
    pub fn machine(&self, property: &str) -> Option<&str> {
        self.options(&["machine", "M"]).filter_map(|option| option.property(property)).last()
    }
}

/// `first,name=value,switch`, a comma within a value written twice; or JSON.
fn properties(value: &str, first: &str) -> Vec<(String, String)> {
    if value.trim_start().starts_with('{') {
        let mut found = Vec::new();
        if let Ok(json) = serde_json::from_str(value) {
            flatten(&json, "", &mut found);
        }
        return found;
    }
    let parts = value.replace(",,", "\0");
    let parts = parts.split(',').enumerate().filter(|(_, part)| !part.is_empty());
    parts
        .map(|(at, part)| {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name, value),
                None if at == 0 => (first, part),
                None => part.strip_prefix("no").map_or((part, "on"), |name| (name, "off")),
            };
            (name.replace('\0', ","), value.replace('\0', ","))
        })
        .collect()
}

fn flatten(json: &serde_json::Value, name: &str, found: &mut Vec<(String, String)>) {
    let within = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match json {
        serde_json::Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(value, &within(key), found)),
        serde_json::Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, value)| flatten(value, &within(&at.to_string()), found));
        }
        serde_json::Value::Bool(on) => found.push((name.to_owned(), if *on { "on" } else { "off" }.to_owned())),
        serde_json::Value::String(text) => found.push((name.to_owned(), text.clone())),
        other => found.push((name.to_owned(), other.to_string())),
    }
}
