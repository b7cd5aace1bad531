//! What is to be run: a scenario, its guest, and the machine that they need.

use crate::guest::kernel::Kernel;
use crate::guest::linear::Linear;
use crate::guest::symbols::Symbols;
use crate::guest::{self, Guest, linux};
use crate::machine::qemu::{self, Boot, Gate, Machine, PluginArguments, plugin_library, version_text};
use crate::machine::saved::Saved;
use crate::refusal::Refusal;
use crate::scenario::{self, Contents, Scenario};
use crate::toolstack::faults;
use mem_event::Gpa;
use mem_event::spin::Spin;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Job {
    /// The scenario.
    pub scenario: Scenario,
    /// The guest's image; none for Linux.
    pub guest: Option<Guest>,
    /// The QEMU.
    pub qemu: PathBuf,
    /// Where the trace goes.
    pub trace: Option<PathBuf>,
    /// Whether the pager must bring back what a frame held, where it is not as the scenario says.
    pub contents: Option<Contents>,
    /// What stops accesses, where the scenario traps any.
    pub gate: Gate,
    /// Whether what is predicted is compared with what QEMU reports; the counts are in what QEMU said at the end.
    pub verify: bool,
    /// Bytes that the record of the run may have; 1 GiB where nobody says.
    pub trace_limit: Option<u64>,
    /// Whether the record keeps what consumers read of frames, and not digests alone.
    pub record_reads: bool,
    /// Further arguments for the plugin, each NAME=VALUE.
    pub plugin: Vec<String>,
    /// The saved machine that it starts from, if it does not boot.
    pub from: Option<Saved>,
    /// How long stopped vCPUs and consumers poll before they sleep.
    pub spin: Spin,
    /// Further arguments for QEMU.
    pub extra: Vec<OsString>,
    /// Whether the Linux guest does its work; else it boots and powers off.
    pub linux_works: bool,
    /// Names for addresses.
    names: Symbols,
}

impl Job {
    /// A job for a scenario with the guest that it names, and the QEMU in the path.
    ///
    /// # Errors
    /// The guest or QEMU cannot be found, or a range of the scenario is not in the guest.
    pub fn new(scenario: Scenario, qemu: Option<&Path>) -> Result<Job, Refusal> {
        let named = scenario.machine.guest.as_str();
        let guest = if named == "linux" { None } else { Some(Guest::find_from(named, scenario.folder.as_deref())?) };
        let names = guest.as_ref().map(|guest| guest.symbols.clone()).unwrap_or_default();
        let names = if scenario.wants_kernel() { names.with(kernel(&scenario, guest.as_ref())?) } else { names };
        scenario.check(&names)?;
        Ok(Job {
            from: scenario.machine.from.as_deref().map(Saved::wanted).transpose()?,
            scenario,
            guest,
            qemu: qemu::find(qemu)?,
            trace: None,
            contents: None,
            gate: Gate::default(),
            verify: false,
            trace_limit: None,
            record_reads: false,
            plugin: Vec::new(),
            spin: Spin::default(),
            extra: Vec::new(),
            linux_works: true,
            names,
        })
    }

    /// Pages that are touched count from the guest's entry on, where it is known, and no longer from the firmware's.
    pub fn count_touches_from_the_entry(&mut self) {
        let entry = self.guest.as_ref().map_or(Some(Gpa(linux::ENTRY)), |guest| guest.entry);
        let listener = self.scenario.consumers.listener.iter_mut();
        listener.filter_map(|listener| listener.touches.as_mut()).for_each(|touches| touches.entry = entry);
    }

    /// The symbols of its guest.
    #[must_use]
    pub fn symbols(&self) -> Symbols {
        self.names.clone()
    }

    /// The machine that it needs, without the plugin.
    ///
    /// # Errors
    /// The kernel is missing.
    pub fn machine_without_plugin(&self) -> Result<Machine, Refusal> {
        let boot = match &self.guest {
            Some(guest) => self.boot_of(guest)?,
            None => {
                let append = self.scenario.machine.append.clone();
                Boot::Linux { kernel: linux::kernel()?, append, work: self.linux_works }
            }
        };
        let firmware = self.scenario.machine.firmware.as_deref().map(|name| firmware(&self.path(name))).transpose()?;
        let scenario::Machine { memory, vcpus, icount, thread, cpu, disk, args, .. } = &self.scenario.machine;
        let cpu = cpu.iter().flat_map(|model| ["-cpu".into(), model.into()]);
        let extra = cpu.chain(args.iter().map(OsString::from)).chain(self.extra.iter().cloned()).collect();
        let (memory, vcpus, icount, disk) = (memory.0, *vcpus, *icount, disk.clone());
        Ok(Machine {
            qemu: self.qemu.clone(),
            memory,
            vcpus,
            icount,
            thread: *thread,
            boot,
            firmware,
            disk,
            plugin: None,
            extra,
        })
    }

    fn boot_of(&self, guest: &Guest) -> Result<Boot, Refusal> {
        let machine = &self.scenario.machine;
        let path = guest.path.clone();
        Ok(match guest.kind {
            guest::kind::Kind::Elf | guest::kind::Kind::Multiboot => Boot::Elf(path),
            guest::kind::Kind::BzImage => {
                let initrd = machine.initrd.as_deref().map(|name| self.path(name));
                Boot::BzImage { kernel: path, initrd, append: machine.append.clone() }
            }
            guest::kind::Kind::Efi if machine.firmware.is_none() => {
                let what = format!("{} is an EFI application, and the machine's firmware is none for EFI", guest.name);
                return Err(Refusal::usage(what, "name one: firmware = \"ovmf\" in the scenario's machine"));
            }
            guest::kind::Kind::Efi => Boot::Efi(path),
            guest::kind::Kind::Disk(format) => Boot::Disk { image: path, format },
        })
    }

