//! A frame comes back with what it was evicted with, or the run says which did not, when and by whom.

use crate::support::{scenario, traced_machine, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::run::Job;
use harness::trace::contents;
use harness::trace::explain::explained;
use harness::trace::explain::finding::Finding;
use harness::trace::replay::replay_file;
use mem_event::message::{Call, Notice};
use mem_event::trace::Tape;
use mem_event::{Control, Gfn, PAGE_SIZE, Ring};
use mem_event_client::{Channel, Client, RingSettings};

/// A guest that stands with its pages filled, and its pager.
struct Filled {
    _qemu: Qemu,
    folder: RunFolder,
    job: Job,
    toolstack: Client,
    pager: Channel,
    first: Gfn,
}

impl Filled {
    fn start() -> Filled {
        let (mut qemu, folder, job) = traced_machine(scenario("page_in"));
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let pager = Channel::enable(&folder.file("socket"), Ring::Paging, RingSettings::default()).unwrap();
        qemu.qmp.execute("cont").unwrap();
        while !matches!(toolstack.notice().unwrap(), Some(Notice::Checkpoint { .. })) {
            wait_for("the checkpoint", &toolstack);
        }
        let first = job.symbols().find("PAGES").unwrap().gpa.gfn();
        Filled { _qemu: qemu, folder, job, toolstack, pager, first }
    }

    fn frame(&self, number: u64) -> Gfn {
        Gfn(self.first.0 + number)
    }

    fn evict(&mut self, gfn: Gfn) -> Vec<u8> {
        self.pager.client.control(Control::Nominate { gfn }).unwrap().unwrap();
        let content = self.pager.client.read(gfn, 0, u16::try_from(PAGE_SIZE).unwrap()).unwrap();
        self.pager.client.control(Control::Evict { gfn }).unwrap().unwrap();
        content
    }

    fn load(&mut self, gfn: Gfn, content: &[u8]) {
        self.pager.client.values(&Call::Load { gfn, content: content.into() }).unwrap();
    }

    /// What its trace says.
    fn judged(mut self) -> (Vec<String>, Vec<Finding>) {
        self.toolstack.values(&Call::EndTrace).unwrap();
        let trace = self.folder.file("trace");
        while !replay_file(&trace, false).unwrap().report().contains("ended in order") {
            // Its last block is on its way to the file.
            std::thread::yield_now();
        }
        let mut tape = Tape::open(&trace).unwrap();
        let symbols = self.job.symbols();
        (contents::judge(&trace, &symbols).unwrap(), explained(&mut tape, &symbols, |_| {}).findings)
    }
}

#[test]
fn a_frame_that_comes_back_with_its_neighbours_content_is_named_with_both_steps_and_both_programs() {
    let mut guest = Filled::start();
    let (frame, neighbour) = (guest.frame(3), guest.frame(4));
    let right = guest.evict(frame);
    let wrong = guest.evict(neighbour);
    guest.load(frame, &wrong);
    guest.load(neighbour, &wrong);
    // Once more, and rightly: what it came back with is what it was evicted with.
    assert_eq!(guest.evict(frame), wrong);
    assert_ne!(right, wrong);
    guest.load(frame, &wrong);
    let (said, findings) = guest.judged();
    assert_eq!(said.len(), 1, "{said:?}");
    let told = format!("frame {frame} PAGES+0x3000 came back with another content: evicted in step ");
    assert!(said[0].starts_with(&told), "{said:?}");
    let program = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(said[0].matches(&format!("by {} (connection ", program.trim())).count(), 2, "{said:?}");
    let [finding] = &findings[..] else { panic!("{findings:?}") };
    assert_eq!((finding.rule, &finding.says, finding.steps.len()), ("changed-contents", &said[0], 2));
}

#[test]
fn what_a_call_wrote_goes_out_and_comes_back_as_it_was_written() {
    let mut guest = Filled::start();
    let (bytes, patched) = (vec![0x5a; 16], guest.frame(0));
    let content = guest.evict(patched);
    guest.load(patched, &content);
    guest.toolstack.values(&Call::WriteFrame { gfn: patched, offset: 8, bytes: bytes.clone() }).unwrap();
    let content = guest.evict(patched);
    assert_eq!(content[8..24], bytes);
    guest.load(patched, &content);
    assert_eq!(guest.judged(), (Vec::new(), Vec::new()));
}
