//! Tools of Xen's that are killed and started again, tools side by side, and code that a tool writes.

use crate::support::kernel_maps_write_protected;
use crate::support::xen::{Domain, Release, Tool, releases};
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::{Scenario, Size};
use mem_event::message::{RingState, VcpuState};
use mem_event::{AccessType, Control, Gfn, Ring, VcpuId};
use mem_event_client::Client;
use mem_event_client::channel::{Channel, RingSettings};
use rustix::process::{Pid, Signal};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Each vCPU of this guest writes to 16 MiB.
fn sweep(vcpus: u32, memory: u64) -> Domain {
    let mut scenario = Scenario::bare("sweep");
    (scenario.machine.vcpus, scenario.machine.memory) = (vcpus, Size(memory));
    scenario.consumers.listener.get_or_insert_default();
    scenario.consumers.pager.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    job.gate = Gate::Callback;
    job.plugin = vec!["foreign=map".into()];
    let mut domain = Domain::of(job);
    assert_eq!(domain.checkpoint(), 1);
    domain
}

fn signal(tool: &Tool, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(&tool.child), signal).unwrap();
}

fn killed(domain: &mut Domain, tool: Tool, ring: Ring) {
    signal(&tool, Signal::KILL);
    let _ = tool.ended();
    let end = Instant::now() + Duration::from_secs(60);
    while !domain.toolstack.rings().unwrap().iter().any(|it| it.ring == ring && it.state == RingState::Lost) {
        assert!(Instant::now() < end, "the {ring} ring keeps its consumer");
        std::thread::yield_now();
    }
}

fn watches(domain: &mut Domain, release: &Release, arguments: &[&str], closed: AccessType) -> Tool {
    let last = domain.last_frame();
    let mut tool = domain.tool("xen-access", release, arguments);
    domain.until(&mut tool, |toolstack| toolstack.access(last).unwrap() == closed);
    tool
}

/// The vCPUs that wait for an answer, and for which frame.
fn waiting(toolstack: &mut Client) -> BTreeSet<(usize, u64)> {
    let vcpus = toolstack.vcpus().unwrap();
    let waits = vcpus.iter().enumerate().filter(|(_, vcpu)| vcpu.state == VcpuState::Answer);
    waits.filter_map(|(number, vcpu)| Some((number, vcpu.frame?.0))).collect()
}

/// The vCPU and the frame of a line of xen-access.
fn access(line: &str) -> Option<(usize, u64)> {
    let after = |word: &str| {
        let rest = line.split_once(word)?.1;
        rest.split(|letter: char| !letter.is_ascii_hexdigit()).next()
    };
    let frame = u64::from_str_radix(after("GFN ")?, 16).ok()?;
    Some((after("(vcpu ")?.parse().ok()?, frame))
}

#[test]
fn the_requests_that_xen_access_left_are_the_first_lines_of_its_successor() {
    for release in releases("xen-access") {
        let mut domain = sweep(2, 64 << 20);
        let mut first = watches(&mut domain, &release, &["-m", "1", "write"], AccessType::Rx);
        domain.run_to(2);
        domain.release();
        signal(&first, Signal::STOP);
        domain.until(&mut first, |toolstack| waiting(toolstack).len() == 2);
        let left = waiting(&mut domain.toolstack);
        killed(&mut domain, first, Ring::Access);
        assert_eq!(waiting(&mut domain.toolstack), left, "where a listener is required vCPUs wait for the next");
        std::fs::remove_file(domain.folder.file("xen-access.out")).unwrap();
        let mut second = domain.tool("xen-access", &release, &["-m", "1", "write"]);
        let lines = |tool: &Tool| tool.text().lines().filter_map(access).take(2).collect::<BTreeSet<_>>();
        let end = Instant::now() + Duration::from_secs(60);
        while lines(&second).len() < 2 {
            assert!(Instant::now() < end && second.child.try_wait().unwrap().is_none(), "{}", second.text());
            std::thread::yield_now();
        }
        assert_eq!(lines(&second), left, "{}", second.text());
        assert_eq!(domain.checkpoint(), 3);
        second.interrupted(0);
        domain.is_left_alone();
        domain.ends_well();
    }
}

#[test]
fn where_xen_access_is_not_required_the_guest_goes_on_without_it() {
    for release in releases("xen-access") {
        let mut domain = sweep(2, 64 << 20);
        let first = watches(&mut domain, &release, &["1", "write"], AccessType::Rx);
        domain.run_to(2);
        domain.release();
        killed(&mut domain, first, Ring::Access);
        assert_eq!(domain.checkpoint(), 3);
        domain.ends_well();
    }
}

