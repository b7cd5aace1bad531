//! A machine whose state QEMU saves and loads while frames are with a pager, under either gate.

use crate::support::{DEADLINE, checkpoint, kernel_maps_write_protected, machine_under, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::scenario::Scenario;
use mem_event::message::Call;
use mem_event::{AccessType, Control, Flags, Gfn, Request, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use rustix::event::{PollFd, PollFlags, poll};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Frames that the guest does not use, far above its image.
const FIRST: u64 = 0x2000;
const FRAMES: u64 = 24;

/// A drive of no device, on which QEMU makes a temporary image that takes snapshots.
fn with_snapshots(scenario: &mut Scenario, folder: &Path) {
    let disk = folder.join("state");
    File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let drive = format!("if=none,id=state,format=raw,snapshot=on,file={}", disk.display());
    scenario.machine.args.extend(["-drive".to_owned(), drive]);
}

/// A command of QEMU's monitor for people, which is silent when all is well.
fn command(qemu: &mut Qemu, line: &str) {
    let said = qemu.qmp.execute_with("human-monitor-command", &json!({ "command-line": line })).unwrap();
    assert_eq!(said.as_str(), Some(""), "{line}");
}

/// A pager that has the content of what is out.
struct Pager {
    channel: Channel,
    out: BTreeMap<Gfn, Vec<u8>>,
    asked: Vec<Request>,
    /// What makes room for the next frame that comes in, where there is no other.
    next_out: Option<Gfn>,
}

impl Pager {
    fn takes_out(&mut self, gfn: Gfn) {
        let client = &mut self.channel.client;
        client.values(&Call::Control(Control::Nominate { gfn })).unwrap();
        self.out.insert(gfn, client.read(gfn, 0, 4096).unwrap());
        client.values(&Call::Control(Control::Evict { gfn })).unwrap();
    }

    /// Serves until the other thread has done this.
    fn serves_while(&mut self, done: impl FnOnce() + Send) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                done();
                drop(writer);
            });
            loop {
                while let Some(request) = self.channel.take() {
                    self.serves(request);
                }
                let mut waited = [PollFd::new(&self.channel, PollFlags::IN), PollFd::new(&reader, PollFlags::IN)];
                assert!(poll(&mut waited, Some(&DEADLINE)).unwrap() > 0, "neither a request nor an end");
                if !waited[1].revents().is_empty() {
                    return;
                }
                self.channel.clear_signal();
            }
        });
    }

    fn serves(&mut self, request: Request) {
        let gfn = request.frame().unwrap();
        if let Some(content) = self.out.remove(&gfn) {
            if let Some(other) = self.next_out.as_mut().map(|next| std::mem::replace(next, gfn)) {
                self.takes_out(other);
            }
            self.channel.client.values(&Call::Load { gfn, content: content.into() }).unwrap();
        }
        self.channel.answer(&request.answer());
        self.channel.kick().unwrap();
        self.asked.push(request);
    }
}

fn frames() -> impl Iterator<Item = Gfn> {
    (FIRST..FIRST + FRAMES).map(Gfn)
}

fn fill(toolstack: &mut Client, with: u8) {
    for gfn in frames() {
        let bytes = vec![with.wrapping_add((gfn.0 & 0xff) as u8); 4096];
        for (offset, part) in (0..).step_by(2048).zip(bytes.chunks(2048)) {
            toolstack.values(&Call::WriteFrame { gfn, offset, bytes: part.to_vec() }).unwrap();
        }
    }
}

/// Wherever each frame is now.
fn is_filled(toolstack: &mut Client, pager: &Pager, with: u8) {
    for gfn in frames() {
        let found = pager.out.get(&gfn).cloned().unwrap_or_else(|| toolstack.read(gfn, 0, 4096).unwrap());
        let byte = with.wrapping_add((gfn.0 & 0xff) as u8);
        assert!(found.iter().all(|found| *found == byte), "frame {gfn}: {:?} where {byte} is due", &found[..8]);
    }
}

fn saves_and_loads(gate: Gate) {
    let own = RunFolder::create().unwrap();
    let mut scenario = Scenario::bare("read_write");
    with_snapshots(&mut scenario, &own.file(""));
    scenario.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine_under(gate, scenario);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    // Before the ring is there, from when on what was never touched is populated on demand.
    fill(&mut toolstack, 1);
    let channel = Channel::enable(&folder.file("socket"), Ring::Paging, RingSettings::default()).unwrap();
    let mut pager = Pager { channel, out: BTreeMap::new(), asked: Vec::new(), next_out: None };
    qemu.qmp.execute("cont").unwrap();
    checkpoint(&mut toolstack, 1);
    let watched = job.symbols().find("WATCHED").unwrap().gpa.gfn();

    frames().for_each(|gfn| pager.takes_out(gfn));
    pager.serves_while(|| command(&mut qemu, "savevm one"));
    assert!(pager.out.is_empty(), "all that was out is in the snapshot, and so was asked for: {:?}", pager.out.keys());
    let is_foreign = |request: &Request| request.flags.contains(Flags::FOREIGN);
    assert!(pager.asked.iter().all(is_foreign), "{:?}", pager.asked);
    is_filled(&mut toolstack, &pager, 1);

    // What is out when the state is loaded takes what the snapshot has, whatever the pager has of it.
    fill(&mut toolstack, 7);
    frames().step_by(2).for_each(|gfn| pager.takes_out(gfn));
    pager.serves_while(|| command(&mut qemu, "loadvm one"));
    // The vCPU comes to its checkpoint again.
    assert_eq!(checkpoint(&mut toolstack, 1), VcpuId(0));
    is_filled(&mut toolstack, &pager, 1);

    // No more frames may be in than are: each that is read makes another one go.
    frames().step_by(2).for_each(|gfn| pager.takes_out(gfn));
    let held = toolstack.info().unwrap().resident;
    toolstack.values(&Call::Control(Control::SetBudget { frames: held })).unwrap();
    pager.next_out = Some(Gfn(FIRST + 1));
    pager.serves_while(|| command(&mut qemu, "savevm tight"));
    assert_eq!(pager.out.len() as u64, FRAMES / 2);
    pager.serves_while(|| command(&mut qemu, "loadvm tight"));
    assert_eq!(toolstack.info().unwrap().resident, held);
    pager.next_out = None;
    toolstack.values(&Call::Control(Control::SetBudget { frames: u64::MAX })).unwrap();
    is_filled(&mut toolstack, &pager, 1);

    // The guest goes on to its end.
    let vcpu = checkpoint(&mut toolstack, 1);
    toolstack.set_access(watched, AccessType::Rwx).unwrap();
    toolstack.values(&Call::Release { vcpu }).unwrap();
    let vcpu = checkpoint(&mut toolstack, 2);
    toolstack.values(&Call::Release { vcpu }).unwrap();
    let vcpu = checkpoint(&mut toolstack, 3);
    // QEMU may end before this reply is read.
    toolstack.send(&Call::Release { vcpu }).unwrap();
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{}", qemu.console());
}

#[test]
fn frames_that_are_out_are_saved_and_take_what_is_loaded() {
    saves_and_loads(Gate::Callback);
    if kernel_maps_write_protected() {
        saves_and_loads(Gate::Mmu);
    }
}
