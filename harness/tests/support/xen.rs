//! Xen's own tools, where they are unpacked, and guests for them.

use super::{command, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::Scenario;
use mem_event::message::{Call, Notice, RingState};
use mem_event::{AccessType, CpuEventKind, Gfn, MonitorMode, VcpuId};
use mem_event_client::Client;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Xen's programs of one release.
pub struct Release {
    /// The program that was asked for.
    pub program: PathBuf,
    /// Where it was unpacked; `/` where it is installed.
    root: PathBuf,
}

/// Each release that has this program.
pub fn releases(program: &str) -> Vec<Release> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let suites = std::fs::read_dir(cache.unwrap_or_default().join("mem-event/xen")).into_iter().flatten().flatten();
    let mut roots: Vec<PathBuf> = suites.map(|suite| suite.path()).collect();
    roots.sort();
    roots.push("/".into());
    let of_root = |root: &PathBuf| {
        let folders = std::fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten();
        let named = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("xen-"));
        let programs = named.map(|entry| entry.path().join("bin").join(program)).filter(|path| path.is_file());
        programs.map(|program| Release { program, root: root.clone() }).collect::<Vec<_>>()
    };
    let found: Vec<Release> = roots.iter().flat_map(of_root).collect();
    if found.is_empty() {
        eprintln!("skipped: there is no {program} of Xen's; ci/setup --xen unpacks it");
    }
    found
}

impl Release {
    /// A program on the machine's own libraries.
    pub fn own(program: PathBuf) -> Release {
        Release { program, root: "/".into() }
    }

    /// A tool of this release that stands in the same folder.
    pub fn beside(&self, name: &str) -> Release {
        Release { program: self.program.with_file_name(name), root: self.root.clone() }
    }

    /// A tool of this release that stands beside the program's libraries, as `xenstore-write`.
    pub fn tool(&self, name: &str) -> Release {
        Release { program: self.root.join("usr/bin").join(name), root: self.root.clone() }
    }
}

/// Whether a domain tells of all events of a kind, and waits for their answers.
pub fn asks_for(kind: CpuEventKind) -> impl Fn(&mut Client) -> bool {
    move |domain| {
        domain.monitors().unwrap().iter().any(|monitor| monitor.kind == kind && monitor.mode == MonitorMode::Sync)
    }
}

/// A guest at its first checkpoint.
pub struct Domain {
    pub qemu: Qemu,
    pub folder: RunFolder,
    pub job: Job,
    pub toolstack: Client,
}

/// A tool that runs.
pub struct Tool {
    pub child: Child,
    pub output: PathBuf,
    pub errors: PathBuf,
}

impl Domain {
    pub fn start(guest: &str) -> Domain {
        Domain::start_with(guest, 1, &[])
    }

    /// The same, whose memory tools map.
    pub fn mapped(guest: &str, vcpus: u32) -> Domain {
        Domain::start_with(guest, vcpus, &["foreign=map"])
    }

    fn start_with(guest: &str, vcpus: u32, plugin: &[&str]) -> Domain {
        let mut scenario = Scenario::bare(guest);
        scenario.machine.vcpus = vcpus;
        // So that the gate is there; who listens comes by itself.
        scenario.consumers.listener.get_or_insert_default();
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = Gate::Callback;
        job.plugin.extend(plugin.iter().map(|argument| (*argument).to_owned()));
        let mut domain = Domain::of(job);
        domain.checkpoint();
        domain
    }

    /// The same before its first instruction has run; with a trace it is `trace` in the folder.
    pub fn of(mut job: Job) -> Domain {
        let folder = RunFolder::create().unwrap();
        job.trace = job.trace.map(|name| folder.file(&name.to_string_lossy()));
        let mut qemu = job.machine().unwrap().start(&folder).unwrap();
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        qemu.qmp.execute("cont").unwrap();
        Domain { qemu, folder, job, toolstack }
    }

    /// The number of the next checkpoint, where the vCPU stands then.
    pub fn checkpoint(&mut self) -> u64 {
        loop {
            match self.toolstack.notice().unwrap() {
                Some(Notice::Checkpoint { number, .. }) => return number,
                _ if self.toolstack.has_ended() => panic!("the guest has ended: {}", self.qemu.console()),
                _ => wait_for("a checkpoint", &self.toolstack),
            }
        }
    }

    pub fn release(&mut self) {
        self.toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    }

    /// Goes on to a checkpoint.
    pub fn run_to(&mut self, wanted: u64) {
        loop {
            self.release();
            if self.checkpoint() == wanted {
                return;
            }
        }
    }

