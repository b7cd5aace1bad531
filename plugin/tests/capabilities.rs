//! The table of what the plugin takes from QEMU beside the plugin API.

use mem_event_plugin::qemu::capabilities::ALL;
use std::collections::BTreeSet;
use std::path::Path;

/// The names between `c"` and `"` in a text.
fn names(text: &str) -> BTreeSet<&str> {
    text.split("c\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0)).collect()
}

#[test]
fn each_name_that_is_looked_up_is_in_a_row_of_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/qemu");
    let table = std::fs::read_to_string(folder.join("capabilities.rs")).unwrap_or_default();
    let table = names(&table);
    assert!(table.contains("qemu_get_cpu"));
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        for call in text.split("symbol(c\"").skip(1) {
            let name = call.split('"').next().unwrap_or_default();
            assert!(table.contains(name), "{name} of {} is in no row", entry.path().display());
        }
    }
}

#[test]
fn a_program_that_exports_nothing_lacks_each_ability_and_says_what_is_so_without_it() {
    // This test's own program is no QEMU.
    for row in ALL {
        assert!(row.lacks().is_some(), "{}", row.name);
        let shown = row.to_string();
        let columns: Vec<&str> = shown.split('\t').collect();
        assert_eq!(columns.len(), 3, "{shown}");
        assert!(columns.iter().all(|column| !column.is_empty()), "{shown}");
    }
}
