//! The world of a consumer under test: the toolstack's orders, checkpoints, registers.

use super::{Recording, changed, fault, options, passes, python};
use harness::machine::folder::RunFolder;
use harness::trial::{self, command};
use std::path::Path;

/// The worked example in Python, with these rings.
pub fn pager(rings: &str) -> String {
    format!("{rings}=python3 {}", super::examples().join("pager.py").display())
}

#[test]
fn a_pager_that_evicts_by_order_alone_gets_the_recorded_orders_and_its_contents_are_compared() {
    for name in ["page_touch", "page_in", "out_every_round", "evict_fail", "balloon_paged"] {
        let recording = Recording::of(name);
        let tried = recording.tries(&pager("paging"));
        passes(&tried);
        assert!(tried.answers > 0, "{name}: {:?}", tried.notes);
        let made_up = |note: &String| note.starts_with("frames hold made-up contents");
        assert!(tried.notes.iter().all(made_up), "{name}: {:?}", tried.notes);
    }
}

#[test]
fn a_pager_holds_its_guest_to_the_recorded_target() {
    let recording = Recording::of_changed("page_in", |scenario| {
        scenario.steps.clear();
        let target = Some(harness::scenario::Size(320 << 12));
        let settings = harness::scenario::settings::PagerSettings { target, ..Default::default() };
        scenario.consumers.pager = Some(settings);
    });
    let tried = recording.tries(&pager("paging,sharing"));
    passes(&tried);
    assert!(tried.answers > 64, "{} answers", tried.answers);
}

#[test]
fn a_pager_that_refuses_an_order_or_does_not_reply_is_told_so() {
    let (recording, folder) = (Recording::of("page_in"), RunFolder::create().unwrap());
    let wrong = |change| {
        let script = changed(&folder, ["pager.py", "mem_event.py"], &[change]);
        format!("paging:flags32=python3 {}", script.display())
    };
    let tried = recording.tries(&wrong(("gone = sum(map(self.evict,", "gone = str(map(self.evict,")));
    let refuses = "to the order `page-out 1280 64` the pager replies";
    assert!(fault(&tried).starts_with(refuses), "{}", fault(&tried));
    let silent = wrong(("orders.send(str(gone).encode())", "pass"));
    let tried = recording.with(&silent, |options| options.patience = std::time::Duration::from_secs(5));
    assert!(fault(&tried).starts_with("no reply came within 5s to the order `page-out 1280 64`"), "{}", fault(&tried));
}

#[test]
fn a_pager_that_evicts_nothing_is_not_passed() {
    let (recording, folder) = (Recording::of("page_touch"), RunFolder::create().unwrap());
    let nothing = [("gone = sum(map(self.evict, range(int(first), int(first) + int(count))))", "gone = 0")];
    let script = changed(&folder, ["pager.py", "mem_event.py"], &nothing);
    let tried = recording.tries(&format!("paging:flags32=python3 {}", script.display()));
    let difference = tried.difference.unwrap();
    assert_eq!(difference.what, "no page-in came at all");
    assert_eq!(difference.recorded_and_now[0], "256 requests on the paging ring");
}

/// It asks to hear of checkpoints, and counts them where it is told to.
const HEARS: [(&str, &str); 2] = [
    ("    say_ready()\n    attend(", "    connection.call(3)\n    say_ready()\n    attend("),
    (
        "                connection.hear()\n",
        "                heard = connection.socket.recv(HEADER.size + 4096)\n                if not heard:\n                    \
         raise Ended\n                print('heard', HEADER.unpack_from(heard)[2], HEADER.unpack_from(heard)[6], file=open(HEARD, \
         'a'))\n",
    ),
];

#[test]
fn a_consumer_that_asked_for_them_hears_of_checkpoints() {
    let (recording, folder) = (Recording::of("page_fault"), RunFolder::create().unwrap());
    let heard = folder.file("heard");
    let hears = HEARS.map(|(from, to)| (from, to.replace("HEARD", &format!("{:?}", heard.display().to_string()))));
    let changes: Vec<(&str, &str)> = hears.iter().map(|(from, to)| (*from, to.as_str())).collect();
    passes(&recording.tries(&python(&folder, &changes)));
    let heard = std::fs::read_to_string(heard).unwrap();
    // Checkpoints 1 and 2, then the end.
    assert_eq!(heard, "heard 1 1\nheard 1 2\nheard 4 0\n");
}

/// A scenario whose listener lets the guest go on from its checkpoints by itself: only a call of Release ends such a stop.
#[test]
fn a_vcpu_stops_for_those_who_hear_of_it_and_their_release_counts() {
    let (recording, folder) = (Recording::of("page_fault"), RunFolder::create().unwrap());
    let heard = format!("{:?}", folder.file("heard").display().to_string());
    let hears = HEARS.map(|(from, to)| {
        let releases = "                if HEADER.unpack_from(heard)[2] == 1:\n                    try:\n                        \
                        connection.call(4, 0)\n                    except Exception as refused:\n                        \
                        print('refused', file=open(HEARD, 'a'))\n";
        let to = if to.contains("heard") { format!("{to}{releases}") } else { to.to_owned() };
        (from, to.replace("HEARD", &heard))
    });
    let changes: Vec<(&str, &str)> = hears.iter().map(|(from, to)| (*from, to.as_str())).collect();
    passes(&recording.tries(&python(&folder, &changes)));
}

#[test]
fn requests_carry_the_recorded_registers() {
    let folder = RunFolder::create().unwrap();
    let Some(program) = super::c_compiles(
        &folder,
        ["listener.c", "mem_event.h"],
        &[(
            "        fflush(stdout);\n",
            "        FILE *said = fopen(getenv(\"SAID\"), \"a\");\n        fprintf(said, \"rip %#lx cr3 %#lx\\n\", \
             (unsigned long)request.data.regs.x86.rip, (unsigned long)request.data.regs.x86.cr3);\n        fclose(said);\n",
        )],
    ) else {
        return;
    };
    let command = |said: &Path| format!("access:vm_event7=env SAID={} {}", said.display(), program.display());
    let (live, again) = (folder.file("live"), folder.file("again"));
    let recording = Recording::of_changed("page_fault", |scenario| {
        scenario.consumers.external = vec![harness::scenario::external::External::parse(&command(&live)).unwrap()];
    });
    let said = || std::fs::read_to_string(&live).unwrap();
    assert!(said().lines().count() >= 2 && !said().contains("rip 0 "), "{}", said());
    let mut options = options(&command(&again));
    let script = command::script(&recording.path(), &mut options).unwrap();
    let tried = trial::run(&script, &options, None).unwrap();
    passes(&tried);
    assert_eq!(tried.notes, Vec::<String>::new());
    assert_eq!(std::fs::read_to_string(&again).unwrap(), said());
}
