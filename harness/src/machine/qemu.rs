//! A machine: which QEMU, its command line, and what it means when it does not start.

use super::disk::{self, Geometry};
use super::folder::RunFolder;
use super::process::{NotStarted, Qemu};
use crate::beside;
use crate::guest::linux;
use crate::refusal::Refusal;
use crate::scenario::Thread;
use crate::scenario::amount::mebibytes;
use crate::scenario::icount::Icount;
use anyhow::Context;
use mem_event::Gpa;
use mem_event::spin::Spin;
use std::ffi::OsString;
use std::iter;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// What a machine boots.
#[derive(Clone, Debug)]
pub enum Boot {
    /// An ELF by its PVH entry or its multiboot header.
    Elf(PathBuf),
    /// Somebody else's Linux kernel.
    BzImage {
        /// The kernel.
        kernel: PathBuf,
        /// Its first file system.
        initrd: Option<PathBuf>,
        /// Its command line.
        append: Option<String>,
    },
    /// An EFI application, on a disk where EFI firmware looks for it.
    Efi(PathBuf),
    /// A disk that firmware boots.
    Disk {
        /// The image, which stays as it is.
        image: PathBuf,
        /// Its format.
        format: &'static str,
    },
    /// A Linux kernel with the first file system made here.
    Linux {
        /// The bzImage.
        kernel: PathBuf,
        /// What it is told besides.
        append: Option<String>,
        /// Whether it does its work; else it boots and powers off.
        work: bool,
    },
}

/// What stops accesses (the plugin's argument `gate=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Gate {
    /// A check before every memory instruction.
    #[default]
    Callback,
    /// The host's MMU.
    Mmu,
    /// The host's MMU where the kernel and QEMU allow, else the check.
    Auto,
    /// Nothing: paging only.
    None,
}

impl std::fmt::Display for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Gate {
    fn name(self) -> &'static str {
        match self {
            Gate::Callback => "callback",
            Gate::Mmu => "mmu",
            Gate::Auto => "auto",
            Gate::None => "none",
        }
    }
}

/// The plugin's arguments.
#[derive(Clone, Debug)]
pub struct PluginArguments {
    /// The library.
    pub library: PathBuf,
    /// What stops accesses.
    pub gate: Gate,
    /// How long a stopped vCPU looks for its answer before it sleeps.
    pub spin: Spin,
    /// Whether the guest declares checkpoints.
    pub checkpoints: bool,
    /// Where else vCPUs stop.
    pub places: Vec<Gpa>,
    /// Whether what is predicted is compared with what QEMU reports, and the counts printed at the end.
    pub verify: bool,
    /// Where the trace goes.
    pub trace: Option<PathBuf>,
    /// Whether the trace says what frames hold when they leave and come back.
    pub contents: bool,
    /// The guest's name, for the trace's header.
    pub guest: String,
    /// The checksum of the guest's image, for the trace's header.
    pub checksum: String,
    /// The scenario's name, for the trace's header.
    pub scenario: String,
    /// QEMU's version, for the trace's header.
    pub qemu: String,
    /// Where more for the trace's header stands.
    pub facts: Option<PathBuf>,
    /// Further arguments, each NAME=VALUE.
    pub more: Vec<String>,
}

/// A machine to start.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The program.
    pub qemu: PathBuf,
    /// Bytes of RAM.
    pub memory: u64,
    /// vCPUs.
    pub vcpus: u32,
    /// How its time is counted, if not by the host's clock.
    pub icount: Option<Icount>,
    /// How many threads run the vCPUs.
    pub thread: Thread,
    /// What it boots.
    pub boot: Boot,
    /// The firmware, where it is not QEMU's own.
    pub firmware: Option<PathBuf>,
    /// The device that shows the harness's disk, if there is one.
    pub disk: Option<String>,
    /// The plugin; none for measuring what it costs.
    pub plugin: Option<PluginArguments>,
    /// Further arguments of the user's.
    pub extra: Vec<OsString>,
}

/// The QEMU to use: what the user named, or the one in the path.
///
/// # Errors
/// There is none.
pub fn find(named: Option<&Path>) -> Result<PathBuf, Refusal> {
    const NAME: &str = "qemu-system-x86_64";
    if let Some(path) = named {
        let by_path = path.components().count() > 1;
        return match if by_path { path.is_file().then(|| path.to_owned()) } else { in_path(path) } {
            Some(found) => Ok(found),
            None => Err(Refusal::usage(format!("no QEMU at {}", path.display()), format!("name a {NAME}"))),
        };
    }
    in_path(Path::new(NAME))
        .ok_or_else(|| Refusal::machine(format!("no {NAME} in PATH"), "run ci/setup, or name one with --qemu"))
}

