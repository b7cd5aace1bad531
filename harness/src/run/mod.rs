//! A whole run: boot, serve, end, verdict.

pub mod attach;
pub mod facts;
pub mod gate;
pub mod report;
pub mod serve;
pub mod signals;

use self::gate::against_mmu;
use self::serve::{Ended, IN_ORDER};
use self::signals::Signals;
use crate::consumers::Consumers;
use crate::consumers::pager::Figures;
use crate::guest::symbols::Symbols;
use crate::guest::{self, Guest};
use crate::machine::folder::RunFolder;
use crate::machine::process::{Qemu, ended_by_signal};
use crate::machine::qemu::{Boot, Gate, Machine, PluginArguments, plugin_library, version_text};
use crate::machine::resident::Sampler;
use crate::poll;
use crate::refusal::Refusal;
use crate::scenario::{self, Scenario};
use crate::toolstack::log::{Counts, Log, Observer};
use crate::toolstack::transcript::Record;
use crate::verdict::{Kind, Verdict};
use anyhow::Context;
use mem_event::spin::Spin;
use mem_event_client::socket::Lost;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a QEMU may take from closing its descriptors to its end.
const GRACE: Duration = Duration::from_secs(10);

/// How long after its descriptors a QEMU that died ends.
const MOMENT: Duration = Duration::from_millis(200);

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
    /// What stops accesses, where the scenario traps any.
    pub gate: Gate,
    /// Whether what is predicted is compared with what QEMU reports; the counts are in what QEMU said at the end.
    pub verify: bool,
    /// Further arguments for the plugin, each NAME=VALUE.
    pub plugin: Vec<String>,
    /// How long stopped vCPUs and consumers poll before they sleep.
    pub spin: Spin,
    /// Further arguments for QEMU.
    pub extra: Vec<OsString>,
    /// Whether the Linux guest does its work; else it boots and powers off.
    pub linux_works: bool,
}

/// How it went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// The sequence.
    pub records: Vec<Record>,
    /// The events, counted.
    pub counts: Counts,
    /// What the pager did.
    pub paged: Figures,
    /// The largest resident memory in bytes after the first trim, and the number of samples; with a target only.
    pub resident: Option<(u64, u64)>,
    /// Who waited for what when the deadline passed.
    pub sleepers: Vec<String>,
    /// What else is to be said of the consumers.
    pub notes: Vec<String>,
    /// What the guest wrote on its serial port.
    pub console: String,
    /// What QEMU and the plugin wrote on the error output.
    pub said: String,
    /// From QEMU's start to its end.
    pub took: Duration,
}

impl Job {
    /// A job for a scenario with the guest that it names, and the QEMU in the path.
    ///
    /// # Errors
    /// The guest or QEMU cannot be found, or a range of the scenario is not in the guest.
    pub fn new(scenario: Scenario, qemu: Option<&Path>) -> Result<Job, Refusal> {
        let named = scenario.machine.guest.as_str();
        let guest = if named == "linux" { None } else { Some(Guest::find_from(named, scenario.folder.as_deref())?) };
        let symbols = guest.as_ref().map(|guest| &guest.symbols);
        scenario.check(symbols.unwrap_or(&Symbols::default()))?;
        Ok(Job {
            scenario,
            guest,
            qemu: crate::machine::qemu::find(qemu)?,
            trace: None,
            gate: Gate::default(),
            verify: false,
            plugin: Vec::new(),
            spin: Spin::default(),
            extra: Vec::new(),
            linux_works: true,
        })
    }

