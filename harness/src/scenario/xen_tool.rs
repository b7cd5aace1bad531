//! A tool of Xen's as a consumer, as a scenario or the command line names it.

use super::external::External;
use schemars::JsonSchema;
use serde::Deserialize;
use std::path::Path;

/// A tool of Xen's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct XenTool {
    /// What is started, as behind `mem-event xen --`: `xen-access 1 write`. The guest is domain 1.
    pub command: String,
    /// The release of Xen whose tool is taken: 4.17 to 4.20.
    pub version: Option<String>,
    /// Makes xenpaging's answers whole.
    #[serde(default)]
    pub repair_xenpaging: bool,
}

impl XenTool {
    /// The tool as a process; `program` is `mem-event`.
    #[must_use]
    pub fn external(&self, program: &Path) -> External {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let version = self.version.iter().map(|version| format!(" --xen {}", quoted(version))).collect::<String>();
        let repair = if self.repair_xenpaging { " --repair-xenpaging" } else { "" };
        let program = quoted(&program.to_string_lossy());
        let command =
            format!("{program} xen{version}{repair} --domain \"1=$MEM_EVENT_SOCKET,guest\" -- {}", self.command);
        External { rings: Vec::new(), command, folder: None, words: None, is_xens: true }
    }
}
