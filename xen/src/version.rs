//! Which Xen the tools find themselves on.

use std::str::FromStr;

/// A release of Xen's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// 4.
    pub major: u16,
    /// 17, say.
    pub minor: u16,
}

impl Default for Version {
    fn default() -> Version {
        Version { major: 4, minor: 17 }
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Version, String> {
        let known = text.split_once('.').and_then(|(major, minor)| {
            let minor = minor.parse().ok().filter(|minor| (17..=20).contains(minor))?;
            (major == "4").then_some(Version { major: 4, minor })
        });
        known.ok_or_else(|| format!("{text} is none of the releases of Xen that are known: 4.17, 4.18, 4.19, 4.20"))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl Version {
    /// What a file has that tells of the hypervisor; `None` for any other path.
    #[must_use]
    pub fn file(self, path: &str) -> Option<String> {
        Some(match path {
            "/sys/hypervisor/type" => "xen\n".to_owned(),
            "/sys/hypervisor/version/major" => format!("{}\n", self.major),
            "/sys/hypervisor/version/minor" => format!("{}\n", self.minor),
            "/sys/hypervisor/version/extra" => "\n".to_owned(),
            "/proc/xen/capabilities" => "control_d\n".to_owned(),
            _ => return None,
        })
    }
}