    /// The symbols of its guest.
    #[must_use]
    pub fn symbols(&self) -> Symbols {
        self.guest.as_ref().map(|guest| guest.symbols.clone()).unwrap_or_default()
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
                Boot::Linux { kernel: crate::guest::linux::kernel()?, append, work: self.linux_works }
            }
        };
        let firmware = self.scenario.machine.firmware.as_deref().map(|name| firmware(&self.path(name))).transpose()?;
        let scenario::Machine { memory, vcpus, icount, cpu, disk, args, .. } = &self.scenario.machine;
        let cpu = cpu.iter().flat_map(|model| ["-cpu".into(), model.into()]);
        let extra = cpu.chain(args.iter().map(OsString::from)).chain(self.extra.iter().cloned()).collect();
        let (memory, vcpus, icount, disk) = (memory.0, *vcpus, icount.clone(), disk.clone());
        Ok(Machine { qemu: self.qemu.clone(), memory, vcpus, icount, boot, firmware, disk, plugin: None, extra })
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

    /// A path of the scenario, which is meant from its folder.
    fn path(&self, name: &str) -> PathBuf {
        self.scenario
            .folder
            .as_ref()
            .filter(|_| name.contains('/'))
            .map_or_else(|| name.into(), |folder| folder.join(name))
    }

    /// Whether the guest is made for this program: checkpoints, an exit port.
    fn is_ours(&self) -> bool {
        self.guest.as_ref().is_some_and(|guest| guest.kind == guest::kind::Kind::Elf)
    }

    /// The machine that it needs.
    ///
    /// # Errors
    /// The plugin's library or the kernel is missing.
    pub fn machine(&self) -> Result<Machine, Refusal> {
        let plugin = PluginArguments {
            library: plugin_library()?,
            gate: self.gate_to_take().0,
            spin: self.spin,
            checkpoints: self.is_ours(),
            places: self.scenario.places(&self.symbols())?,
            verify: self.verify,
            trace: self.trace.clone(),
            guest: self.guest.as_ref().map_or_else(|| "linux".into(), |guest| guest.name.clone()),
            checksum: self.guest.as_ref().map(|guest| format!("{:08x}", guest.checksum)).unwrap_or_default(),
            scenario: self.scenario.name.clone(),
            qemu: self.trace.as_ref().and_then(|_| version_text(&self.qemu)).unwrap_or_default(),
            facts: None,
            more: self.plugin.clone(),
        };
        Ok(Machine { plugin: Some(plugin), ..self.machine_without_plugin()? })
    }

    /// What the plugin is told to stop accesses with, and why where `auto` is settled here: what consumers will want is known here,
    /// what the kernel offers is known to the plugin.
    fn gate_to_take(&self) -> (Gate, Option<&'static str>) {
        if !self.scenario.needs_gate() && !self.verify {
            return (Gate::None, Some("no consumer watches accesses"));
        }
        match self.gate {
            Gate::Auto => against_mmu(&self.scenario).map_or((Gate::Auto, None), |why| (Gate::Callback, Some(why))),
            named => (named, None),
        }
    }

    /// What became of `auto`, for the summary.
    fn notes_on_the_gate(&self, said: &str) -> Vec<String> {
        match self.gate_to_take() {
            _ if self.gate != Gate::Auto => Vec::new(),
            (gate, Some(why)) => vec![format!("gate=auto takes gate={gate}: {why}")],
            (_, None) => said
                .lines()
                .filter_map(|line| line.strip_prefix("mem-event: "))
                .filter(|line| line.starts_with("gate=auto "))
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// What a user can put right, as a [`Refusal`]; anything else that kept the run from having a verdict.
    pub fn run(&self, observer: &mut dyn Observer, signals: Option<&Signals>) -> anyhow::Result<Outcome> {
        let trace = TraceFile::open(self.trace.as_deref())?;
        let begun = Instant::now();
        let folder = RunFolder::create()?;
        let mut machine = self.machine()?;
        if let (Some(plugin), Some(_)) = (&mut machine.plugin, &self.trace) {
            plugin.facts = Some(facts::write(&self.scenario, self.guest.as_ref(), &self.symbols(), &folder)?);
        }
        let mut qemu = machine.start(&folder)?;
        let symbols = self.symbols();
        let mut log = Log::new(&symbols, observer);
        let mut attended = Attended { job: self, resident: None, paged: Figures::default(), sleepers: Vec::new() };
        let verdict = match attended.serve(&folder.file("socket"), &mut qemu, &mut log, signals, begun) {
            Ok(verdict) => verdict,
            Err(error) if Refusal::of(&error).is_some() => return Err(error),
            Err(error) if is_the_end(&error, &qemu)? => attended.of_the_guest(&mut qemu)?,
            Err(error) => Verdict::new(Kind::Error, format!("{error:#}{}", last_words(&qemu))),
        };
        trace.keep();
        let Attended { resident, paged, sleepers, .. } = attended;
        let verdict = log
            .failures
            .iter()
            .fold(verdict, |verdict, failure| verdict.worst(Verdict::new(Kind::Failure, failure.clone())));
        let (console, said) = (qemu.console(), qemu.errors());
        let (records, counts, mut notes) = (log.records, log.counts, log.notes);
        notes.extend(self.notes_on_the_gate(&said));
        Ok(Outcome { verdict, records, counts, paged, resident, sleepers, notes, console, said, took: begun.elapsed() })
    }
}

/// A run from its first control operation on, with what is known of it when it ends in an error.
struct Attended<'a> {
    job: &'a Job,
    resident: Option<(u64, u64)>,
    paged: Figures,
    sleepers: Vec<String>,
}