#[test]
fn xen_access_serves_four_vcpus_and_takes_the_rights_of_memory_above_4_gib() {
    for release in releases("xen-access") {
        for (vcpus, memory) in [(4, 64 << 20), (1, 3 << 30)] {
            let mut domain = sweep(vcpus, memory);
            let last = domain.last_frame();
            // Between 2 and 4 GiB there is none.
            assert_eq!(last.0 > 0x10_0000, memory > 2 << 30);
            let listener = watches(&mut domain, &release, &["-m", "1", "write"], AccessType::Rx);
            domain.run_to(3);
            let text = listener.interrupted(0);
            let told: BTreeSet<usize> = text.lines().filter_map(access).map(|(vcpu, _)| vcpu).collect();
            assert_eq!(told, (0..vcpus as usize).collect(), "{text}");
            assert_eq!(domain.toolstack.access(last).unwrap(), AccessType::Rwx);
            domain.ends_well();
        }
    }
}

/// The node that xenpaging watches.
const NODE: &str = "/local/domain/1/memory/target-tot_pages";
/// Frames that the guest may hold.
const TARGET: u64 = 1024;

fn pages(domain: &mut Domain, release: &Release) -> Tool {
    let file = domain.folder.file("pages").to_string_lossy().into_owned();
    let arguments = ["-d", "1", "-f", &file, "-r", "256"];
    let mut tool = domain.tool_with("xenpaging", release, &["--repair-xenpaging"], &arguments);
    domain.until(&mut tool, |toolstack| {
        toolstack.rings().unwrap().iter().any(|it| it.ring == Ring::Paging && it.state == RingState::Live)
    });
    tool
}

fn aims_at(domain: &mut Domain, release: &Release, tool: &mut Tool, frames: u64) {
    domain.ask(&release.tool("xenstore-write"), &[NODE, &(frames * 4).to_string()]);
    domain.until(tool, |toolstack| {
        let info = toolstack.info().unwrap();
        if frames > TARGET { info.paged == 0 } else { info.resident <= frames }
    });
}

fn ends_in_order(tool: Tool, by: Signal) {
    signal(&tool, by);
    let (status, text) = tool.ended();
    assert_eq!(status.code(), Some(0), "{text}");
}

#[test]
fn xenpaging_is_killed_and_started_again_and_the_guests_memory_is_right() {
    for release in releases("xenpaging") {
        let mut domain = sweep(1, 64 << 20);
        let mut pager = pages(&mut domain, &release);
        aims_at(&mut domain, &release, &mut pager, TARGET);
        domain.run_to(2);
        // Ended in order it brings everything back first.
        ends_in_order(pager, Signal::TERM);
        assert_eq!(domain.toolstack.info().unwrap().paged, 0);
        let mut pager = pages(&mut domain, &release);
        domain.run_to(3);
        aims_at(&mut domain, &release, &mut pager, TARGET);
        aims_at(&mut domain, &release, &mut pager, 16 * TARGET);
        // Its ring stays, as its consumer has gone without a word; the successor has it.
        killed(&mut domain, pager, Ring::Paging);
        let mut pager = pages(&mut domain, &release);
        aims_at(&mut domain, &release, &mut pager, TARGET);
        ends_in_order(pager, Signal::INT);
        assert_eq!(domain.toolstack.info().unwrap().paged, 0);
        domain.ends_well();
    }
}

#[test]
fn xenpaging_and_xen_access_are_side_by_side() {
    for release in releases("xen-access") {
        let mut domain = sweep(1, 64 << 20);
        let mut pager = pages(&mut domain, &release.beside("xenpaging"));
        aims_at(&mut domain, &release, &mut pager, 64);
        assert!(domain.toolstack.info().unwrap().paged > 0);
        // The frames that the guest is about to write to are out, and closed.
        let listener = watches(&mut domain, &release, &["1", "write"], AccessType::Rx);
        domain.run_to(3);
        let text = listener.interrupted(0);
        assert!(text.lines().filter_map(access).count() > 0x1000, "{text}");
        ends_in_order(pager, Signal::INT);
        assert_eq!(domain.toolstack.info().unwrap().paged, 0);
        domain.is_left_alone();
        domain.ends_well();
    }
}

/// Compiles one of `images/`.
fn built(folder: &RunFolder, source: &str, options: &[&str]) -> std::path::PathBuf {
    let path = format!("{}/tests/images/{source}", env!("CARGO_MANIFEST_DIR"));
    let program = folder.file(source.split('.').next().unwrap());
    let mut cc = Command::new("cc");
    cc.arg("-o").arg(&program).arg(path).args(options);
    assert!(cc.status().unwrap().success(), "{source} does not build");
    program
}

/// Whether tools can be built on Xen's libraries here.
fn has_headers() -> bool {
    let has = Path::new("/usr/include/xenctrl.h").is_file();
    if !has {
        eprintln!("skipped: there are no headers of Xen's libraries; ci/setup installs them (libxen-dev)");
    }
    has
}

