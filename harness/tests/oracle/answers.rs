//! What a script's lines were answered, from what the interpreter printed: one text for each line, without what belongs to one machine.

use super::crowd::{self, Seen};
use std::collections::BTreeMap;

/// Lines that answer nothing.
const SILENT: [&str; 5] = ["sleep", "unbind", "unmap", "exit", "note"];

/// The mappers that a script leaves in the background print when they are done; what they print stands here.
const BACKGROUND: usize = 900;

/// Answers by the script's lines, from 1 on.
pub type Answers = BTreeMap<usize, String>;

/// How the last line begins that answers a line of a script.
fn last(line: &str) -> String {
    let word = line.split_whitespace().next().unwrap_or_default();
    match word {
        "mon_en" | "pag_en" | "caps" | "maxgfn" | "wait" => format!("{word} ->"),
        "map" => "map 0x".to_owned(),
        "info" => "info ".to_owned(),
        "param" => "param ".to_owned(),
        "rd" => "rd slot".to_owned(),
        "ringst" => "ring ".to_owned(),
        "all" => "all answered".to_owned(),
        "ans" => "ans".to_owned(),
        word if crowd::knows(word) => crowd::first(word),
        _ => line.trim().to_owned(),
    }
}

/// The answers to a script.
pub fn answers(script: &str, printed: &str) -> Answers {
    let (background, rest): (Vec<&str>, Vec<&str>) = printed
        .lines()
        // A line that begins so says that Xen's console, with each vCPU's flags, is not there.
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#') && !line.trim_start().starts_with("q: "))
        .partition(|line| line.contains("[bg]"));
    let mut found = Answers::new();
    let mut at = 0;
    let (mut frames, mut seen) = (None, Seen::begun());
    for (number, line) in (1..).zip(script.lines()) {
        let word = line.split_whitespace().next().unwrap_or_default();
        if word.is_empty() || word.starts_with('#') || SILENT.contains(&word) {
            continue;
        }
        let wanted = last(line);
        let begins = |said: &&str| said.trim_start().starts_with(&wanted);
        let place = if crowd::knows(word) {
            // Some of these print nothing where nothing is to be answered; the next such line is another's.
            rest.get(at).filter(|said| begins(said)).map(|_| 0)
        } else {
            rest[at..].iter().position(begins)
        };
        let Some(length) = place else {
            found.insert(number, "(nothing)".to_owned());
            continue;
        };
        let mut end = at + length + 1;
        let goes_on = |said: &&str| {
            let said = said.trim_start();
            said.starts_with("vcpu0") || said.starts_with("decrease") || crowd::goes_on(word, said)
        };
        while rest.get(end).is_some_and(goes_on) {
            end += 1;
        }
        if crowd::knows(word) {
            found.insert(number, crowd::plain(line, &rest[at..end], &mut seen));
            at = end;
            continue;
        }
        let said = rest[at..end].iter().filter_map(|said| plain(said, &mut frames));
        found.insert(number, said.collect::<Vec<_>>().join("\n"));
        at = end;
    }
    let mut background: Vec<String> = background.iter().filter_map(|said| plain(said, &mut frames)).collect();
    background.sort();
    if !background.is_empty() {
        found.insert(BACKGROUND, background.join("\n"));
    }
    found
}

/// A printed line without what belongs to one machine or one moment; `None` where nothing is left. `frames` is how many the domain
/// had when that was first told.
fn plain(said: &str, frames: &mut Option<i64>) -> Option<String> {
    if ["vcpu0", "populate ring"].iter().any(|start| said.trim_start().starts_with(start)) {
        return None;
    }
    let number = |word: &str| word.split_once('=').and_then(|(_, number)| number.parse::<i64>().ok());
    let mut words: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
    if said.starts_with("info 1") {
        let now = words.iter().find(|word| word.starts_with("tot=")).and_then(|word| number(word)).unwrap_or_default();
        let first = *frames.get_or_insert(now);
        for word in &mut words {
            if word.starts_with("tot=") {
                *word = format!("tot={:+}", now - first);
            }
        }
        words.retain(|word| {
            !word.starts_with("max=") && !word.starts_with("flags=") && word != "running" && word != "blocked"
        });
    }
    if said.starts_with("wait ->") {
        // They follow from the requests and answers so far; "ringst" tells them.
        words.retain(|word| !word.starts_with("req_prod=") && !word.starts_with("rsp_prod="));
    }
    words.retain(|word| !word.starts_with("port=") && !is_seconds(word));
    Some(words.iter().map(|word| field(word)).collect::<Vec<_>>().join(" "))
}

fn is_seconds(word: &str) -> bool {
    word.strip_suffix('s').is_some_and(|number| number.parse::<f64>().is_ok())
}

/// A field of a request without what no two machines have alike: the guest turns CR0.WP over in each round, so which half came first is
/// chance; DR6 as the hypervisor last saved it; the accessed bit of CS, which TCG leaves as it was in the guest's table.
fn field(word: &str) -> String {
    let Some((name, value)) = word.split_once('=') else { return word.to_owned() };
    match (name, value) {
        ("cr0" | "rax" | "new" | "old", "0x11" | "0x10011") => format!("{name}=0x11 with or without WP"),
        ("dr6", value) if !value.is_empty() => "dr6".to_owned(),
        ("cs", value) => {
            let parts = value.split('/').map(|part| if part == "0xc9a" { "0xc9b" } else { part });
            format!("cs={}", parts.collect::<Vec<_>>().join("/"))
        }
        _ => word.to_owned(),
    }
}
