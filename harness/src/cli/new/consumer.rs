//! The consumer's project: one of the worked examples, a scenario that tests it with its accepted sequence, and what builds and runs all.

use super::file::{File, NAME};
use super::{crates, guest};
use crate::cli::arguments::Language;

macro_rules! example {
    ($name:literal) => {
        include_str!(concat!("../../../../mem-event/client/examples/", $name))
    };
}

const MAKEFILE: &str = include_str!("templates/Makefile");
const README: &str = include_str!("templates/README.md");
const CI: &str = include_str!("templates/gitlab-ci.yml");
const IGNORED: &str =
    "target\n__pycache__\n/consumer/pager\n/consumer/listener\n*.snap.new\n*.failed\n/evidence\n/junit.xml\n";
/// The examples may be used by either.
const LICENCES: [(&str, &str); 2] = [
    ("consumer/LICENSE-APACHE", include_str!("../../../../LICENSE-APACHE")),
    ("consumer/LICENSE-MIT", include_str!("../../../../LICENSE-MIT")),
];

/// What a consumer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It answers accesses.
    Listener,
    /// It takes frames away and brings them back.
    Pager,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Listener => "listener",
            Kind::Pager => "pager",
        }
    }

    /// The program of the guest that it serves.
    pub fn guest(self) -> &'static str {
        match self {
            Kind::Listener => guest::WATCHED,
            Kind::Pager => guest::PAGED,
        }
    }

    fn scenario(self) -> (&'static str, &'static str) {
        match self {
            Kind::Listener => (include_str!("templates/listener.toml"), include_str!("templates/listener.snap")),
            Kind::Pager => (include_str!("templates/pager.toml"), include_str!("templates/pager.snap")),
        }
    }

    /// Where its source is.
    pub fn source(self, language: Language) -> String {
        match language {
            Language::C => format!("consumer/{}.c", self.name()),
            Language::Rust => "consumer/src/main.rs".into(),
            Language::Python => format!("consumer/{}.py", self.name()),
        }
    }

    fn sources(self, language: Language) -> Vec<File> {
        let (program, shared) = match (self, language) {
            (Kind::Listener, Language::C) => (example!("listener.c"), Some(("mem_event.h", example!("mem_event.h")))),
            (Kind::Pager, Language::C) => (example!("pager.c"), Some(("mem_event.h", example!("mem_event.h")))),
            (Kind::Listener, Language::Rust) => (example!("listener.rs"), None),
            (Kind::Pager, Language::Rust) => (example!("pager.rs"), None),
            (Kind::Listener, Language::Python) => {
                (example!("listener.py"), Some(("mem_event.py", example!("mem_event.py"))))
            }
            (Kind::Pager, Language::Python) => (example!("pager.py"), Some(("mem_event.py", example!("mem_event.py")))),
        };
        let mut files = vec![(self.source(language), program.to_owned())];
        files.extend(shared.map(|(name, text)| (format!("consumer/{name}"), text.to_owned())));
        files.extend(LICENCES.map(|(path, text)| (path.to_owned(), text.to_owned())));
        if language == Language::Rust {
            files.extend(crates::files(self.name()));
        }
        files
    }

    /// The files besides the guest's.
    pub fn files(self, name: &str, language: Language) -> Vec<File> {
        let kind = self.name();
        let Parts { command, layout, build, sources, needs } = Parts::of(kind, language);
        let filled = |template: &str| {
            template
                .replace("COMMAND", &command)
                .replace("LAYOUT", layout)
                .replace("BUILD", &build)
                .replace("SOURCES", &sources)
                .replace("NEEDS", needs)
                .replace("KIND", kind)
                .replace("VERSION", env!("CARGO_PKG_VERSION"))
                .replace(NAME, name)
        };
        let (scenario, sequence) = self.scenario();
        let own = [
            ("README.md".to_owned(), filled(README)),
            ("Makefile".to_owned(), filled(MAKEFILE)),
            (".gitlab-ci.yml".to_owned(), filled(CI)),
            (".gitignore".to_owned(), IGNORED.to_owned()),
            (format!("scenarios/{name}.toml"), filled(scenario)),
            (format!("scenarios/{name}.snap"), filled(sequence)),
        ];
        own.into_iter().chain(self.sources(language)).collect()
    }
}

/// What differs between languages in the other files.
struct Parts {
    /// What the scenario starts, from its own folder.
    command: String,
    /// Of the slots that the consumer reads.
    layout: &'static str,
    /// The Makefile's rule.
    build: String,
    /// Rows of the README's table.
    sources: String,
    /// What building and running it needs.
    needs: &'static str,
}

impl Parts {
    fn of(kind: &str, language: Language) -> Parts {
        match language {
            Language::C => Parts {
                command: format!("../consumer/{kind}"),
                layout: "vm_event7",
                build: format!(
                    "consumer: consumer/{kind}\n\nconsumer/{kind}: consumer/{kind}.c consumer/mem_event.h\n\
                     \t$(CC) -O2 -Wall -Wextra -o $@ $<"
                ),
                sources: format!(
                    "| `consumer/{kind}.c` | the {kind} |\n\
                     | `consumer/mem_event.h` | its side of socket and ring, with Xen's public headers |"
                ),
                needs: "a C compiler and Xen's public headers (Debian: `apt install gcc libc6-dev libxen-dev`)",
            },
            Language::Rust => Parts {
                command: format!("../consumer/target/release/{kind}"),
                layout: "flags32",
                build: "consumer:\n\tcd consumer && cargo build --release --target-dir target".into(),
                sources: format!(
                    "| `consumer/src/main.rs` | the {kind} |\n\
                     | `consumer/mem-event`, `consumer/mem-event-client` | the sources of the two crates that it is built with. They \
                     are of mem-event {}, and in no registry |",
                    env!("CARGO_PKG_VERSION")
                ),
                needs: "nothing more than the guest, and the crates of `consumer/Cargo.lock` from a registry",
            },
            Language::Python => Parts {
                command: format!("python3 ../consumer/{kind}.py"),
                layout: "flags32",
                build: format!("consumer:\n\tpython3 -m py_compile consumer/{kind}.py consumer/mem_event.py"),
                sources: format!(
                    "| `consumer/{kind}.py` | the {kind} |\n\
                     | `consumer/mem_event.py` | its side of socket and ring, on the standard library alone |"
                ),
                needs: "Python 3.10 or newer",
            },
        }
    }
}
