//! What a scenario says of its guest and its machine.

use super::icount::Icount;
use super::text::{self, Size};
use schemars::JsonSchema;
use serde::Deserialize;

/// A guest and its machine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Machine {
    /// A built-in guest or `linux`; or a path with a slash, from the scenario's folder, of what QEMU boots: an ELF file with a PVH
    /// entry, a bzImage, an EFI application (with `firmware`), or a disk image, which stays as it is.
    pub guest: String,
    /// What the guest starts from instead of its boot: `saved:NAME`, a machine that `mem-event save` saved. It must be this machine, booted in this
    /// QEMU.
    pub from: Option<String>,
    /// A first file system for a bzImage: a path from the scenario's folder.
    pub initrd: Option<String>,
    /// What a bzImage is told on its command line; what `linux` is told besides.
    pub append: Option<String>,
    /// The machine's firmware, where it is not QEMU's own: a file for `-bios`, or `ovmf` for that of Debian's package.
    pub firmware: Option<String>,
    /// vCPUs.
    #[serde(default = "one", deserialize_with = "text::vcpus")]
    #[schemars(range(min = 1, max = 255))]
    pub vcpus: u32,
    /// QEMU counts instructions, each takes 2 to this power nanoseconds of the guest's time, and neither the host's time nor chance
    /// reaches the guest: one that is the same does the same in each run. One thread runs all vCPUs then.
    pub icount: Option<Icount>,
    /// How many threads run the vCPUs.
    #[serde(default)]
    pub thread: Thread,
    /// RAM.
    #[serde(default = "Size::small")]
    pub memory: Size,
    /// The CPU model, where QEMU's default lacks something.
    pub cpu: Option<String>,
    /// The device that shows the disk which the harness makes, a word of its own in every eight bytes: QEMU's `-device` without its
    /// drive, as `ide-hd,bus=ide.0` or `virtio-blk-pci,iothread=disk-thread`.
    pub disk: Option<String>,
    /// The symbols of the Linux that the guest runs: a path from the scenario's folder of its vmlinux, bzImage, System.map, or output of
    /// /proc/kallsyms; or `guest`, for the table that the guest holds itself. Without it those of the image that is booted.
    pub symbols: Option<String>,
    /// Further arguments for QEMU.
    #[serde(default)]
    pub args: Vec<String>,
}

fn one() -> u32 {
    1
}

/// How many threads run the vCPUs, in QEMU's words (`-accel tcg,thread=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Thread {
    /// One each.
    #[default]
    Multi,
    /// One for all, by turns.
    Single,
}

impl Machine {
    /// One for a guest, with one vCPU and 64 MiB.
    #[must_use]
    pub fn bare(guest: &str) -> Machine {
        Machine {
            guest: guest.into(),
            from: None,
            initrd: None,
            append: None,
            firmware: None,
            vcpus: one(),
            icount: None,
            thread: Thread::default(),
            memory: Size::small(),
            cpu: None,
            disk: None,
            symbols: None,
            args: Vec::new(),
        }
    }
}
