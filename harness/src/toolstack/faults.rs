//! The faults that were made to consumers, counted, for a summary's notes.

use std::collections::BTreeMap;

/// How many faults of which kind at what, by their texts; and of which seed they are.
#[must_use]
pub fn counted(faults: impl Iterator<Item = String>, seed: Option<u64>) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for fault in faults {
        // A fault's kind, and the call or ring that it came to.
        let words: Vec<&str> = fault.splitn(3, ' ').take(2).collect();
        *counts.entry(words.join(" ")).or_default() += 1;
    }
    let by = seed.map(|seed| format!(" of seed {seed}")).unwrap_or_default();
    let counted: Vec<String> = counts.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
    let all: u64 = counts.values().sum();
    if all == 0 { format!("no faults{by}") } else { format!("{all} faults{by}: {}", counted.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn faults_are_counted_by_what_they_came_to() {
        let faults = ["refuse evict 3 EBUSY 1", "kill access 2", "refuse evict 9 EBUSY 1"].map(str::to_owned);
        assert_eq!(counted(faults.into_iter(), Some(7)), "3 faults of seed 7: 1 kill access, 2 refuse evict");
        assert_eq!(counted(std::iter::empty(), None), "no faults");
    }
}
