//! The worked examples of consumers, as processes.

use super::scenario;
use harness::machine::folder::RunFolder;
use harness::scenario::settings::PagerSettings;
use harness::scenario::{Scenario, Size};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A worked example of a consumer, ready to be started.
pub struct Example {
    /// What is started.
    pub command: String,
    layout: &'static str,
    _folder: Option<RunFolder>,
}

/// The folder of the examples.
pub fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../mem-event/client/examples")
}

impl Example {
    /// As cargo has built it with the workspace's tests.
    pub fn in_rust(name: &str) -> Example {
        let program = std::env::current_exe().unwrap();
        // Two folders up from the tests' programs.
        let example = program.ancestors().nth(2).unwrap().join("examples").join(name);
        assert!(example.is_file(), "no {}; cargo build --release --examples -p mem-event-client", example.display());
        Example { command: example.display().to_string(), layout: "flags32", _folder: None }
    }

    /// Compiled here; none without Xen's public headers.
    pub fn in_c(name: &str) -> Option<Example> {
        if !Path::new("/usr/include/xen/vm_event.h").exists() {
            eprintln!("skipped: Xen's public headers are not installed (ci/setup installs libxen-dev)");
            return None;
        }
        let folder = RunFolder::create().unwrap();
        let (source, program) = (examples().join(name).with_extension("c"), folder.file(name));
        let compiled =
            Command::new("cc").args(["-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(source).status();
        assert!(compiled.unwrap().success());
        Some(Example { command: program.display().to_string(), layout: "vm_event7", _folder: Some(folder) })
    }

    /// In Python.
    pub fn in_python(name: &str) -> Example {
        let source = examples().join(name).with_extension("py");
        Example { command: format!("python3 {}", source.display()), layout: "flags32", _folder: None }
    }

    /// With these rings, each with as many slots as fit.
    pub fn with(&self, rings: &[&str]) -> String {
        self.with_slots(rings, 0)
    }

    /// With these rings, each with so many slots.
    pub fn with_slots(&self, rings: &[&str], slots: u32) -> String {
        let rings: Vec<String> = rings.iter().map(|ring| format!("{ring}:{}:{slots}", self.layout)).collect();
        format!("{}={}", rings.join(","), self.command)
    }

    /// The same, with slots of another layout.
    pub fn in_layout(mut self, layout: &'static str) -> Example {
        self.layout = layout;
        self
    }

    /// The same, started with an argument.
    pub fn about(mut self, argument: &str) -> Example {
        self.command += &format!(" {argument}");
        self
    }

    /// The same, and what it writes of each event goes nowhere.
    pub fn quiet(mut self) -> Example {
        self.command += " >/dev/null";
        self
    }

    /// The same, with a page file that can hold frames below this one only.
    pub fn with_a_file_below(mut self, gfn: u64) -> Example {
        // In the shell's blocks of 512 bytes. A write beyond is an error, where the signal is ignored.
        self.command = format!("sh -c \"trap '' XFSZ; ulimit -f {}; exec {}\"", gfn * 8, self.command);
        self
    }
}

/// `page_in`, held to so many frames by the pager's own choice of what goes.
pub fn held_to(frames: u64) -> Scenario {
    let mut held = scenario("page_in");
    held.steps.clear();
    held.consumers.pager = Some(PagerSettings { target: Some(Size(frames << 12)), ..PagerSettings::default() });
    held
}