fn in_path(name: &Path) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The plugin's library beside the program (or, for tests, in the build folder around it).
///
/// # Errors
/// There is none.
pub fn plugin_library() -> Result<PathBuf, Refusal> {
    beside::find("libmem_event_plugin.so")
}

/// The value of `-plugin` with this library and this argument alone.
pub(crate) fn option_of_plugin(library: &Path, argument: &str) -> OsString {
    joined(&[("", value(library)), ("", argument.into())])
}

/// A comma inside a value is written twice in QEMU's option language.
fn value(text: impl AsRef<Path>) -> OsString {
    let bytes = text.as_ref().as_os_str().as_bytes();
    OsString::from_vec(bytes.iter().flat_map(|byte| iter::repeat_n(*byte, 1 + usize::from(*byte == b','))).collect())
}

/// What QEMU's disk of a folder's files is called.
fn folder_as_disk(folder: &Path) -> OsString {
    let mut name = OsString::from("fat:");
    name.push(folder);
    name
}

/// The disk that firmware boots from; what the guest writes to it is forgotten.
fn boot_disk(format: &str, file: OsString, geometry: Option<Geometry>) -> [OsString; 4] {
    let mut drive = OsString::from(format!("if=none,id=boot,format={format},snapshot=on,file="));
    drive.push(value(file));
    let geometry = geometry.map(|geometry| geometry.properties()).unwrap_or_default();
    // On the first bus that is free, which has another name on each machine.
    ["-drive".into(), drive, "-device".into(), format!("ide-hd,drive=boot,bootindex=0{geometry}").into()]
}

fn joined(parts: &[(&str, OsString)]) -> OsString {
    let mut option = OsString::new();
    for (key, value) in parts {
        if !option.is_empty() {
            option.push(",");
        }
        option.push(key);
        option.push(value);
    }
    option
}

