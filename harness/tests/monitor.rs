//! QEMU's monitor while others wait: a vCPU that is parked in its callback holds nobody up; a device that waits for a frame holds what its
//! thread holds.
//!
//! `MEM_EVENT_PARKED_SECONDS` says how long the vCPU is parked (`ci/soak`: a minute).

use crate::support::domain::how_often;
use crate::support::{checkpoint, machine, next_request, scenario, wait_for};
use harness::machine::process::Qemu;
use harness::run::Job;
use harness::scenario::Scenario;
use mem_event::message::Call;
use mem_event::{AccessType, Control, Gfn, Request, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use std::path::Path;
use std::time::{Duration, Instant};

fn status(qemu: &mut Qemu) -> String {
    qemu.qmp.execute("query-status").unwrap()["status"].as_str().unwrap().into()
}

fn connected(socket: &Path) -> Client {
    let mut toolstack = Client::connect(socket).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    toolstack
}

fn frame(job: &Job, symbol: &str) -> Gfn {
    job.symbols().find(symbol).unwrap().gpa.gfn()
}

/// Two words that the guest counts up.
fn counts(toolstack: &mut Client, at: Gfn) -> [u64; 2] {
    let bytes = toolstack.read(at, 0, 16).unwrap();
    [0, 8].map(|from| u64::from_le_bytes(bytes[from..from + 8].try_into().unwrap()))
}

#[test]
fn disk_network_and_monitor_go_on_while_a_vcpu_is_parked() {
    let seconds = how_often("MEM_EVENT_PARKED_SECONDS", 1);
    let mut traffic = Scenario::bare("traffic");
    traffic.machine.vcpus = 2;
    traffic.machine.disk = Some("virtio-blk-pci".into());
    let network = ["-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net"];
    traffic.machine.args = network.map(str::to_owned).to_vec();
    traffic.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine(traffic);
    let mut toolstack = connected(&folder.file("socket"));
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, RingSettings::default()).unwrap();
    qemu.qmp.execute("cont").unwrap();
    let vcpu = checkpoint(&mut toolstack, 1);
    toolstack.set_access(frame(&job, "WATCHED"), AccessType::N).unwrap();
    toolstack.values(&Call::Release { vcpu }).unwrap();
    let request = next_request(&mut channel);
    assert_eq!(request.vcpu, VcpuId(1));

    let (begun, counted) = (Instant::now(), frame(&job, "COUNTS"));
    let (mut asked, mut longest) = (0, Duration::ZERO);
    let mut before = counts(&mut toolstack, counted);
    while begun.elapsed() < Duration::from_secs(seconds) || asked == 0 {
        let question = Instant::now();
        qemu.qmp.execute("stop").unwrap();
        assert_eq!(status(&mut qemu), "paused");
        qemu.qmp.execute("cont").unwrap();
        assert_eq!(status(&mut qemu), "running");
        longest = longest.max(question.elapsed());
        asked += 1;
        // Both devices do more work before the next question.
        let until = Instant::now() + Duration::from_secs(60);
        let mut now = counts(&mut toolstack, counted);
        while now[0] <= before[0] || now[1] <= before[1] {
            assert!(Instant::now() < until, "no more traffic than {now:?}");
            now = counts(&mut toolstack, counted);
        }
        before = now;
    }
    assert!(!channel.is_pending(), "the event came once");
    println!(
        "parked for {:.1?}: {asked} times stop, query-status, cont, query-status, the four together at most {longest:.1?}; meanwhile \
         {} sectors read, {} questions answered over the network",
        begun.elapsed(),
        before[0],
        before[1]
    );
    toolstack.set_access(request.frame().unwrap(), AccessType::Rwx).unwrap();
    channel.answer(&request.answer());
    channel.kick().unwrap();
    let vcpu = checkpoint(&mut toolstack, 2);
    toolstack.send(&Call::Release { vcpu }).unwrap();
    wait_for("the guest's end", &qemu);
    assert!(qemu.console().contains("verdict: success"), "{}", qemu.console());
}

/// A guest whose disk is about to use a frame that is with a pager, who has the frame's content.
struct Waiting {
    qemu: Qemu,
    toolstack: Client,
    pager: Channel,
    request: Request,
    content: Vec<u8>,
    _folder: harness::machine::folder::RunFolder,
}

