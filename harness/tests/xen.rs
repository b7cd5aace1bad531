//! Xen's own tools, as Debian packages them, against guests: nothing of the tools is changed. They are skipped where they are out of
//! reach (`ci/setup --xen` unpacks them into the cache, and installs nothing).

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::Scenario;
use mem_event::message::{Call, Notice, RingState};
use mem_event::{AccessType, CpuEventKind, Gfn, MonitorMode, VcpuId};
use mem_event_client::Client;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};
use support::{command, machine_under, wait_for};

/// The program of each release that is there, and the folder of the libraries that were unpacked with it.
fn releases(program: &str) -> Vec<(PathBuf, Option<PathBuf>)> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let unpacked = cache.unwrap_or_default().join("mem-event/xen");
    let found: Vec<_> = [unpacked, PathBuf::from("/")]
        .iter()
        .flat_map(|root| {
            let folders = std::fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten();
            let named = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with("xen-"));
            let programs = named.map(|entry| entry.path().join("bin").join(program)).filter(|path| path.is_file());
            let libraries = Some(root.join("usr/lib/x86_64-linux-gnu")).filter(|_| root != Path::new("/"));
            programs.map(|path| (path, libraries.clone())).collect::<Vec<_>>()
        })
        .collect();
    if found.is_empty() {
        eprintln!("skipped: there is no {program} of Xen's; ci/setup --xen unpacks it");
    }
    found
}

/// A guest at its first checkpoint.
struct Domain {
    qemu: Qemu,
    folder: RunFolder,
    job: Job,
    toolstack: Client,
}

/// A tool that runs.
struct Tool {
    child: Child,
    output: PathBuf,
    errors: PathBuf,
}

impl Domain {
    fn start(guest: &str) -> Domain {
        let mut scenario = Scenario::bare(guest);
        // So that the gate is there; who listens comes by itself.
        scenario.consumers.listener.get_or_insert_default();
        let (mut qemu, folder, job) = machine_under(Gate::Callback, scenario);
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        qemu.qmp.execute("cont").unwrap();
        let mut domain = Domain { qemu, folder, job, toolstack };
        domain.checkpoint();
        domain
    }

    /// The number of the next checkpoint, where the vCPU stands then.
    fn checkpoint(&mut self) -> u64 {
        loop {
            match self.toolstack.notice().unwrap() {
                Some(Notice::Checkpoint { number, .. }) => return number,
                _ => wait_for("a checkpoint", &self.toolstack),
            }
        }
    }

    fn release(&mut self) {
        self.toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    }

    /// Goes on to a checkpoint.
    fn run_to(&mut self, wanted: u64) {
        loop {
            self.release();
            if self.checkpoint() == wanted {
                return;
            }
        }
    }

    fn tool(&self, name: &str, release: &(PathBuf, Option<PathBuf>), arguments: &[&str]) -> Tool {
        let (output, errors) = (self.folder.file(&format!("{name}.out")), self.folder.file(&format!("{name}.err")));
        let mut command = command(&self.folder);
        command.args(["xen", "--domain", &format!("1={}", self.folder.file("socket").display()), "--"]);
        command.arg(&release.0).args(arguments);
        if let Some(libraries) = &release.1 {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.stdout(File::create(&output).unwrap()).stderr(File::create(&errors).unwrap());
        Tool { child: command.spawn().unwrap(), output, errors }
    }

    /// Waits until something is so of the domain; only a hang fails, or a tool that has ended.
    fn until(&mut self, tool: &mut Tool, mut is_so: impl FnMut(&mut Client) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_so(&mut self.toolstack) {
            assert!(tool.child.try_wait().unwrap().is_none(), "the tool has ended: {}", tool.text());
            assert!(Instant::now() < end, "the tool does not come so far: {}", tool.text());
            std::thread::yield_now();
        }
    }

    /// Frames that a tool sets rights of: the last one it leaves out.
    fn last_frame(&mut self) -> Gfn {
        Gfn(self.toolstack.types().unwrap().len() as u64 - 2)
    }

    /// Every frame is the guest's, and nobody has a ring.
    fn is_left_alone(&mut self) {
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
    fn ends_well(mut self) -> String {
        self.toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
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
    fn text(&self) -> String {
        let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        read(&self.output) + &read(&self.errors)
    }

    /// Its end; a hang is the only failure.
    fn ended(mut self) -> (ExitStatus, String) {
        let pidfd = rustix::process::pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).unwrap();
        wait_for("the tool's end", &pidfd);
        let status = self.child.wait().unwrap();
        (status, self.text())
    }

    /// As a person ends it.
    fn interrupted(self) -> String {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let (status, text) = self.ended();
        assert_eq!(status.code(), Some(0), "{text}");
        assert!(text.contains("xenaccess exit code 0"), "{text}");
        assert!(!text.contains("mem-event xen:"), "a call is missing: {text}");
        text
    }
}

/// The lines of accesses that stopped, each with the kind of access and the frame.
fn accesses(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("PAGE ACCESS: "));
    lines
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[0].to_owned(), words[3].to_owned())
        })
        .collect()
}

