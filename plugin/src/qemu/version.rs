//! Which version of the plugin API is spoken to a QEMU, by what its program says of itself.
//!
//! QEMU reads one number from the plugin before it calls any function of it, refuses one below the oldest or above the newest that it
//! speaks, and the two ranges of 11.0 (2 to 6) and 11.1 (7 alone) have nothing in common that could be told by its functions: both
//! export the same. So the number is chosen while QEMU opens the plugin, by the version in its banner. A wrong choice is refused by QEMU
//! in its own words, and nothing is misread.

/// A release of QEMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second.
    pub minor: u32,
    /// The third; 0 where there is none.
    pub micro: u32,
}

/// From this micro version on it is a state of development on the way to the next release.
const DEVELOPMENT: u32 = 50;
/// The newest API; user data comes last in its callbacks, and there is no plugin's number in them.
pub const NEWEST: i32 = 7;
/// The first API whose register descriptors are longer, and whose handles are made otherwise.
const LONGER_DESCRIPTORS: i32 = 6;
/// What 9.2 and 10.0 speak, and 10.1 to 11.0 still take.
pub const OLDEST: i32 = 4;

impl Version {
    /// `N.M` or `N.M.O` at the start of a text, whatever follows.
    pub fn parse(text: &[u8]) -> Option<Version> {
        let mut rest = text;
        let mut number = || {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let value = std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()?;
            rest = rest[digits..].strip_prefix(b".").unwrap_or_default();
            Some(value)
        };
        Some(Version { major: number()?, minor: number()?, micro: number().unwrap_or(0) })
    }

    /// The release that this one is, or is on the way to: of 11.0.50 that is 11.1.
    fn release(self) -> (u32, u32) {
        (self.major, self.minor + u32::from(self.micro >= DEVELOPMENT))
    }
}

/// The number to give out, by the program's banner, by its newest machine type where it has no banner, and by whether it has the function
/// `qemu_plugin_set_pc` where it has neither.
pub fn number(banner: Option<Version>, newest_machine: Option<Version>, has_set_pc: bool) -> i32 {
    match banner.or(newest_machine).map(Version::release) {
        Some(release) if release >= (11, 1) => NEWEST,
        Some((11, 0)) => LONGER_DESCRIPTORS,
        Some(_) => OLDEST,
        None if has_set_pc => NEWEST,
        None => OLDEST,
    }
}
