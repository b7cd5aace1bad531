//! A Linux has names: its own table of symbols is read, where it lies is found under KASLR, and who does what in it is told.

use crate::support::{command, machine_under};
use harness::guest::kernel::Kernel;
use harness::guest::kernel::names::Names;
use harness::guest::linux::{self, COMMAND_LINE};
use harness::guest::symbols::Symbols;
use harness::machine::folder::RunFolder;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::{Scenario, corpus};
use harness::toolstack::doing::Doing;
use harness::toolstack::log::Silent;
use harness::toolstack::transcript::Record;
use harness::toolstack::who::Who;
use harness::verdict::Kind;
use mem_event::trace::{Context, Header, Player, Remark, Tape, Writer};
use mem_event::{
    Access, AccessSource, AccessType, Control, Domain, DomainConfig, Effects, Gfn, Input, Layout, Rights, Ring,
    RingPage, VcpuId, With,
};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// The digest of a listing as /proc/kallsyms prints it, by the program of that name.
fn digest(names: &Names, address: impl Fn(u64) -> u64) -> String {
    let line =
        |it: &harness::guest::kernel::names::Name| format!("{:016x} {} {}\n", address(it.address), it.kind, it.name);
    let mut md5sum = Command::new("md5sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let text: String = names.iter().map(line).collect();
    md5sum.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = md5sum.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// Who made the breaks of a run, in their order.
fn breaks(records: &[Record]) -> Vec<Who> {
    let who = |record: &Record| match record {
        Record::Event { done, .. } if record.is_a_break() => done.iter().find_map(Doing::who),
        _ => None,
    };
    records.iter().filter_map(who).collect()
}

#[test]
fn the_tables_in_the_image_and_in_the_guests_memory_are_what_proc_kallsyms_prints_and_a_break_tells_who_opened_it() {
    let mut named = corpus::linux();
    named.machine.symbols = Some("guest".into());
    let listener = named.consumers.listener.get_or_insert_default();
    listener.breaks.push("kernel:do_sys_openat2".into());
    listener.strings.push("rsi=/proc/kallsyms".parse().unwrap());
    listener.process = true;
    let mut job = Job::new(named, None).unwrap();
    job.gate = Gate::Auto;
    // The last of several counts.
    job.extra = vec!["-append".into(), format!("{COMMAND_LINE} mem_event.work=names").into()];
    let outcome = job.run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}\n{}", outcome.verdict, outcome.console);

    let symbols: Symbols = job.symbols();
    let found = symbols.linear().found().expect("the kernel was found");
    let printed = |digest: &str| outcome.console.lines().any(|line| line.split_whitespace().next() == Some(digest));
    assert_eq!(found.slide, 0, "the guest's own table has the guest's own addresses");
    assert!(printed(&digest(&found.kernel.names, |address| address)), "{}", outcome.console);

    let image = Kernel::open(&linux::kernel().unwrap()).unwrap();
    let text = |names: &Names| names.address("_text").unwrap();
    let slide = text(&found.kernel.names).wrapping_sub(text(&image.names));
    let moved = |address: u64| if address >> 63 == 1 { address.wrapping_add(slide) } else { address };
    assert!(printed(&digest(&image.names, moved)), "by the image, moved by {slide:#x}: {}", outcome.console);

    let told = breaks(&outcome.records);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0].process.as_deref(), told[0].texts["rsi"].as_deref()), (Some("grep"), Some("/proc/kallsyms")));
    let line = outcome.records.iter().find(|record| record.is_a_break()).unwrap().line(&symbols);
    assert!(line.contains(" do_sys_openat2 ") && line.contains("by grep ("), "{line}");
}

#[test]
fn an_attached_command_records_breaks_and_leaves_a_machine_as_it_was() {
    let mut watched = Scenario::bare("endless");
    watched.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine_under(Gate::Callback, watched);
    let trace = folder.file("attached");
    let attach = |breaks: &str, count: &str, further: &[&str]| {
        let mut attach = command(&folder);
        attach.arg("attach").arg(folder.file("socket")).arg("--guest").arg(&job.guest.as_ref().unwrap().path);
        attach.args(["--json", "--break", breaks, "--count", count]).args(further).stdout(Stdio::piped());
        attach.spawn().unwrap()
    };
    // Where the loop reads its word.
    let place = "endless_loop+0x2c";
    let mut first = attach(place, "50", &["--string", "rsi", "--trace", trace.to_str().unwrap()]);
    let mut output = BufReader::new(first.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    let second = command(&folder).arg("attach").arg(folder.file("socket")).args(["--monitor", "cr3"]).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("EBUSY") && said.contains(&format!("process {} has it", first.id())), "{said}");
    qemu.qmp.execute("cont").unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0), "{rest}");
    assert_eq!(rest.lines().filter(|line| line.contains("\"reason\":\"int3\"")).count(), 50, "{rest}");
    assert!(crate::support::replays(&trace) > 100, "each break is a step, and each step over it");
    assert!(Tape::open(&trace).unwrap().end().is_whole());
    for _ in 0..5 {
        // What stands of those before is the state that each record begins with.
        let output = attach(place, "2", &["--trace", trace.to_str().unwrap()]).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(crate::support::replays(&trace) > 4);
        let mut player = Player::open(&trace).unwrap();
        while player.forward().unwrap().is_some() {}
        player.seek(0).unwrap();
        player.seek(player.len()).unwrap();
    }
    // By its frame nothing is written, and the other instructions of the loop are let through untold.
    let output = attach(place, "50", &["--break-by", "frame"]).wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let told = said.lines().filter(|line| line.contains("\"reason\":\"violation\"") && line.contains("\"by\":"));
    assert_eq!(told.count(), 50, "{said}");
    // A frame whose fetches are watched cannot hold one.
    let output = attach(place, "1", &["--break-by", "frame", "--watch", "endless_loop=x"]).wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_ne!(output.status.code(), Some(0), "{said}");
    drop(qemu);
}

