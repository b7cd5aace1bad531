//! The faults that were made to consumers, counted, for the summary's notes.

use super::job::lines_of_the_plugin;
use crate::scenario::chaos::Chaos;
use std::collections::BTreeMap;

/// How the plugin's line of a fault begins.
const BEGIN: &str = "fault: ";

/// How many faults of which kind at what the plugin has told of; nothing where none were asked for.
#[must_use]
pub fn note(chaos: &Chaos, said: &str) -> Option<String> {
    if chaos.plan().is_none() {
        return None;
    }
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for line in lines_of_the_plugin(said, BEGIN) {
        // A fault's kind, and the call or ring that it came to.
        let words: Vec<&str> = line[BEGIN.len()..].splitn(3, ' ').take(2).collect();
        *counts.entry(words.join(" ")).or_default() += 1;
    }
    let by = chaos.seed.map(|seed| format!(" of seed {seed}")).unwrap_or_default();
    let counted: Vec<String> = counts.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
    let all: u64 = counts.values().sum();
    Some(if all == 0 { format!("no faults{by}") } else { format!("{all} faults{by}: {}", counted.join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::note;
    use crate::scenario::chaos::Chaos;

    #[test]
    fn faults_are_counted_by_what_they_came_to() {
        let mut chaos = Chaos::default();
        let said = "mem-event: fault: refuse evict 3 EBUSY 1\nmem-event: fault: kill access 2\nqemu: x\n\
                    mem-event: fault: refuse evict 9 EBUSY 1\n";
        assert_eq!(note(&chaos, said), None, "none were asked for");
        chaos.impose(7);
        assert_eq!(note(&chaos, said).unwrap(), "3 faults of seed 7: 1 kill access, 2 refuse evict");
        assert_eq!(note(&chaos, "").unwrap(), "no faults of seed 7");
    }
}