#[test]
fn a_tool_sets_a_register_by_the_domains_context_and_is_told_which_it_cannot() {
    if !has_headers() {
        return;
    }
    let folder = RunFolder::create().unwrap();
    let tool = Release::own(built(&folder, "context.c", &["-lxenctrl"]));
    let mut domain = Domain::start("read_write");
    let before = domain.toolstack.registers(VcpuId(0)).unwrap().unwrap();
    let sets = |register: &str, value: u64| domain.ask(&tool, &["1", "0", register, &value.to_string()]);
    assert_eq!(sets("r9", 0x1234_5678_9abc_def0).trim(), "set");
    let mut wanted = before;
    wanted.registers.general[9] = 0x1234_5678_9abc_def0;
    let refused = sets("tr", 0x1000);
    assert!(refused.contains("Operation not supported"), "{refused}");
    assert!(refused.contains("a context cannot be set: vCPU 0: TR or LDTR cannot be set"), "{refused}");
    let mut now = domain.toolstack.registers(VcpuId(0)).unwrap().unwrap();
    now.tsc = wanted.tsc;
    assert_eq!(now, wanted);
    assert_eq!(domain.ask(&tool, &["1", "0", "r9", &before.registers.general[9].to_string()]).trim(), "set");
    domain.ends_well();
}

#[test]
fn a_frame_is_held_while_a_tool_has_it_mapped_and_no_longer() {
    const FIRST: u64 = 0x3000;
    if !has_headers() {
        return;
    }
    let folder = RunFolder::create().unwrap();
    let maps = Release::own(built(&folder, "maps.c", &["-lxenforeignmemory"]));
    let mut domain = sweep(1, 64 << 20);
    let _pager = Channel::enable(&domain.folder.file("socket"), Ring::Paging, RingSettings::default()).unwrap();
    let mut tool = domain.tool("maps", &maps, &["1", &FIRST.to_string(), "16"]);
    let output = tool.output.clone();
    domain.until(&mut tool, |_| std::fs::read_to_string(&output).unwrap().contains("1 mapped"));
    let mut is_free = |at: u64| domain.toolstack.control(Control::Nominate { gfn: Gfn(FIRST + at) }).unwrap().is_ok();
    let free: Vec<bool> = (0..16).map(&mut is_free).collect();
    assert_eq!(free, (0..16).map(|at| at < 8).collect::<Vec<_>>(), "the first half was unmapped alone");
    signal(&tool, Signal::KILL);
    let _ = tool.ended();
    let end = Instant::now() + Duration::from_secs(60);
    while !is_free(8) {
        assert!(Instant::now() < end, "what a killed tool had mapped stays held");
        std::thread::yield_now();
    }
    domain.qemu.kill();
}

#[test]
fn what_a_tool_writes_into_a_shared_frame_is_that_frames_alone() {
    const SHARED: [Gfn; 2] = [Gfn(0x3000), Gfn(0x3001)];
    if !has_headers() {
        return;
    }
    let folder = RunFolder::create().unwrap();
    let patch = Release::own(built(&folder, "patch.c", &["-lxenforeignmemory"]));
    let mut domain = sweep(1, 64 << 20);
    let handles = SHARED.map(|gfn| domain.toolstack.control(Control::NominateShare { gfn }).unwrap().unwrap());
    let [source, client] = SHARED;
    let share = Control::Share { source, source_handle: handles[0], client, client_handle: handles[1] };
    domain.toolstack.control(share).unwrap().unwrap();
    for (gfn, letter) in [(client, "C"), (source, "S")] {
        domain.ask(&patch, &["1", &gfn.0.to_string(), "0", letter]);
    }
    let mut first = |gfn| domain.toolstack.read(gfn, 0, 1).unwrap();
    assert_eq!((first(source), first(client)), (b"S".to_vec(), b"C".to_vec()));
    domain.ends_well();
}

fn runs_what_was_written(gate: Gate) {
    if !has_headers() {
        return;
    }
    let folder = RunFolder::create().unwrap();
    let bare = ["-m32", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,-Ttext-segment=0x100000"];
    let image = built(&folder, "letters.s", &bare);
    let patch = Release::own(built(&folder, "patch.c", &["-lxenforeignmemory"]));
    let mut scenario = Scenario::bare(&image.to_string_lossy());
    scenario.consumers.listener.get_or_insert_default();
    let mut job = Job::new(scenario, None).unwrap();
    (job.gate, job.plugin) = (gate, vec!["foreign=map".into()]);
    let domain = Domain::of(job);
    let comes_to = |what: &dyn Fn(&str) -> bool| {
        let end = Instant::now() + Duration::from_secs(60);
        while !what(&domain.qemu.console()) {
            assert!(Instant::now() < end, "{}", domain.qemu.console());
            std::thread::yield_now();
        }
    };
    comes_to(&|console| console.contains("AAAA"));
    let letter = domain.job.symbols().find("LETTER").unwrap().gpa;
    let (frame, offset) = (letter.gfn().0.to_string(), (letter.0 % 4096).to_string());
    domain.ask(&patch, &["1", &frame, &offset, "B"]);
    comes_to(&|console| console.contains("BBBB"));
    let console = domain.qemu.console();
    assert!(!console.trim_start_matches('A').contains('A'), "the old code came again: {console}");
}

#[test]
fn code_that_was_written_through_a_mapping_is_what_the_guest_runs_under_the_callback() {
    runs_what_was_written(Gate::Callback);
}

#[test]
fn code_that_was_written_through_a_mapping_is_what_the_guest_runs_under_the_mmu() {
    if kernel_maps_write_protected() {
        runs_what_was_written(Gate::Mmu);
    }
}
