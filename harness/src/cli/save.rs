//! `save`: a guest that is booted up to some point, for later runs to start from.

use crate::machine::saved::Saved;
use crate::output::print;
use crate::refusal::Refusal;
use crate::run::Job;
use crate::scenario::amount::{mebibytes, size, time};
use crate::scenario::{Scenario, Size, corpus};
use clap::Args;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What the Linux guest writes when its first process runs.
const LINUX_IS_UP: &str = "Kernel code";
/// How long a guest may take to come there.
const PATIENCE: Duration = Duration::from_secs(300);

/// `save`
#[derive(Debug, Args)]
pub struct Save {
    /// A built-in guest, `linux`, an ELF file; or a scenario, by its name or its file, whose machine is saved.
    pub guest: String,
    /// The name: a run starts from it with `--from saved:NAME`, a scenario with `from = "saved:NAME"`. A machine that was saved by this name is replaced.
    pub name: String,
    /// Save the machine when its console has said this; of `linux` by default what it says when its first process runs.
    #[arg(long, value_name = "TEXT")]
    pub when: Option<String>,
    /// Number of vCPUs.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=255))]
    pub vcpus: Option<u32>,
    /// The guest's memory (512M, 2G).
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// How long the guest may take to come there (5m if nothing is said).
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<String>,
    /// The QEMU to use; by default qemu-system-x86_64 in PATH.
    #[arg(long, value_name = "PATH")]
    pub qemu: Option<PathBuf>,
    /// Further arguments for QEMU.
    #[arg(last = true, value_name = "QEMU ARGS")]
    pub extra: Vec<OsString>,
}

/// `save`
///
/// # Errors
/// What a user can put right, as a [`Refusal`]; QEMU, or a file that cannot be written.
pub fn save(arguments: &Save) -> anyhow::Result<u8> {
    let Save { guest, name, when, vcpus, memory, deadline, qemu, extra } = arguments;
    let saved = Saved::named(name)?;
    let scenario = corpus::find_or_load(guest)?.unwrap_or_else(|| Scenario::bare(guest));
    let Scenario { source, folder, mut machine, .. } = scenario;
    machine.from = None;
    machine.vcpus = vcpus.unwrap_or(machine.vcpus);
    if let Some(memory) = memory {
        machine.memory = Size(size(memory)?);
    }
    let is_linux = machine.guest == "linux";
    let mut job = Job::new(Scenario { source, folder, machine, ..Scenario::bare("") }, qemu.as_deref())?;
    job.extra.clone_from(extra);
    let says = match when.as_deref() {
        Some(text) => text,
        None if is_linux => LINUX_IS_UP,
        None => {
            let what = format!("nothing says when {guest} is to be saved");
            return Err(Refusal::usage(what, "name what its console says then: --when TEXT").into());
        }
    };
    let patience = deadline.as_deref().map_or(Ok(PATIENCE), time)?;
    let kept = saved.save(&job.machine_without_plugin()?, says, patience)?;
    print(&format!(
        "saved as {name}: {} after {:.1} s, when its console said {says:?}\nstart from it with --from saved:{name}, or from = \"saved:{name}\" in a scenario's machine\n",
        mebibytes(kept.size),
        kept.ran.as_secs_f64()
    ))?;
    Ok(0)
}
