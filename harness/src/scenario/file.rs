//! Reads a scenario's file. What is wrong is shown in the file, with its line and column and what is allowed there.

use super::Scenario;
use super::source::Source;
use super::text::Version;
use crate::refusal::{Refusal, nearest};
use std::path::Path;
use std::sync::Arc;

impl Source {
    fn explain(&self, error: &toml::de::Error) -> Refusal {
        let (what, remedy) = in_words(error.message());
        let span = error.span().unwrap_or(0..0);
        // What is missing from a table is shown where it begins, not as the whole of it.
        let first =
            self.text.get(span.clone()).and_then(|text| text.find('\n')).map_or(span.end, |end| span.start + end);
        self.refusal(span.start..first, what, remedy)
    }
}

/// Serde's sentence as what is wrong and what is allowed.
fn in_words(message: &str) -> (String, String) {
    let message = message.trim();
    for (beginning, kind) in [("unknown field `", "key"), ("unknown variant `", "name")] {
        let Some((wrong, expected)) = message.strip_prefix(beginning).and_then(|rest| rest.split_once('`')) else {
            continue;
        };
        let allowed: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let near = nearest(wrong, allowed.iter().copied());
        let guess = if near.is_empty() { String::new() } else { format!("did you mean `{}`? ", near.join("` or `")) };
        return (format!("no {kind} `{wrong}` here"), format!("{guess}allowed: {}", allowed.join(", ")));
    }
    // What toml says where serde would of a field of an enum's variant.
    if let Some((wrong, allowed)) =
        message.strip_prefix("unexpected keys in table: ").and_then(|rest| rest.split_once(", available keys: "))
    {
        let near = nearest(wrong, allowed.split(", "));
        let guess = if near.is_empty() { String::new() } else { format!("did you mean `{}`? ", near.join("` or `")) };
        return (format!("no key `{wrong}` here"), format!("{guess}allowed: {allowed}"));
    }
    if let Some(missing) = message.strip_prefix("missing field ") {
        return (format!("the key {missing} is missing"), format!("add {missing}"));
    }
    match message.split_once("; ").or_else(|| message.split_once(", expected ")) {
        Some((what, remedy)) if message.contains("; ") => (what.into(), remedy.into()),
        Some((what, expected)) => (what.into(), format!("expected {expected}")),
        None => (message.lines().collect::<Vec<_>>().join(": "), String::new()),
    }
}

impl Scenario {
    /// Reads a scenario from a file's text; its name is the file's without the ending.
    ///
    /// # Errors
    /// The first thing that is wrong, shown in the file.
    pub fn parse(path: &Path, text: String) -> Result<Scenario, Refusal> {
        let source = Source { path: path.to_owned(), text };
        source.check_version()?;
        let mut scenario: Scenario = toml::from_str(&source.text).map_err(|error| source.explain(&error))?;
        scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        scenario.source = Some(Arc::new(source));
        Ok(scenario)
    }

    /// Reads a scenario's file.
    ///
    /// # Errors
    /// It cannot be read, or as [`Scenario::parse`].
    pub fn load(path: &Path) -> Result<Scenario, Refusal> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Refusal::usage(
                format!("cannot read the scenario {}: {error}", path.display()),
                "name a scenario's TOML file",
            )
        })?;
        let mut scenario = Scenario::parse(path, text)?;
        scenario.folder = path.parent().map(Path::to_owned);
        for external in &mut scenario.consumers.external {
            external.folder.clone_from(&scenario.folder);
        }
        Ok(scenario)
    }
}

impl Source {
    /// A file of another version is told so, and not that its keys are unknown.
    fn check_version(&self) -> Result<(), Refusal> {
        let table = toml::de::DeTable::parse(&self.text).map_err(|error| self.explain(&error))?;
        match table.get_ref().get("version") {
            None => Err(self.refusal(
                0..0,
                "the key `version` is missing",
                format!("begin with: version = {}", Version::NUMBER),
            )),
            Some(version) => match version.get_ref() {
                toml::de::DeValue::Integer(number) if number.to_string() == Version::NUMBER.to_string() => Ok(()),
                _ => Err(self.refusal(
                    version.span(),
                    "a version of the scenario format that this program does not read",
                    format!("it reads version = {}", Version::NUMBER),
                )),
            },
        }
    }
}

/// The format as a JSON Schema, for editors.
#[must_use]
pub fn schema() -> String {
    let schema = schemars::schema_for!(Scenario);
    serde_json::to_string_pretty(&schema).unwrap_or_default() + "\n"
}
