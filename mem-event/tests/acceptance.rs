//! The table in ACCEPTANCE.md names tests that exist.

use std::fs;
use std::path::Path;

#[test]
fn every_test_in_the_table_exists() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(here.join("ACCEPTANCE.md")).expect("ACCEPTANCE.md");
    let mut count = 0;
    for word in table.split('`').skip(1).step_by(2) {
        let Some((file, name)) = word.split_once("::").filter(|(file, _)| !file.is_empty()) else { continue };
        if file.starts_with(char::is_uppercase) {
            continue;
        }
        let path = here.join("tests").join(file).with_extension("rs");
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{word}: {}: {error}", path.display()));
        let name = name.trim_end_matches(['*', '…']).trim_end_matches("N_");
        assert!(source.contains(&format!("\nfn {name}")) || name.is_empty(), "there is no test {word}");
        count += 1;
    }
    assert!(count > 70, "only {count} tests are named");
}
