//! What the interpreter's words for several vCPUs answer, as far as no scheduler decides it: how many requests there are and of which
//! kind, errors, how many vCPUs go on. Which vCPU comes when is left out here; `order.rs` looks at each vCPU's own order.

use super::answers::answers;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What the lines so far have told, of which the next ones are told as differences.
#[derive(Debug)]
pub struct Seen {
    /// The ring's requests; `None` where the last line took as many as came.
    requests: Option<i64>,
    /// As many frames are paged out as the guest and the consumer have come to.
    raced: bool,
}

impl Seen {
    /// Before the first line.
    pub fn begun() -> Seen {
        Seen { requests: Some(0), raced: false }
    }
}

/// A vCPU that has done no more than so since the last line about it was not let go on, but for what it had under way: without anybody who
/// answers it comes to a few events, and to thousands where nothing stops it.
const FEW: i64 = 16;

/// The words that are answered here.
pub fn knows(word: &str) -> bool {
    let words = [
        "look", "vinfo", "vinfo0", "step", "ansk", "fair", "fairb", "race", "steal", "rmap", "sub", "destroy",
        "dominfo",
    ];
    words.contains(&word)
}

/// How the first line of an answer begins.
pub fn first(word: &str) -> String {
    match word {
        "look" | "steal" | "dominfo" => format!("{word}:"),
        "vinfo" | "vinfo0" => "vinfo".to_owned(),
        "step" => "step 0:".to_owned(),
        "race" => "race 0".to_owned(),
        _ => format!("{word} "),
    }
}

/// Whether a line belongs to the answer that has begun.
pub fn goes_on(word: &str, line: &str) -> bool {
    let line = line.trim_start();
    let is_vcpu = line.strip_prefix('v').is_some_and(|rest| rest.starts_with(|letter: char| letter.is_ascii_digit()));
    match word {
        "vinfo" | "vinfo0" => is_vcpu,
        "step" => line.starts_with("flags:") || line.starts_with("step ") && !line.starts_with("step 0:"),
        "fair" | "fairb" => line.starts_with("seq:") || line.starts_with("count/"),
        "race" => line.starts_with("race "),
        "sub" => line.starts_with('|'),
        _ => false,
    }
}

/// What is compared of an answer's lines to a script's line.
pub fn plain(script: &str, said: &[&str], seen: &mut Seen) -> String {
    let lines: Vec<&str> = said.iter().map(|line| line.trim()).collect();
    let word = script.split_whitespace().next().unwrap_or_default();
    match word {
        "vinfo" | "vinfo0" => figures(&lines, seen),
        "fair" | "fairb" => turns(&lines, seen),
        "race" => rounds(&lines, seen),
        "sub" => second(script, &lines),
        // Without how long its end took, and how many pages a domain has that is there.
        "destroy" => lines[0].split(' ').take(3).collect::<Vec<_>>().join(" "),
        "dominfo" => lines[0].split(' ').take(2).collect::<Vec<_>>().join(" "),
        "rmap" => lines[0].split(" req_prod=").next().unwrap_or_default().to_owned(),
        _ => lines
            .iter()
            .filter(|line| !line.starts_with("flags:"))
            .map(|line| requests(line, seen))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

fn after<'line>(line: &'line str, mark: &str) -> &'line str {
    line.split_once(mark).map_or("", |(_, rest)| rest)
}

