//! A suite's verdicts as JUnit's XML, which CI systems show.

use super::case::{Case, Judged};
use crate::verdict::Kind;
use std::fmt::Write;

/// The report.
#[must_use]
pub fn report(all: &[(Case, Judged)]) -> String {
    let count = |wanted: &[Kind]| all.iter().filter(|(_, judged)| wanted.contains(&judged.verdict.kind)).count();
    let seconds: f64 = all.iter().map(|(_, judged)| judged.took.as_secs_f64()).sum();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        text,
        "<testsuites><testsuite name=\"mem-event\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{seconds:.3}\">",
        all.len(),
        count(&[Kind::Failure]),
        count(&[Kind::Error, Kind::Crash]),
        count(&[Kind::Skip])
    );
    for (case, judged) in all {
        let (name, seconds) = (escaped(&case.scenario.name), judged.took.as_secs_f64());
        let _ = write!(text, "<testcase classname=\"mem-event\" name=\"{name}\" time=\"{seconds:.3}\">");
        let element = match judged.verdict.kind {
            Kind::Success => None,
            Kind::Skip => Some("skipped"),
            Kind::Failure => Some("failure"),
            Kind::Error | Kind::Crash => Some("error"),
        };
        if let Some(element) = element {
            let explained: String = judged.explained.iter().map(|sentence| format!("{sentence}\n")).collect();
            let body = escaped(&(super::report::difference(judged, false) + &explained));
            let why = escaped(&judged.verdict.to_string());
            let _ = write!(text, "<{element} message=\"{why}\">{body}</{element}>");
        }
        // As others' runners tell of tries: those before a success are flaky, those before a failure are more of it.
        let before = if judged.is_flaky() { "flakyFailure" } else { "rerunFailure" };
        for failure in &judged.failures {
            let _ = write!(text, "<{before} message=\"{}\"/>", escaped(&failure.to_string()));
        }
        if judged.has_failed() || judged.is_flaky() {
            text += &output(judged);
        }
        text += "</testcase>\n";
    }
    text + "</testsuite></testsuites>\n"
}

/// What a failure is looked into with. A program that shows the report may link to what stands in an attachment's brackets.
fn output(judged: &Judged) -> String {
    let mut out = judged.console.clone();
    for file in judged.evidence.iter().flat_map(std::fs::read_dir).flatten().flatten() {
        let path = std::path::absolute(file.path()).unwrap_or_else(|_| file.path());
        let _ = writeln!(out, "[[ATTACHMENT|{}]]", path.display());
    }
    format!("<system-out>{}</system-out><system-err>{}</system-err>", lines(&out), lines(&judged.said))
}

/// Text that keeps its lines.
fn lines(text: &str) -> String {
    text.lines().map(|line| escaped(line) + "\n").collect()
}

/// XML has no place for control characters, escaped or not.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\n' => escaped += "&#10;",
            '\t' => escaped.push('\t'),
            other if other.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn what_means_something_to_xml_is_escaped() {
        assert_eq!(escaped("a<b> & \"c\"\n\u{1b}[0m"), "a&lt;b&gt; &amp; &quot;c&quot;&#10;\u{fffd}[0m");
    }
}
