//! The table of what the plugin takes from QEMU beside the plugin API.

use mem_event_plugin::qemu::capabilities::ALL;
use std::path::Path;

#[test]
fn each_name_that_is_looked_up_is_in_a_row_of_the_table() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/qemu");
    let mut names = 0;
    for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        for call in text.split("symbol(c\"").skip(1) {
            let name = call.split('"').next().unwrap_or_default();
            let is_of_the_api = name.starts_with("qemu_plugin_");
            let is_listed = is_of_the_api || ALL.iter().any(|row| row.rests_on(name));
            assert!(is_listed, "{name} of {} is in no row", entry.path().display());
            names += 1;
        }
    }
    assert!(names > 15, "{names} look-ups were found");
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

/// `helper_read_eflags` stores what it computed from QEMU 11.1 on, and flags are asked for from other threads than the vCPU's.
#[test]
fn nothing_that_writes_a_processors_flags_is_called_to_read_them() {
    let rests_on = |name: &str| ALL.iter().any(|row| row.rests_on(name));
    assert!(rests_on("helper_cc_compute_all") && !rests_on("helper_read_eflags"));
}
