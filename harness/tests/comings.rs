//! Consumers that come and go while the guest does what they ask for.

use crate::support::{answer, gates, memory_file, next_request, unless_busy};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::Scenario;
use mem_event::message::Call;
use mem_event::{Control, CpuEventKind, Gfn, MonitorMode, Ring};
use mem_event_client::{Channel, Client, RingSettings};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// The rounds of the guest until what nothing needs any more is surely taken out of its blocks.
const SOME: u64 = 100_000;
const LONGEST: Duration = Duration::from_secs(120);

/// The guest `code_faults`, in its rounds.
struct Guest {
    qemu: Qemu,
    folder: RunFolder,
    job: Job,
    toolstack: Client,
}

impl Guest {
    fn start(gate: Gate) -> Guest {
        let mut scenario = Scenario::bare("code_faults");
        scenario.consumers.listener.get_or_insert_default();
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = gate;
        // For those each block is looked at whatever is wanted.
        job.plugin.push("checkpoints=off".into());
        let folder = RunFolder::create().unwrap();
        let mut qemu = job.machine().unwrap().start(&folder).unwrap();
        let toolstack = Client::connect(&folder.file("socket")).unwrap();
        qemu.qmp.execute("cont").unwrap();
        Guest { qemu, folder, job, toolstack }
    }

    fn frame(&self, symbol: &str) -> Gfn {
        self.job.symbols().find(symbol).unwrap().gpa.gfn()
    }

    /// Waits until it has done so many more, without a call: as long as there are any, what nothing needs any more stays in its blocks.
    fn rounds(&self, more: u64) {
        let (memory, at) = (memory_file(self.qemu.pid()), self.frame("ROUNDS").gpa().0);
        let done = || {
            let mut count = [0; 8];
            memory.read_exact_at(&mut count, at).unwrap();
            u64::from_le_bytes(count)
        };
        let (begun, due) = (Instant::now(), done() + more);
        while done() < due {
            assert!(begun.elapsed() < LONGEST, "the guest does no more rounds");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// A consumer that is told of each write of CR3.
    fn listen(&self) -> Channel {
        let enable = || Channel::enable(&self.folder.file("socket"), Ring::Access, RingSettings::default());
        let mut channel = unless_busy(enable).unwrap();
        let (kind, mode) = (CpuEventKind::Cr3, MonitorMode::Sync);
        channel.client.control(Control::Monitor { kind, mode, on_change_only: false }).unwrap().unwrap();
        channel
    }

    fn stop(mut self) {
        let stop = Call::WriteFrame { gfn: self.frame("STOP"), offset: 0, bytes: vec![1] };
        self.toolstack.values(&stop).unwrap();
        self.qemu.wait().unwrap();
        let console = std::fs::read_to_string(self.folder.file("console")).unwrap();
        assert!(console.contains("verdict: success"), "{console}");
    }
}

fn disable(channel: &mut Channel) {
    channel.client.control(Control::Disable { ring: Ring::Access, drain: true }).unwrap().unwrap();
}

/// Leaves in order, with an answer to what came in between.
fn leave(mut channel: Channel) {
    disable(&mut channel);
    while let Some(request) = channel.take() {
        answer(&mut channel, &request);
    }
}

/// QEMU keeps the descriptor of an instruction that it could not fetch, and ended by it at its next block when the translation callback had been taken
/// back meanwhile.
#[test]
fn a_guest_that_jumps_astray_outlives_those_who_come_and_go() {
    for gate in gates() {
        let guest = Guest::start(gate);
        for _ in 0..4 {
            let mut channel = guest.listen();
            for _ in 0..3 {
                let request = next_request(&mut channel);
                answer(&mut channel, &request);
            }
            leave(channel);
            guest.rounds(SOME);
        }
        guest.stop();
    }
}

/// One that came between a consumer's last look at its ring and the ring's end was waited for for ever, and the ring was nobody's to release.
#[test]
fn a_ring_that_drains_ends_with_its_consumers_connection() {
    for gate in gates() {
        let guest = Guest::start(gate);
        let mut channel = guest.listen();
        let _unanswered = next_request(&mut channel);
        disable(&mut channel);
        drop(channel);
        guest.rounds(1);
        leave(guest.listen());
        guest.stop();
    }
}
