//! `mem-event package`: what comes with the command in a package, made from the same definition as its help.

use super::arguments::{Cli, Package};
use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use std::path::Path;

/// Writes manual pages, and completions for bash, fish and zsh, into a prefix; 0.
///
/// # Errors
/// A folder or a file cannot be written.
pub fn package(arguments: &Package) -> anyhow::Result<u8> {
    let manual = folder(&arguments.prefix.join("share/man/man1"))?;
    let command = Cli::command();
    clap_mangen::generate_to(command.clone(), &manual)
        .with_context(|| format!("cannot write to {}", manual.display()))?;
    let shells = [
        (Shell::Bash, "share/bash-completion/completions"),
        (Shell::Fish, "share/fish/vendor_completions.d"),
        (Shell::Zsh, "share/zsh/vendor-completions"),
    ];
    for (shell, place) in shells {
        let folder = folder(&arguments.prefix.join(place))?;
        let written = clap_complete::generate_to(shell, &mut command.clone(), "mem-event", &folder);
        let file = written.with_context(|| format!("cannot write to {}", folder.display()))?;
        if shell == Shell::Bash {
            // bash looks for the command's name alone.
            let named = folder.join("mem-event");
            std::fs::rename(&file, &named).with_context(|| format!("cannot write {}", named.display()))?;
        }
    }
    Ok(0)
}

fn folder(path: &Path) -> anyhow::Result<std::path::PathBuf> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {}", path.display()))?;
    Ok(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Cli, Package, package};
    use crate::machine::folder::RunFolder;
    use clap::{Command, CommandFactory as _};

    /// The commands that a user sees, by their whole names.
    fn shown(command: &Command, above: &str, names: &mut Vec<String>) {
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            let name = format!("{above}-{}", below.get_name());
            shown(below, &name, names);
            names.push(name);
        }
    }

    #[test]
    fn each_command_has_its_page_and_each_shell_completes_them() {
        let folder = RunFolder::create().unwrap();
        let prefix = folder.file("usr");
        assert_eq!(package(&Package { prefix: prefix.clone() }).unwrap(), 0);
        let mut names = Vec::new();
        shown(&Cli::command(), "mem-event", &mut names);
        assert!(names.len() > 15, "{names:?}");
        for name in &names {
            let page = prefix.join(format!("share/man/man1/{name}.1"));
            assert!(page.is_file(), "{}", page.display());
        }
        for file in [
            "bash-completion/completions/mem-event",
            "fish/vendor_completions.d/mem-event.fish",
            "zsh/vendor-completions/_mem-event",
        ] {
            let text = std::fs::read_to_string(prefix.join("share").join(file)).unwrap();
            assert!(Cli::command().get_subcommands().all(|command| text.contains(command.get_name())), "{file}");
        }
    }
}