impl Machine {
    /// QEMU counts instructions in one thread only.
    fn threads(&self) -> &'static str {
        match self.thread {
            Thread::Multi if self.icount.is_none() => "tcg,thread=multi",
            Thread::Multi | Thread::Single => "tcg,thread=single",
        }
    }

    fn command(&self, folder: &RunFolder) -> Command {
        let mut command = Command::new(&self.qemu);
        let memory = self.memory.to_string();
        command
            .args(["-accel", self.threads(), "-machine", "q35,smm=off,memory-backend=ram"])
            .args([
                "-object",
                &format!("memory-backend-memfd,id=ram,size={memory},share=on"),
                "-m",
                &format!("{memory}B"),
            ])
            .args([
                "-smp",
                &self.vcpus.to_string(),
                "-nodefaults",
                "-no-user-config",
                "-display",
                "none",
                "-no-reboot",
                "-S",
            ])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-serial", "chardev:console"])
            .arg("-chardev")
            .arg(joined(&[("file,id=console,path=", value(folder.file("console")))]))
            .arg("-chardev")
            .arg(joined(&[("socket,id=monitor,path=", value(folder.file("monitor")))]))
            .args(["-mon", "chardev=monitor,mode=control"]);
        match &self.boot {
            Boot::Elf(path) => command.arg("-kernel").arg(path),
            Boot::BzImage { kernel, initrd, append } => {
                command.arg("-kernel").arg(kernel);
                command.args(initrd.iter().flat_map(|path| ["-initrd".as_ref(), path.as_os_str()]));
                command.args(append.iter().flat_map(|line| ["-append", line]))
            }
            // A folder that QEMU shows as a disk.
            Boot::Efi(_) => command.args(boot_disk("raw", folder_as_disk(&folder.file("efi")), None)),
            Boot::Disk { image, format } => {
                let geometry = Geometry::of_small_disk(image, format);
                command.args(boot_disk(format, image.into(), geometry))
            }
            Boot::Linux { kernel, append, work } => {
                let initrd = folder.file("initrd");
                let without = if *work { "" } else { linux::WITHOUT_WORK };
                let more = append.as_deref().unwrap_or_default();
                let line = format!("{} {without} {more}", linux::COMMAND_LINE);
                command.arg("-kernel").arg(kernel).arg("-initrd").arg(initrd).args(["-append", &line])
            }
        };
        if let Some(firmware) = &self.firmware {
            command.arg("-bios").arg(firmware);
        }
        // Before the disk, which may lie behind a port of theirs.
        command.args(&self.extra);
        if let Some(device) = &self.disk {
            command.args(disk::arguments(device, value(folder.file("disk"))));
        }
        if let Some(plugin) = &self.plugin {
            command.arg("-plugin").arg(plugin.option(&folder.file("socket")));
        }
        command.args(self.icount.iter().flat_map(Icount::arguments));
        command.env_remove("LD_PRELOAD").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts QEMU and waits until its machine is complete; the guest does not run yet.
    ///
    /// # Errors
    /// QEMU cannot be started or refuses; what it says, and a remedy where one is known.
    pub fn start(&self, folder: &RunFolder) -> anyhow::Result<Qemu> {
        if let Boot::Linux { .. } = self.boot {
            std::fs::write(folder.file("initrd"), linux::initrd()?).context("cannot write the first file system")?;
        }
        if let Boot::Efi(application) = &self.boot {
            let place = folder.file("efi").join("EFI/BOOT");
            std::fs::create_dir_all(&place)
                .and_then(|()| std::fs::copy(application, place.join("BOOTX64.EFI")))
                .context("cannot make the disk for the EFI application")?;
        }
        if self.disk.is_some() {
            disk::write(&folder.file("disk")).context("cannot write the disk")?;
        }
        Qemu::start(self.command(folder), folder).map_err(|not| match not {
            NotStarted::NoProgram(error) => {
                let what = format!("cannot start {}: {error}", self.qemu.display());
                Refusal::usage(what, "name a qemu-system-x86_64 with --qemu").into()
            }
            NotStarted::Ended { said, status } => self.why_it_ended(&said, status).into(),
            NotStarted::Unable(error) => error,
        })
    }

    /// What a QEMU that ended at its start means for the user.
    fn why_it_ended(&self, said: &str, status: Option<ExitStatus>) -> Refusal {
        let line = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing").trim().to_owned();
        let shown = self.qemu.display();
        let version = version(&self.qemu);
        let install = "install QEMU 9.2 to 11.x built with plugins (ci/setup does so on Debian 12 and 13), or name one with --qemu";
        if version.is_none() {
            return Refusal::usage(format!("{shown} is no QEMU"), "name a qemu-system-x86_64 with --qemu");
        }
        if said.contains("-plugin: invalid option") || said.contains("plugin interface not enabled") {
            return Refusal::machine(format!("{shown} is built without plugins"), install);
        }
        if version < Some((9, 2))
            || said.contains("plugin requires API version")
            || said.contains("minimum supported version")
        {
            let (major, minor) = version.unwrap_or_default();
            return Refusal::machine(
                format!("{shown} is version {major}.{minor}, which the plugin does not speak to"),
                install,
            );
        }
        if said.contains("cannot set up guest memory") || said.contains("Cannot allocate memory") {
            return Refusal::usage(
                format!("no {} of memory for the guest", mebibytes(self.memory)),
                "give a smaller --memory",
            );
        }
        if let Some(refused) = said.lines().find_map(|line| line.strip_prefix("mem-event: ")) {
            return Refusal::usage(refused, "see the plugin's arguments in the README");
        }
        if said.contains("userfaultfd") {
            return Refusal::machine(line, "run `mem-event doctor`");
        }
        let how = status.map_or_else(|| "it is silent".into(), |status| status.to_string());
        Refusal::usage(
            format!("QEMU did not start ({how}): {line}"),
            "check the arguments; `mem-event doctor` checks this machine",
        )
    }
}

impl PluginArguments {
    fn option(&self, socket: &Path) -> OsString {
        let switch = |on: bool| OsString::from(if on { "on" } else { "off" });
        let mut parts = vec![
            ("", value(&self.library)),
            ("socket=", value(socket)),
            ("gate=", self.gate.name().into()),
            ("spin=", self.spin.to_string().into()),
            ("checkpoints=", switch(self.checkpoints)),
            ("verify=", switch(self.verify)),
            ("guest=", value(&self.guest)),
            ("guest-hash=", value(&self.checksum)),
            ("scenario=", value(&self.scenario)),
        ];
        if !self.places.is_empty() {
            let places: Vec<String> = self.places.iter().map(|place| format!("{:#x}", place.0)).collect();
            parts.push(("places=", places.join(":").into()));
        }
        if let Some(trace) = &self.trace {
            parts.push(("trace=", value(trace)));
            parts.push(("contents=", switch(self.contents)));
            parts.push(("qemu=", value(&self.qemu)));
            parts.extend(self.facts.as_ref().map(|facts| ("facts=", value(facts))));
        }
        parts.extend(self.more.iter().map(|word| ("", value(word))));
        joined(&parts)
    }
}

/// The version that a program states with `--version`, if it is a QEMU: the first two numbers.
#[must_use]
pub fn version(qemu: &Path) -> Option<(u32, u32)> {
    let number = version_text(qemu)?;
    let mut parts = number.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// The same as it states it.
#[must_use]
pub fn version_text(qemu: &Path) -> Option<String> {
    let output = Command::new(qemu).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().next()?;
    Some(line.strip_prefix("QEMU emulator version ")?.to_owned())
}
