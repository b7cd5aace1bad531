//! What `mem-event xen` says to the library that it has preloaded.
//!
//! | variable | value |
//! |---|---|
//! | `MEM_EVENT_XEN_DOMAINS` | a line for each domain: `NUMBER=SOCKET`; without this variable nothing is taken |
//! | `MEM_EVENT_XEN_REPAIR` | set: answers on the paging ring are made whole that have another version |
//! | `MEM_EVENT_XEN_VERSION` | the release of Xen that the tool is to find: 4.17, if it is not set |

use crate::version::Version;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// The variable with the descriptor by which a consumer says that it is ready: here when it first reads its event channel.
pub use mem_event_client::handed::READY_FD;

/// The variable with the domains.
pub const DOMAINS: &str = "MEM_EVENT_XEN_DOMAINS";
/// The variable that has answers made whole.
pub const REPAIR: &str = "MEM_EVENT_XEN_REPAIR";
/// The variable with the release.
pub const VERSION: &str = "MEM_EVENT_XEN_VERSION";

/// A domain's number and its plugin's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1 on: 0 is the tool's own.
    pub number: u16,
    /// Where the plugin listens.
    pub socket: PathBuf,
    /// Its name in the store. Not said to the library, which has no use for it.
    pub name: Option<String>,
}

/// What was said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// The domains.
    pub domains: Vec<Place>,
    /// The release.
    pub version: Version,
    /// Whether answers are made whole.
    pub repairs: bool,
}

impl Environment {
    /// What the variables say; `None` where there is no word of domains.
    #[must_use]
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Option<Environment> {
        let domains = variable(DOMAINS)?;
        let version = variable(VERSION).and_then(|text| text.to_str()?.parse().ok()).unwrap_or_default();
        let domains = domains.as_bytes().split(|byte| *byte == b'\n').filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            let number = std::str::from_utf8(&line[..at]).ok()?.parse().ok()?;
            Some(Place { number, socket: OsString::from_vec(line[at + 1..].to_vec()).into(), name: None })
        });
        let repairs = variable(REPAIR).is_some();
        Some(Environment { domains: domains.collect(), version, repairs })
    }

    /// The variables that say it.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let mut domains = OsString::new();
        for Place { number, socket, .. } in &self.domains {
            domains.push(format!("{number}="));
            domains.push(socket);
            domains.push("\n");
        }
        let repair = self.repairs.then(|| (REPAIR, "1".into()));
        [(DOMAINS, domains), (VERSION, self.version.to_string().into())].into_iter().chain(repair).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Environment, Place};
    use crate::version::Version;

    #[test]
    fn what_is_said_is_read() {
        let domains = [(1, "/tmp/a=b, c"), (7, "/tmp/d")];
        let domains = domains.map(|(number, socket)| Place { number, socket: socket.into(), name: None }).into();
        let said = Environment { domains, version: Version { major: 4, minor: 20 }, repairs: true };
        let variables = said.variables();
        let read = Environment::read(|name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.clone())
        });
        assert_eq!(read, Some(said));
        assert_eq!(Environment::read(|_| None), None);
    }
}