#[test]
fn a_break_in_a_kernel_that_the_guest_has_none_of_is_an_error_at_its_end() {
    let folder = RunFolder::create().unwrap();
    let output = command(&folder).args(["run", "example", "--break", "kernel:do_exit"]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(i32::from(Kind::Error.exit_code())), "{said}");
    assert!(said.contains("kernel:do_exit was never set: no Linux has begun in the guest"), "{said}");
}

#[test]
fn debians_stub_of_a_system_map_is_refused_with_what_it_is() {
    let folder = RunFolder::create().unwrap();
    let stub = folder.file("System.map");
    std::fs::write(&stub, "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n")
        .unwrap();
    let output = command(&folder).args(["run", "linux", "--break", "kernel:do_exit", "--symbols"]).arg(&stub).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("Debian's stub of one line") && said.contains("bzImage"), "{said}");
}

/// A trace of a vCPU that waits for ever: an instruction of the kernel's, which lies 0x1000_0000 above its names, touched a watched page.
fn waits_for_ever(path: &Path, rip: u64) {
    let config = DomainConfig::new(1, vec![(Gfn(0), 64)]);
    let mut writer = Writer::create(path, &Header::of("linux", config.clone())).unwrap();
    let (mut domain, mut effects, page) = (Domain::new(config).unwrap(), Effects::default(), RingPage::heap());
    let (gfn, rights, source) = (Gfn(5), Rights::W, AccessSource::Instruction);
    let access = Access { gfn, offset: 8, gla: None, rights, source, rip };
    let inputs = [
        Input::Control(Control::Enable { ring: Ring::Access, layout: Layout::Flags32, slots: 8 }),
        Input::Control(Control::SetAccess { first: gfn, count: 1, access: AccessType::N }),
        Input::Access { vcpu: VcpuId(0), access },
    ];
    let note = "the kernel's _text is at 0xffffffff91000000, physical 0x2000000";
    writer.remark(0, &Remark::Note { connection: 1, text: note.into() });
    for (time, input) in (1..).zip(&inputs) {
        effects.clear();
        let outcome = domain.apply(input, With::page(&page), &mut effects);
        writer.record(Context { time, code: &[], connection: 1 }, input, &outcome, &effects);
    }
    writer.finish().unwrap();
}

#[test]
fn a_trace_is_replayed_explained_and_compared_with_the_names_of_its_kernel() {
    let folder = RunFolder::create().unwrap();
    let (one, other, kernel) = (folder.file("one"), folder.file("other"), folder.file("System.map"));
    waits_for_ever(&one, 0xffff_ffff_9100_1010);
    waits_for_ever(&other, 0xffff_ffff_9100_2010);
    let listing =
        "ffffffff81000000 T _text\nffffffff81001000 T do_open\nffffffff81002000 T do_close\nffffffff82000000 B _end\n";
    std::fs::write(&kernel, listing).unwrap();
    let run = |arguments: &[&str], named: bool| {
        let mut run = command(&folder);
        run.current_dir(folder.file("")).args(arguments);
        if named {
            run.args(["--symbols", "System.map"]);
        }
        let output = run.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    for (arguments, code) in [(vec!["replay", "one", "--sequence"], 0), (vec!["explain", "one"], 5)] {
        let (named, bare) = (run(&arguments, true), run(&arguments, false));
        assert_eq!((named.0, bare.0), (Some(code), Some(code)), "{}{}", named.1, bare.1);
        assert!(named.1.contains("do_open+0x10") && !bare.1.contains("do_open"), "{arguments:?}\n{}", named.1);
    }
    let (code, said) = run(&["diff", "one", "other"], false);
    assert!(code == Some(0) && said.contains("equal in meaning"), "{said}");
    let (code, said) = run(&["diff", "one", "other"], true);
    assert!(code == Some(5) && said.contains("at do_open+0x10") && said.contains("at do_close+0x10"), "{said}");
    let (code, said) = run(&["replay", "-", "--sequence"], true);
    assert!(code == Some(2) && said.contains("remedy: name the trace's file"), "{said}");
}