    /// See [`Scenario::path`].
    fn path(&self, name: &str) -> PathBuf {
        self.scenario.path(name)
    }

    /// Whether the pager must bring back what a frame held.
    pub fn checks_contents(&self) -> bool {
        self.contents.unwrap_or(self.scenario.contents) == Contents::Check
    }

    /// Whether the guest is made for this program: checkpoints, an exit port.
    pub fn is_ours(&self) -> bool {
        self.guest.as_ref().is_some_and(|guest| guest.kind == guest::kind::Kind::Elf)
    }

    /// The machine that it needs.
    ///
    /// # Errors
    /// The plugin's library or the kernel is missing.
    pub fn machine(&self) -> Result<Machine, Refusal> {
        let plugin = PluginArguments {
            library: plugin_library()?,
            gate: self.gate_to_take(),
            spin: self.spin,
            checkpoints: self.is_ours(),
            places: self.scenario.places(&self.symbols())?,
            verify: self.verify,
            trace: self.trace.clone(),
            contents: self.checks_contents(),
            guest: self.guest.as_ref().map_or_else(|| "linux".into(), |guest| guest.name.clone()),
            checksum: self.guest.as_ref().map(|guest| format!("{:08x}", guest.checksum)).unwrap_or_default(),
            scenario: self.scenario.name.clone(),
            qemu: self.trace.as_ref().and_then(|_| version_text(&self.qemu)).unwrap_or_default(),
            facts: None,
            more: self.arguments(),
        };
        Ok(Machine { plugin: Some(plugin), ..self.machine_without_plugin()? })
    }

    /// The faults that the plugin made to consumers, if any were asked for, for the summary.
    pub fn notes_on_faults(&self, said: &str) -> Option<String> {
        const BEGIN: &str = "fault: ";
        let faults = lines_of_the_plugin(said, BEGIN).map(|line| line[BEGIN.len()..].to_owned());
        let chaos = &self.scenario.chaos;
        (!chaos.plan().is_none()).then(|| faults::counted(faults, chaos.seed))
    }

    /// Further arguments of the plugin: the scenario's faults, what is told of the record, and the user's.
    fn arguments(&self) -> Vec<String> {
        let plan = self.scenario.chaos.plan();
        let faults = (!plan.is_none()).then(|| format!("chaos={plan}"));
        let limit = self.trace_limit.map(|bytes| format!("trace-limit={bytes}"));
        let reads = self.record_reads.then(|| "record-reads=on".to_owned());
        // Xen's tools map what they read.
        let maps = (!self.scenario.consumers.xen.is_empty()).then(|| "foreign=map".to_owned());
        faults.into_iter().chain(limit).chain(reads).chain(maps).chain(self.plugin.iter().cloned()).collect()
    }

    /// What the plugin is told to stop accesses with: nothing where no consumer watches them.
    fn gate_to_take(&self) -> Gate {
        if self.scenario.needs_gate() || self.verify { self.gate } else { Gate::None }
    }

    /// What became of `auto`, for the summary.
    pub fn notes_on_the_gate(&self, said: &str) -> Vec<String> {
        match self.gate_to_take() {
            _ if self.gate != Gate::Auto => Vec::new(),
            Gate::None => vec!["gate=auto takes gate=none: no consumer watches accesses".to_owned()],
            _ => lines_of_the_plugin(said, "gate=auto ").collect(),
        }
    }
}

/// The kernel that a scenario's guest runs: of the file that it names, else of the image that is booted.
fn kernel(scenario: &Scenario, guest: Option<&Guest>) -> Result<Linear, Refusal> {
    let path = match (scenario.machine.symbols.as_deref(), guest) {
        (Some("guest"), _) => return Ok(Linear::wanted(None)),
        (Some(named), _) => scenario.path(named),
        (None, None) => linux::kernel()?,
        (None, Some(guest)) if guest.kind == guest::kind::Kind::BzImage => guest.path.clone(),
        (None, Some(_)) => return Ok(Linear::wanted(None)),
    };
    Kernel::open(&path).map(|kernel| Linear::wanted(Some(kernel)))
}

/// What passes unseen, where the plugin said so: it watches without userfaultfd.
#[must_use]
pub fn not_seen(said: &str) -> Option<String> {
    lines_of_the_plugin(said, "watching without ").next()
}

/// What the plugin said, of one kind.
pub fn lines_of_the_plugin<'a>(said: &'a str, kind: &'a str) -> impl Iterator<Item = String> + 'a {
    said.lines()
        .filter_map(|line| line.strip_prefix("mem-event: "))
        .filter(move |line| line.starts_with(kind))
        .map(str::to_owned)
}

/// The firmware's file. `ovmf` is where Debian's package puts it.
fn firmware(name: &Path) -> Result<PathBuf, Refusal> {
    let (path, remedy) = if name == Path::new("ovmf") {
        (Path::new("/usr/share/ovmf/OVMF.fd"), "install the package ovmf")
    } else {
        (name, "name a file that QEMU takes as -bios")
    };
    let what = || Refusal::machine(format!("no firmware at {}", path.display()), remedy);
    path.is_file().then(|| path.to_owned()).ok_or_else(what)
}