impl Attended<'_> {
    fn serve(
        &mut self,
        socket: &Path,
        qemu: &mut Qemu,
        log: &mut Log<'_>,
        signals: Option<&Signals>,
        begun: Instant,
    ) -> anyhow::Result<Verdict> {
        let scenario = &self.job.scenario;
        let guest = self.job.guest.as_ref().map(|guest| guest.path.as_path());
        let mut consumers = Consumers::enable(socket, scenario, guest, log)?;
        consumers.spin = self.job.spin;
        let sampler = scenario.target().map(|_| Sampler::start(qemu.pid())).transpose()?;
        consumers.in_process.hold_to_target()?;
        if let Some(sampler) = &sampler {
            sampler.restart();
        }
        let deadline = begun + scenario.deadline.0;
        let served = qemu
            .qmp
            .execute("cont")
            .and_then(|_| serve::serve(&mut consumers, scenario, log, Some(&mut *qemu), signals, deadline));
        if served.is_err() {
            // A domain that crashed and took QEMU with it said why before.
            let _ = consumers.hear(scenario, log);
        }
        let ended = match served {
            Err(_) if log.crash.is_some() => Ok(Ended::Crashed),
            Err(error) if is_the_end(&error, qemu)? => Ok(Ended::Gone),
            other => other,
        };
        self.paged = consumers.in_process.paged();
        self.resident = sampler.map(|sampler| sampler.largest());
        let verdict = match ended? {
            Ended::Gone => self.of_the_guest(qemu)?,
            Ended::Fault(why) => {
                self.sleepers = consumers.sleepers(&self.job.symbols()).unwrap_or_default();
                Verdict::new(Kind::Failure, why)
            }
            Ended::Crashed => Verdict::new(Kind::Crash, log.crash.clone().unwrap_or_default()),
            Ended::Signal => {
                // Who waits is answered until QEMU has ended: a vCPU that stands in the kernel would keep it from that.
                qemu.terminate();
                let until = Instant::now() + IN_ORDER;
                let _ = serve::serve(&mut consumers, scenario, log, Some(&mut *qemu), None, until);
                Verdict::new(Kind::Error, "interrupted by a signal")
            }
            Ended::Held => {
                self.sleepers = consumers.sleepers(&self.job.symbols()).unwrap_or_default();
                consumers.end_trace();
                qemu.kill();
                self.of_its_end(qemu, None)?
            }
            Ended::Deadline => self.of_the_deadline(&mut consumers, qemu),
        };
        qemu.end(IN_ORDER);
        log.failures.extend(consumers.finish()?);
        let missed = consumers.not_reached(scenario);
        Ok(match missed.first() {
            Some(at) => verdict.worst(Verdict::new(Kind::Error, format!("{at} was never reached"))),
            None => verdict,
        })
    }

    fn of_the_deadline(&mut self, consumers: &mut Consumers, qemu: &mut Qemu) -> Verdict {
        let limit = self.job.scenario.deadline.0;
        self.sleepers = consumers
            .sleepers(&self.job.symbols())
            .unwrap_or_else(|error| vec![format!("the plugin does not tell: {error:#}")]);
        // Who waits in the kernel keeps QEMU from its own end.
        consumers.end_trace();
        let who = match self.sleepers.as_slice() {
            [] if qemu.qmp.hear().is_ok() && qemu.qmp.is_asleep() => "the guest sleeps (S3)".into(),
            [] => "no vCPU sleeps".into(),
            sleepers => sleepers.join("; "),
        };
        Verdict::new(Kind::Failure, format!("the deadline of {limit:?} passed; {who}"))
    }

    fn of_the_guest(&self, qemu: &mut Qemu) -> anyhow::Result<Verdict> {
        let status = qemu.wait()?;
        if let Some(signal) = ended_by_signal(status) {
            return Ok(Verdict::new(Kind::Crash, format!("QEMU died of {signal}{}", last_words(qemu))));
        }
        self.of_its_end(qemu, Some(status.code().unwrap_or(-1)))
    }

    /// With QEMU's exit status; with none for one that had to be killed on its way to its end.
    fn of_its_end(&self, qemu: &mut Qemu, status: Option<i32>) -> anyhow::Result<Verdict> {
        let console = qemu.console();
        if let Some(panic) = console.lines().find(|line| line.contains("Kernel panic")) {
            return Ok(Verdict::new(Kind::Crash, panic.trim()));
        }
        let said = Verdict::on_console(&console);
        qemu.qmp.hear()?;
        let shutdown = qemu.qmp.shutdown().filter(|_| said.is_none());
        if shutdown == Some("guest-reset") {
            return Ok(Verdict::new(Kind::Crash, "the guest reset itself (a triple fault?)"));
        }
        if self.job.guest.is_some() && !self.job.is_ours() && shutdown == Some("guest-shutdown") {
            // It has never heard of verdicts: that it came to its own end is what it can say.
            return Ok(Verdict::new(Kind::Success, "the guest powered off"));
        }
        let how = status.map_or_else(
            || "QEMU could not end: a vCPU or a device waits".to_owned(),
            |status| format!("QEMU's exit status is {status}"),
        );
        let last = last_words(qemu);
        Ok(match said {
            Some(said) if self.job.is_ours() && status != Some(exit_status(said.kind)) => {
                Verdict::new(Kind::Error, format!("the guest says {said}, but {how}{last}"))
            }
            Some(said) => said,
            None => Verdict::new(Kind::Error, format!("no verdict from the guest ({how}){last}")),
        })
    }
}

