//! Which pages a guest touches: of a guest whose pages are known, of a Linux, of a machine that runs, and what is refused.

use crate::support::{command, machine, wait_for};
use harness::machine::folder::RunFolder;
use harness::scenario::{Place, Scenario};
use mem_event::AccessType;
use mem_event_client::Client;
use serde_json::Value;

/// The pages of a run's JSON.
fn pages(output: &str) -> Vec<Value> {
    let lines = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let told = lines.into_iter().find(|line| line["event"] == "pages").unwrap();
    told["pages"].as_array().unwrap().clone()
}

#[test]
fn a_guests_pages_are_told_from_its_entry_on_with_what_was_done_to_them_and_by_which_function() {
    let folder = RunFolder::create().unwrap();
    let (csv, html) = (folder.file("pages.csv"), folder.file("pages.html"));
    let mut run = command(&folder);
    run.args(["pages", "touch", "--window", "60s", "--csv"]).arg(&csv).arg("--html").arg(&html);
    let output = run.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let lines = std::fs::read_to_string(csv).unwrap();
    let cells: Vec<Vec<&str>> = lines.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let told: Vec<(&str, &str, &str)> = cells.iter().map(|cells| (cells[2], cells[3], cells[5])).collect();
    let due = [
        ("pvh_entry", "--x", "pvh_entry"),
        // One right comes with each event, and the mapping that lets a page be written lets it be read.
        ("BOOT_PML4", "-w-", "clear_and_link_tables"),
        ("READ", "-w-", "access_write"),
        ("WRITTEN", "-w-", "access_write"),
        ("ADDED", "rw-", "access_add"),
        ("CALLED", "--x", "CALLED"),
    ];
    for (what, rights, by) in due {
        let is_due = |it: &&(&str, &str, &str)| it.0 == what && it.1 == rights && (it.2 == by || what == "BOOT_PML4");
        assert_eq!(told.iter().filter(is_due).count(), 1, "{what}\n{lines}");
    }
    // The image begins there; what lies below is the firmware's, which runs before.
    assert!(cells.iter().all(|cells| u64::from_str_radix(&cells[1][2..], 16).unwrap() >= 0x100), "{lines}");
    assert!(said.contains(&format!("{} pages touched", cells.len())), "{said}");
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.contains("<svg") && html.contains("WRITTEN"));
}

#[test]
fn a_linux_names_the_functions_of_its_kernel_and_its_loader() {
    let folder = RunFolder::create().unwrap();
    let mut run = command(&folder);
    run.args(["run", "linux", "--memory", "128M", "--gate", "mmu", "--pages", "--window", "60s", "--json"]);
    // Until it has booted so far.
    run.args(["--break", "kernel:kernel_init_freeable", "--count", "1"]);
    let output = run.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    let pages = pages(&said);
    let by = |what: &str| pages.iter().filter(|page| page["first_by"] == what).count();
    assert!(pages.len() > 1000 && by("the kernel's loader") > 100, "{} pages", pages.len());
    assert!(by("clear_page_orig") + by("memset_orig") + by("memset") > 100, "{pages:?}");
}

#[test]
fn a_machine_that_runs_goes_on_with_all_its_rights_afterwards() {
    let mut endless = Scenario::bare("endless");
    // So that accesses can be stopped.
    endless.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine(endless);
    qemu.qmp.execute("cont").unwrap();
    let run = |further: &[&str]| {
        let mut run = command(&folder);
        let output = run.arg("pages").arg(folder.file("socket")).args(further).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let elf = job.guest.as_ref().unwrap().path.display().to_string();
    // On a busy machine a short time may be over before the second window is.
    let is_touched_anew = |deadline: &&str| {
        let (code, said) = run(&["--window", "200ms", "--deadline", deadline, "--json", "--guest", &elf]);
        assert_eq!(code, Some(0), "{said}");
        let is_counts = |page: &Value| page["what"].as_str().unwrap().ends_with("COUNTS");
        pages(&said).iter().any(|page| is_counts(page) && page["windows"].as_array().unwrap().len() > 1)
    };
    assert!(["1s", "10s", "100s"].iter().any(is_touched_anew), "in each window anew");

    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    let gfn = Place::from("COUNTS").frames(&job.symbols()).unwrap().first;
    assert_eq!(toolstack.access(gfn).unwrap(), AccessType::Rwx);
    let first = toolstack.read(gfn, 0, 8).unwrap();
    while toolstack.read(gfn, 0, 8).unwrap() == first {
        std::thread::yield_now();
    }
    let (code, said) = run(&["--vcpus", "2"]);
    assert!(code == Some(2) && said.contains("remedy: leave --vcpus and --memory out"), "{said}");
    qemu.terminate();
    wait_for("the machine's end", &qemu);
}

#[test]
fn what_cannot_be_is_refused_in_one_sentence_with_a_remedy() {
    let folder = RunFolder::create().unwrap();
    let nowhere = folder.file("none/pages.csv").display().to_string();
    for (arguments, what, remedy) in [
        (vec!["run", "touch", "--csv", "x"], "--csv is of the pages", "add --pages"),
        (vec!["run", "touch", "--window", "1s"], "--window is of the pages", "add --pages"),
        (vec!["pages", "touch", "--window", "1ms"], "a window of 1ms is too short", "10ms at least"),
        (vec!["pages", "touch", "--csv", &nowhere], "cannot write", "name a file that can be written"),
        (vec!["pages", "tuch"], "no guest \"tuch\"", "did you mean touch"),
        (vec!["pages", "touch", "--guest", "x"], "no socket of a machine that runs", "leave --guest out"),
    ] {
        let output = command(&folder).args(&arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(2), 2), "{arguments:?}: {said}");
        assert!(said.contains(what) && said.contains(remedy) && output.stdout.is_empty(), "{arguments:?}: {said}");
    }
}