/// Watches all of a guest's memory in one mode, over what the guest does between two checkpoints.
fn watches(mode: &str, closed: AccessType, kinds: &[&str], symbol: Option<&str>) {
    for release in releases("xen-access") {
        let mut domain = Domain::start("read_write");
        let last = domain.last_frame();
        let mut tool = domain.tool("xen-access", &release, &["1", mode]);
        domain.until(&mut tool, |toolstack| toolstack.access(last).unwrap() == closed);
        domain.run_to(2);
        let text = tool.interrupted();
        let found = accesses(&text);
        assert!(!found.is_empty(), "{text}");
        assert!(found.iter().all(|(kind, _)| kinds.contains(&&**kind)), "{text}");
        // A page that was reported is opened.
        assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len(), "{text}");
        if let Some(symbol) = symbol {
            let gfn = domain.job.symbols().find(symbol).unwrap().gpa.gfn();
            assert!(found.iter().any(|(_, frame)| *frame == format!("{:x}", gfn.0)), "frame {gfn}: {text}");
        }
        domain.is_left_alone();
        domain.ends_well();
    }
}

#[test]
fn xen_access_sees_each_write_once_and_leaves_the_guest_as_it_was() {
    watches("write", AccessType::Rx, &["-w-", "rw-"], Some("WATCHED"));
}

#[test]
fn xen_access_sees_what_is_executed() {
    watches("exec", AccessType::Rw, &["--x"], None);
}

/// Serves a guest of CPU events from its first checkpoint to its last.
fn cpu_events(mode: &str, kind: CpuEventKind, judge: impl Fn(&str, &str)) {
    for release in releases("xen-access") {
        let mut domain = Domain::start("cpu_events");
        let mut tool = domain.tool("xen-access", &release, &["1", mode]);
        domain.until(&mut tool, |toolstack| {
            let monitors = toolstack.monitors().unwrap();
            monitors.iter().any(|monitor| monitor.kind == kind && monitor.mode == MonitorMode::Sync)
        });
        domain.run_to(7);
        let text = tool.interrupted();
        domain.is_left_alone();
        judge(&text, &domain.ends_well());
    }
}

#[test]
fn xen_access_sees_each_breakpoint_and_the_guest_has_it() {
    cpu_events("breakpoint", CpuEventKind::Int3, |text, console| {
        let seen = text.lines().filter(|line| line.starts_with("Breakpoint: rip=")).count();
        assert!(seen > 0, "{text}");
        assert!(console.contains(&format!("{seen} breakpoints,")), "{seen}: {console}");
    });
}

#[test]
fn xen_access_sees_each_change_of_cr4_with_both_values() {
    const TIME_STAMP_DISABLE: u64 = 1 << 2;
    cpu_events("write_ctrlreg_cr4", CpuEventKind::Cr4, |text, _| {
        let value = |line: &str, name: &str| {
            let from = line.split_once(name).unwrap().1;
            let digits: String = from.chars().take_while(char::is_ascii_hexdigit).collect();
            u64::from_str_radix(&digits, 16).unwrap()
        };
        let lines = text.lines().filter(|line| line.starts_with("Control register written: "));
        let pairs: Vec<(u64, u64)> = lines.map(|line| (value(line, "old_value="), value(line, "new_value="))).collect();
        // In each of four cases there and back; the write between those changes nothing.
        assert_eq!(pairs.len(), 8, "{text}");
        assert!(pairs.iter().all(|(old, new)| old ^ new == TIME_STAMP_DISABLE), "{text}");
        assert!(pairs.windows(2).all(|two| two[0].1 == two[1].0), "{text}");
    });
}

#[test]
fn a_second_xen_access_is_refused_in_xens_words_and_the_first_goes_on() {
    for release in releases("xen-access") {
        let mut domain = Domain::start("read_write");
        let last = domain.last_frame();
        let mut first = domain.tool("first", &release, &["1", "write"]);
        domain.until(&mut first, |toolstack| toolstack.access(last).unwrap() == AccessType::Rx);
        let (status, text) = domain.tool("second", &release, &["1", "write"]).ended();
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(text.contains("xenaccess is (or was) active on this domain"), "{text}");
        assert_eq!(domain.toolstack.access(last).unwrap(), AccessType::Rx);
        domain.run_to(2);
        assert!(!accesses(&first.interrupted()).is_empty());
        domain.is_left_alone();
        domain.ends_well();
    }
}