/// What QEMU's exit status is after a guest wrote its verdict (0x10 and our exit code) to the exit port.
fn exit_status(kind: Kind) -> i32 {
    (0x10 + i32::from(kind.exit_code())) << 1 | 1
}

fn last_words(qemu: &Qemu) -> String {
    let errors = qemu.errors();
    errors
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .map(|line| format!(": {}", line.trim()))
        .unwrap_or_default()
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

/// Whether the error is that QEMU has ended, which a connection notices first, or a consumer that says no more than that it cannot go
/// on. Waits for the end.
fn is_the_end(error: &anyhow::Error, qemu: &Qemu) -> anyhow::Result<bool> {
    let grace = if error.is::<Lost>() { GRACE } else { MOMENT };
    poll::readable(qemu, Instant::now() + grace)
}

/// The trace's file: made before anything starts, so that an unwritable path is refused; removed if nothing started.
struct TraceFile {
    made: Option<PathBuf>,
}

impl TraceFile {
    fn open(path: Option<&Path>) -> anyhow::Result<TraceFile> {
        let Some(path) = path else { return Ok(TraceFile { made: None }) };
        let existed = path.exists();
        let refuse = |error: std::io::Error| {
            Refusal::usage(
                format!("cannot write the trace {}: {error}", path.display()),
                "name a file that can be written",
            )
        };
        std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(refuse)?;
        Ok(TraceFile { made: (!existed).then(|| path.to_owned()) })
    }

    fn keep(mut self) {
        self.made = None;
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        if let Some(path) = self.made.take() {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Boots a job's guest without the plugin, for measuring what the plugin costs; how long it took and the console.
///
/// # Errors
/// QEMU cannot be started, or the guest does not end before the deadline.
pub fn run_machine(machine: &Machine, deadline: Duration) -> anyhow::Result<(Duration, String)> {
    let begun = Instant::now();
    let folder = RunFolder::create()?;
    let mut qemu = machine.start(&folder)?;
    qemu.qmp.execute("cont")?;
    if serve::wait_for_end(&qemu, begun + deadline)? != Ended::Gone {
        anyhow::bail!("the guest did not end within {deadline:?}");
    }
    qemu.wait().context("cannot wait for QEMU")?;
    Ok((begun.elapsed(), qemu.console()))
}