fn number(line: &str, name: &str) -> Option<i64> {
    let digits = after(line, &format!("{name}="));
    digits.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// How many frames are paged out; how many vCPUs have gone on since the last such line, and whether all that any has read was right.
fn figures(lines: &[&str], seen: &Seen) -> String {
    if lines[0].contains("domain gone") {
        return lines[0].to_owned();
    }
    let mut said = String::new();
    if !seen.raced {
        write!(said, "paged={}, ", number(lines[0], "paged").unwrap_or_default()).unwrap();
    }
    let vcpus = lines.iter().filter(|line| line.starts_with('v') && line.contains(" events="));
    let done = |line: &str| after(line, "(+").split(')').next().and_then(|done| done.parse::<i64>().ok());
    let went_on = vcpus.clone().filter(|line| done(line).is_some_and(|done| done > FEW)).count();
    let wrong = vcpus.clone().filter(|line| number(line, "wrong") != Some(0)).count();
    write!(said, "{went_on} of {} went on, {wrong} read what was wrong", vcpus.count()).unwrap();
    said
}

/// Whether as many events came as were waited for, and how many requests were on the ring at most.
fn turns(lines: &[&str], seen: &mut Seen) -> String {
    (seen.requests, seen.raced) = (None, true);
    let wanted: u64 = lines[0].split_whitespace().nth(1).and_then(|count| count.parse().ok()).unwrap_or(u64::MAX);
    let came: u64 = after(lines[0], "-> ").split(' ').next().and_then(|count| count.parse().ok()).unwrap_or_default();
    let came = if came >= wanted { "all came" } else { "not all came" };
    let most = lines[0].split_once("most pending ").and_then(|(_, rest)| rest.split(',').next());
    most.map_or_else(|| came.to_owned(), |most| format!("{came}, {most} on the ring at most"))
}

/// Whether one frame that is paged out and that all vCPUs read comes to more than one request.
fn rounds(lines: &[&str], seen: &mut Seen) -> String {
    (seen.requests, seen.raced) = (None, true);
    let by_number = lines.last().map_or("", |line| after(line, "by number of requests:"));
    let several = by_number
        .split_whitespace()
        .filter_map(|word| word.split(':').next()?.parse::<u32>().ok())
        .any(|number| number > 1);
    if several { "several requests in a round" } else { "one request a round at most" }.to_owned()
}

/// What a second consumer was answered, whose lines stand in one.
fn second(script: &str, lines: &[&str]) -> String {
    let printed: Vec<&str> = lines.iter().skip(1).map(|line| line.trim_start_matches('|').trim_start()).collect();
    let script = script.trim_start_matches("sub ").replace(';', "\n");
    let said = answers(&script, &printed.join("\n"));
    said.into_iter().map(|(at, said)| format!("{at}: {said}")).collect::<Vec<_>>().join("\n")
}

/// A line with requests: each list as how many there are of each kind, the ring's indices as how far they have gone.
fn requests(line: &str, seen: &mut Seen) -> String {
    let mut kinds: BTreeMap<&str, u32> = BTreeMap::new();
    let mut said = Vec::new();
    let flush = |kinds: &mut BTreeMap<&str, u32>, said: &mut Vec<String>| {
        said.extend(std::mem::take(kinds).into_iter().map(|(kind, count)| format!("{count}*{kind}")));
    };
    let mut runs = false;
    let before = seen.requests;
    for word in line.split_whitespace() {
        // Who has had the processor meanwhile.
        if word == "ran:" || runs {
            runs = word != "|";
            continue;
        }
        if let Some((who, kind)) = word.split_once('/')
            && who.contains(':')
        {
            *kinds.entry(kind.trim_end_matches(',')).or_default() += 1;
            continue;
        }
        flush(&mut kinds, &mut said);
        let value = |name: &str| word.strip_prefix(name).and_then(|value| value.parse::<i64>().ok());
        if let Some(now) = value("req_prod=") {
            said.extend(before.map(|before| format!("req_prod{:+}", now - before)));
            seen.requests = Some(now);
        } else if let Some(answered) = value("rsp_prod=") {
            said.push(format!("{} unanswered", seen.requests.unwrap_or_default() - answered));
        } else if let Some(event) = value("rsp_event=") {
            said.push(format!("rsp_event{:+}", event - seen.requests.unwrap_or_default()));
        } else {
            said.push(word.to_owned());
        }
    }
    flush(&mut kinds, &mut said);
    let said = said.join(" ");
    // Which of those that wait were told already is as the line before has left it.
    match (before, said.split_once('|')) {
        (None, Some((_, rest))) if line.starts_with("look") => format!("look:{rest}"),
        _ => said,
    }
}