#[test]
fn a_mode_that_cannot_be_is_refused_in_xens_words_and_named() {
    let modes = [
        ("debug", "setting debug exception listener", "monitor event 5"),
        ("cpuid", "setting cpuid listener", "monitor event 6"),
        ("desc_access", "setting descriptor access listener", "monitor event 9"),
        ("altp2m_write", "enabling altp2m on domain!", "altp2m"),
        ("altp2m_exec", "enabling altp2m on domain!", "altp2m"),
    ];
    for release in releases("xen-access") {
        let mut domain = Domain::start("read_write");
        for (mode, sentence, named) in modes {
            let (status, text) = domain.tool(mode, &release, &["1", mode]).ended();
            assert_eq!(status.code(), Some(255), "{mode}: {text}");
            assert!(text.contains(sentence), "{mode}: {text}");
            let line = format!("mem-event xen: {named} is not supported (EOPNOTSUPP)");
            assert_eq!(text.lines().filter(|said| **said == line).count(), 1, "{mode}: {text}");
            domain.is_left_alone();
        }
        domain.ends_well();
    }
}

#[test]
fn a_domain_that_is_not_there_is_named() {
    for release in releases("xen-access") {
        let mut domain = Domain::start("read_write");
        let (status, text) = domain.tool("nobody", &release, &["2", "write"]).ended();
        assert_eq!(status.code(), Some(1), "{text}");
        domain.is_left_alone();
        let socket = domain.folder.file("socket");
        let absent = domain.folder.file("absent");
        domain.ends_well();
        let mut command = command(&RunFolder::create().unwrap());
        command.arg("xen").arg("--domain").arg(format!("1={}", absent.display())).arg("--");
        command.arg(&release.0).args(["1", "write"]);
        if let Some(libraries) = &release.1 {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        let named = format!("mem-event xen: there is no domain 1: nobody listens at {}", absent.display());
        assert!(errors.contains(&named), "{errors}");
        assert!(!socket.exists());
    }
}

/// A program with the library preloaded, and what it says.
fn preloaded(program: &[&str], preload: bool, variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(program[0]);
    command.args(&program[1..]).env("LC_ALL", "C").envs(variables.iter().copied());
    if preload {
        command.env("LD_PRELOAD", harness::beside::find("libmem_event_xen.so").unwrap());
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn without_its_environment_the_library_changes_and_opens_nothing() {
    for program in [
        &[
            "sh",
            "-c",
            "ls /proc/self/fd /dev/xen /proc/xen; cat /sys/hypervisor/type /dev/xen/privcmd; exec 3</dev/null 4>&3; ls /proc/self/fd",
        ][..],
        &["cargo", "--version"],
    ] {
        assert_eq!(preloaded(program, true, &[]), preloaded(program, false, &[]));
    }
}

#[test]
fn with_its_environment_a_program_finds_a_xen_of_the_release_that_was_named() {
    let files = ["type", "version/major", "version/minor"].map(|name| format!("/sys/hypervisor/{name}"));
    let program: Vec<&str> = std::iter::once("cat").chain(files.iter().map(String::as_str)).collect();
    let said = preloaded(&program, true, &[("MEM_EVENT_XEN_DOMAINS", ""), ("MEM_EVENT_XEN_VERSION", "4.20")]);
    assert_eq!(said, (Some(0), "xen\n4\n20\n".to_owned(), String::new()));
}

#[test]
fn wild_pointers_are_efault_and_end_no_program() {
    let program = "
import fcntl, os
privcmd, evtchn = os.open('/dev/xen/privcmd', os.O_RDWR), os.open('/dev/xen/evtchn', os.O_RDWR)
copy = os.dup(privcmd)
os.close(privcmd)
def asked(fd, request, argument):
    try:
        return fcntl.ioctl(fd, request, argument)
    except OSError as error:
        return -error.errno
for address in (0, 8, 0x7fffffff):
    for request in (0x305000, 0x205004, 0x105005):
        assert asked(copy, request, address) == -14, (address, hex(request))
    for request in (0x84501, 0x44503, 0x44504):
        assert asked(evtchn, request, address) == -14, (address, hex(request))
assert asked(copy, 0x50ff, 0) == -25
os.close(copy)
assert asked(copy, 0x305000, 0) == -9
print('good')
";
    let said = preloaded(&["python3", "-c", program], true, &[("MEM_EVENT_XEN_DOMAINS", "")]);
    assert_eq!(said, (Some(0), "good\n".to_owned(), String::new()));
}
