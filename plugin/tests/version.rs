//! The number that is given out to a QEMU, by what its program says.

use mem_event_plugin::qemu::version::{NEWEST, OLDEST, Version, number};

fn of(banner: &str) -> i32 {
    number(Version::parse(banner.as_bytes()), None, false)
}

/// Which numbers a release takes, as its loader has them.
fn takes(release: (u32, u32)) -> std::ops::RangeInclusive<i32> {
    if release >= (11, 1) {
        7..=7
    } else if release == (11, 0) {
        2..=6
    } else if release >= (10, 1) {
        2..=5
    } else {
        2..=4
    }
}

#[test]
fn each_release_gets_a_number_that_it_takes() {
    let releases = [(9, 2), (10, 0), (10, 1), (10, 2), (11, 0), (11, 1), (11, 2), (12, 0)];
    for (major, minor) in releases {
        for micro in ["", ".0", ".3", ".13", ".49"] {
            let banner = format!("{major}.{minor}{micro} (Debian 1:{major}.{minor}+ds-1)\n");
            assert!(takes((major, minor)).contains(&of(&banner)), "{banner}");
        }
    }
}

#[test]
fn a_state_of_development_is_the_release_to_come() {
    assert_eq!(of("11.0.50 (v11.0.0-1234-gabcdef)"), NEWEST);
    assert_eq!(of("11.0.92"), NEWEST);
    assert_eq!(of("10.2.50"), OLDEST);
    assert_eq!(of("11.1.50"), NEWEST);
}

#[test]
fn without_a_banner_the_newest_machine_type_tells() {
    let machine = |text: &str| number(None, Version::parse(text.as_bytes()), false);
    assert_eq!(machine("11.1"), NEWEST);
    assert_eq!(machine("10.0-machine"), OLDEST);
    assert_eq!(number(Version::parse(b"10.0.2"), Version::parse(b"11.1"), true), OLDEST);
}

#[test]
fn without_both_the_functions_tell_old_from_new() {
    assert_eq!(number(None, None, false), OLDEST);
    assert_eq!(number(None, None, true), NEWEST);
}

#[test]
fn what_is_no_version_is_none() {
    for text in ["", "11", "11.", ".1", "v11.1", "99999999999.1", "\0", "unknown"] {
        assert_eq!(Version::parse(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(Version::parse(b"11.1\0"), Some(Version { major: 11, minor: 1, micro: 0 }));
    assert_eq!(Version::parse(b"10.0.13"), Some(Version { major: 10, minor: 0, micro: 13 }));
}