    pub fn tool(&self, name: &str, release: &Release, arguments: &[&str]) -> Tool {
        self.tool_with(name, release, &[], arguments)
    }

    /// A tool with options of `mem-event xen`. Its output is appended to that of one before it of the same name.
    pub fn tool_with(&self, name: &str, release: &Release, options: &[&str], arguments: &[&str]) -> Tool {
        let (output, errors) = (self.folder.file(&format!("{name}.out")), self.folder.file(&format!("{name}.err")));
        let mut command = command(&self.folder);
        command.args(["xen", "--domain", &format!("1={},guest", self.folder.file("socket").display())]);
        command.args(options).arg("--").arg(&release.program).args(arguments);
        // Where LibVMI looks for its settings.
        command.current_dir(self.folder.file(""));
        let file = |path: &Path| File::options().create(true).append(true).open(path).unwrap();
        command.stdout(file(&output)).stderr(file(&errors));
        Tool { child: command.spawn().unwrap(), output, errors }
    }

    /// What a tool says that ends at once, and in order.
    pub fn ask(&self, release: &Release, arguments: &[&str]) -> String {
        let name = release.program.file_name().unwrap().to_string_lossy().into_owned();
        for ending in ["out", "err"] {
            // Of the time before.
            let _ = std::fs::remove_file(self.folder.file(&format!("{name}.{ending}")));
        }
        let (status, text) = self.tool(&name, release, arguments).ended();
        assert_eq!(status.code(), Some(0), "{name} {arguments:?}: {text}");
        text
    }

    /// Waits until something is so of the domain; only a hang fails, or a tool that has ended.
    pub fn until(&mut self, tool: &mut Tool, mut is_so: impl FnMut(&mut Client) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_so(&mut self.toolstack) {
            assert!(tool.child.try_wait().unwrap().is_none(), "the tool has ended: {}", tool.text());
            assert!(Instant::now() < end, "the tool does not come so far: {}", tool.text());
            std::thread::yield_now();
        }
    }

    /// Frames that a tool sets rights of: the last one it leaves out.
    pub fn last_frame(&mut self) -> Gfn {
        Gfn(self.toolstack.types().unwrap().len() as u64 - 2)
    }

    /// Every frame is the guest's, and nobody has a ring.
    pub fn is_left_alone(&mut self) {
        let frames = self.toolstack.types().unwrap().len() as u64;
        for gfn in 0..frames {
            assert_eq!(self.toolstack.access(Gfn(gfn)).unwrap(), AccessType::Rwx, "frame {gfn:#x}");
        }
        let rings = self.toolstack.rings().unwrap();
        assert!(rings.iter().all(|ring| ring.state == RingState::Absent), "{rings:?}");
        let monitors = self.toolstack.monitors().unwrap();
        assert!(monitors.iter().all(|monitor| monitor.mode == MonitorMode::Disabled), "{monitors:?}");
    }

    /// The guest goes on to a good end; its console.
    pub fn ends_well(mut self) -> String {
        self.release();
        self.goes_to_its_end()
    }

    /// The same of one that stands at no checkpoint.
    pub fn goes_to_its_end(mut self) -> String {
        while !self.toolstack.has_ended() {
            match self.toolstack.notice() {
                Ok(Some(Notice::Checkpoint { vcpu, .. })) => {
                    // The guest may end before it replies.
                    let _ = self.toolstack.values(&Call::Release { vcpu });
                }
                Ok(_) if !self.toolstack.has_ended() => wait_for("the guest's end", &self.toolstack),
                _ => break,
            }
        }
        self.qemu.wait().unwrap();
        let console = self.qemu.console();
        assert!(console.contains("verdict: success"), "{console}\n{}", self.qemu.errors());
        console
    }
}

impl Tool {
    pub fn text(&self) -> String {
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        read(&self.output) + &read(&self.errors)
    }

    /// Its end; a hang is the only failure.
    pub fn ended(mut self) -> (ExitStatus, String) {
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        wait_for("the tool's end", &pidfd);
        let status = self.child.wait().unwrap();
        (status, self.text())
    }

    /// As a person ends it; it says then that this is how it ends.
    pub fn interrupted(self, due: i32) -> String {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let (status, text) = self.ended();
        assert_eq!(status.code(), Some(due & 0xff), "{text}");
        assert!(text.contains(&format!("xenaccess exit code {due}")), "{text}");
        assert!(!text.contains("mem-event xen:"), "a call is missing: {text}");
        text
    }
}
