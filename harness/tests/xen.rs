//! Xen's own tools, as Debian packages them, against guests: nothing of the tools is changed. They are skipped where they are out of
//! reach (`ci/setup --xen` unpacks them into the cache, and installs nothing).

use crate::support::command;
use crate::support::xen::{Domain, releases};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::{Scenario, Size, corpus};
use mem_event::message::Call;
use mem_event::{AccessType, CpuEventKind, MonitorMode, VcpuId};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

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
        let text = tool.interrupted(0);
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

/// Watches all memory of a Linux at its work for a while: each vCPU is told of a frame once, as that opens it, and the kernel's own sums of its files
/// are right.
fn watches_linux(arguments: &[&str], closed: AccessType, (vcpus, memory): (u32, u64)) {
    const LINES: usize = 300;
    for release in releases("xen-access") {
        let mut scenario = corpus::linux();
        (scenario.machine.vcpus, scenario.machine.memory) = (vcpus, Size(memory));
        scenario.consumers.listener.get_or_insert_default();
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = Gate::Callback;
        let mut domain = Domain::of(job);
        let end = Instant::now() + Duration::from_secs(120);
        while !domain.qemu.console().contains("filling ") {
            assert!(Instant::now() < end, "Linux does not boot: {}", domain.qemu.console());
            std::thread::yield_now();
        }
        let last = domain.last_frame();
        let mut tool = domain.tool("xen-access", &release, arguments);
        domain.until(&mut tool, |toolstack| toolstack.access(last).unwrap() == closed);
        let output = tool.output.clone();
        domain.until(&mut tool, |_| std::fs::read_to_string(&output).unwrap().matches("PAGE ACCESS").count() > LINES);
        let text = tool.interrupted(0);
        let mut told = BTreeSet::new();
        for line in text.lines().filter(|line| line.starts_with("PAGE ACCESS: ")) {
            let (vcpu, frame) = (line.split("(vcpu ").nth(1), line.split_whitespace().nth(5));
            assert!(told.insert((vcpu.map(str::to_owned), frame.map(str::to_owned))), "twice: {line}");
        }
        let above = |(_, frame): &(_, Option<String>)| {
            frame.as_ref().is_some_and(|frame| u64::from_str_radix(frame, 16).unwrap() >= 0x10_0000)
        };
        assert!(memory < 2 << 30 || told.iter().any(above), "none is above 4 GiB: {text}");
        assert_eq!(domain.toolstack.access(last).unwrap(), AccessType::Rwx);
        if memory < 2 << 30 {
            domain.is_left_alone();
        }
        let console = domain.goes_to_its_end();
        assert!(console.contains("checksums right twice"), "{console}");
    }
}

#[test]
fn xen_access_sees_what_linux_writes() {
    watches_linux(&["1", "write"], AccessType::Rx, (1, 256 << 20));
}

#[test]
fn xen_access_sees_what_linux_executes_on_four_vcpus() {
    watches_linux(&["-m", "1", "exec"], AccessType::Rw, (4, 256 << 20));
}

#[test]
fn xen_access_sees_what_linux_writes_above_4_gib() {
    watches_linux(&["1", "write"], AccessType::Rx, (1, 3 << 30));
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
        let text = tool.interrupted(0);
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
        assert!(!accesses(&first.interrupted(0)).is_empty());
        domain.is_left_alone();
        domain.ends_well();
    }
}

#[test]
fn xl_tells_of_the_machine_and_its_domains() {
    for release in releases("xl") {
        let domain = Domain::start("read_write");
        let told = domain.ask(&release, &["info"]);
        let of = |name: &str| {
            let line = told.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}: {told}"));
            line.split_once(':').unwrap().1.trim().to_owned()
        };
        assert_eq!((of("nr_cpus"), of("xen_scheduler")), ("1".to_owned(), "null".to_owned()));
        assert!(release.program.to_string_lossy().contains(&format!("xen-{}.{}/", of("xen_major"), of("xen_minor"))));
        let list = domain.ask(&release, &["list"]);
        let guest: Vec<&str> =
            list.lines().find(|line| line.starts_with("guest")).unwrap().split_whitespace().collect();
        assert_eq!(guest[1], "1", "{list}");
        domain.ends_well();
    }
}

/// The numbers behind a name in what xen-hvmctx prints, one for each vCPU.
fn register(told: &str, name: &str) -> Vec<u64> {
    let words: Vec<&str> = told.split_whitespace().collect();
    let found = words.windows(2).filter(|pair| pair[0] == name);
    found.map(|pair| u64::from_str_radix(pair[1].trim_start_matches("0x"), 16).unwrap()).collect()
}

#[test]
fn xen_hvmctx_prints_what_the_vcpus_of_a_running_domain_hold_and_they_run_on() {
    for release in releases("xen-hvmctx") {
        let mut scenario = Scenario::bare("endless");
        scenario.machine.vcpus = 2;
        let mut domain = Domain::of(Job::new(scenario, None).unwrap());
        assert_eq!(domain.checkpoint(), 1);
        // Either may have come last, and stand.
        for vcpu in 0..2 {
            let _ = domain.toolstack.call(&Call::Release { vcpu: VcpuId(vcpu) }).unwrap();
        }
        let end = Instant::now() + Duration::from_secs(60);
        let mut rounds = Vec::new();
        while rounds.len() < 2 {
            let told = domain.ask(&release, &["1"]);
            // Both are in the loop: nothing else puts this there.
            if register(&told, "r8") == [0x8888_8888_8888_8888; 2] {
                let words = register(&told, "rdi");
                assert_eq!((register(&told, "r11"), words[0].abs_diff(words[1])), (vec![0xbbbb_bbbb_bbbb_bbbb; 2], 8));
                rounds.push(register(&told, "rax"));
            }
            assert!(Instant::now() < end, "{told}");
        }
        assert!(rounds[0].iter().zip(&rounds[1]).all(|(early, late)| early < late), "{rounds:x?}");
        domain.qemu.kill();
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
        command.arg(&release.program).args(["1", "write"]);
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