/// The frame is evicted at the guest's checkpoint `at`, before the device is told to use it.
fn with_a_device_that_waits(guest: &str, symbol: &str, at: u64) -> Waiting {
    let (mut qemu, folder, job) = machine(scenario(guest));
    let mut toolstack = connected(&folder.file("socket"));
    let mut pager = Channel::enable(&folder.file("socket"), Ring::Paging, RingSettings::default()).unwrap();
    qemu.qmp.execute("cont").unwrap();
    let vcpu = checkpoint(&mut toolstack, at);
    let gfn = frame(&job, symbol);
    pager.client.values(&Call::Control(Control::Nominate { gfn })).unwrap();
    let content = pager.client.read(gfn, 0, 4096).unwrap();
    pager.client.values(&Call::Control(Control::Evict { gfn })).unwrap();
    toolstack.values(&Call::Release { vcpu }).unwrap();
    let request = next_request(&mut pager);
    Waiting { qemu, toolstack, pager, request, content, _folder: folder }
}

impl Waiting {
    /// The frame comes back.
    fn load(pager: &mut Channel, request: &Request, content: &[u8]) {
        pager.client.values(&Call::Load { gfn: request.frame().unwrap(), content: content.into() }).unwrap();
        pager.answer(&request.answer());
        pager.kick().unwrap();
    }

    /// The guest goes on to its last checkpoint, and to its end.
    fn goes_on(mut self, last: u64) {
        let vcpu = checkpoint(&mut self.toolstack, last);
        self.toolstack.send(&Call::Release { vcpu }).unwrap();
        wait_for("the guest's end", &self.qemu);
        assert!(self.qemu.console().contains("verdict: success"), "{}", self.qemu.console());
    }
}

#[test]
fn the_monitor_answers_while_a_worker_of_a_disk_waits_for_a_frame() {
    let mut waiting = with_a_device_that_waits("disk_virtio", "PAGED", 4);
    let begun = Instant::now();
    assert_eq!(status(&mut waiting.qemu), "running");
    println!("query-status while a worker's system call waits for a frame: {:.1?}", begun.elapsed());
    Waiting::load(&mut waiting.pager, &waiting.request, &waiting.content);
    waiting.goes_on(6);
}

/// For how long a frame is held back.
const HELD: Duration = Duration::from_millis(300);

/// How long `query-status` takes while the frame is held back, and after.
fn asked_while_the_frame_is_held(waiting: &mut Waiting) -> Duration {
    let Waiting { qemu, pager, request, content, .. } = waiting;
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let answered = scope.spawn(|| {
            assert_eq!(status(qemu), "running");
            begun.elapsed()
        });
        // Nothing comes on the ring: only the time passes.
        harness::poll::readable(&pager.client, begun + HELD).unwrap();
        Waiting::load(pager, request, content);
        answered.join().unwrap()
    })
}

#[test]
fn the_monitor_answers_when_the_frame_is_back_that_the_main_loop_waits_for() {
    let mut waiting = with_a_device_that_waits("disk_ahci", "COMMANDS", 5);
    let took = asked_while_the_frame_is_held(&mut waiting);
    println!("query-status while QEMU's big lock waits {HELD:?} for a frame: {took:.1?}");
    assert!(
        took >= HELD,
        "it answered after {took:?}, before the frame was back: the page that says otherwise is wrong"
    );
    waiting.goes_on(6);
}

/// QEMU ends a device's requests before it takes it away, and holds its big lock meanwhile.
#[test]
fn a_disk_that_is_unplugged_while_its_request_waits_goes_when_the_frame_is_back() {
    let mut waiting = with_a_device_that_waits("unplug", "DATA", 1);
    let until = Instant::now() + Duration::from_secs(60);
    while !waiting.qemu.console().contains("the disk goes") {
        assert!(Instant::now() < until, "{}", waiting.qemu.console());
        std::thread::yield_now();
    }
    let took = asked_while_the_frame_is_held(&mut waiting);
    println!("query-status while a disk is unplugged whose request waits {HELD:?} for a frame: {took:.1?}");
    assert!(!waiting.qemu.console().contains("its request was done"));
    waiting.goes_on(2);
}
