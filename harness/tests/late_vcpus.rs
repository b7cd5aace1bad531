//! vCPUs that are possible and not there, and vCPUs that come and go while the guest runs.

use crate::support::{answer, gates, machine_under, next_checkpoint, next_request, scenario, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::scenario::{Scenario, Thread};
use harness::verdict::Verdict;
use mem_event::message::{Call, VcpuState};
use mem_event::{AccessType, Control, Event, Gfn, PAGE_SIZE, Request, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use serde_json::json;

/// A built-in scenario on a machine that has one vCPU of two.
fn with_one_vcpu_of_two(mut scenario: Scenario) -> Scenario {
    scenario.machine.vcpus = 1;
    scenario.machine.args = ["-smp", "1,maxcpus=2"].map(str::to_owned).to_vec();
    scenario
}

/// QEMU ended its process: the plugin handed it the number of a vCPU that was never there.
#[test]
fn pages_are_watched_where_fewer_vcpus_are_there_than_possible() {
    for gate in gates() {
        let (_, sequence) = crate::support::run_under(gate, with_one_vcpu_of_two(scenario("page_cross")));
        assert_eq!(sequence, crate::support::run_under(gate, scenario("page_cross")).1, "{gate:?}");
    }
}

#[test]
fn a_vcpu_that_is_plugged_in_is_stopped_by_what_was_watched_and_paged_out_before() {
    for (gate, thread) in gates().into_iter().flat_map(|gate| [(gate, Thread::Multi), (gate, Thread::Single)]) {
        late_vcpu_is_stopped(gate, thread);
    }
}

fn late_vcpu_is_stopped(gate: Gate, thread: Thread) {
    let mut guest = with_one_vcpu_of_two(Scenario::bare("late_vcpu"));
    guest.machine.thread = thread;
    guest.consumers.listener.get_or_insert_default();
    let (mut qemu, folder, job) = machine_under(gate, guest);
    let socket = folder.file("socket");
    let mut toolstack = Client::connect(&socket).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let mut listener = Channel::enable(&socket, Ring::Access, RingSettings::default()).unwrap();
    let mut pager = Channel::enable(&socket, Ring::Paging, RingSettings::default()).unwrap();
    qemu.qmp.execute("cont").unwrap();
    let first = next_checkpoint(&mut toolstack).vcpu;
    let frame = |name: &str| -> Gfn { job.symbols().find(name).unwrap().gpa.gfn() };
    let (watched, paged) = (frame("WATCHED"), frame("PAGED"));
    toolstack.set_access(watched, AccessType::N).unwrap();
    pager.client.control(Control::Nominate { gfn: paged }).unwrap().unwrap();
    let content = pager.client.read(paged, 0, u16::try_from(PAGE_SIZE).unwrap()).unwrap();
    pager.client.control(Control::Evict { gfn: paged }).unwrap().unwrap();
    plug_in_a_vcpu(&mut qemu.qmp);
    toolstack.values(&Call::Release { vcpu: first }).unwrap();

    let request = next_request(&mut pager);
    assert_eq!((request.vcpu, request.frame()), (VcpuId(1), Some(paged)), "{gate:?}");
    pager.client.values(&Call::Load { gfn: paged, content: content.into() }).unwrap();
    answer(&mut pager, &request);

    let request = next_request(&mut listener);
    assert_eq!((request.vcpu, request.frame()), (VcpuId(1), Some(watched)), "{gate:?}");
    assert!(matches!(request.event, Event::Violation { offset: 8, .. }), "{:?}", request.event);
    listener.client.set_access(watched, AccessType::Rwx).unwrap();
    answer(&mut listener, &request);

    let last = next_checkpoint(&mut toolstack).vcpu;
    toolstack.send(&Call::Release { vcpu: last }).unwrap();
    wait_for("the guest's end", &qemu);
    let verdict = Verdict::on_console(&qemu.console());
    assert!(qemu.console().contains("verdict: success"), "{gate:?}: {verdict:?} {}", qemu.errors());
}

/// The vCPU waits outside of its block when it is ejected, or leaves the kernel for that. The answer that comes afterwards is for nobody.
#[test]
fn a_vcpu_that_waits_is_unplugged_and_the_one_that_comes_in_its_place_is_stopped_anew() {
    for gate in gates() {
        let mut unplugged = Unplugged::start(gate);
        unplugged.goes_on();
        let old = unplugged.is_stopped();
        // It is ejected while it waits.
        unplugged.goes_on();
        let gone = unplugged.toolstack.vcpus().unwrap()[1];
        assert_eq!(gone.state, VcpuState::Running, "{gate:?}: a vCPU that is not there waits for nothing");
        answer(&mut unplugged.listener, &old);
        unplugged.another_comes_and_all_ends_well();
    }
}

/// The guest `ejected_vcpu` and those around it.
struct Unplugged {
    qemu: Qemu,
    _folder: RunFolder,
    toolstack: Client,
    listener: Channel,
    watched: Gfn,
    /// The vCPU that stands at a checkpoint.
    stands: Option<VcpuId>,
}

impl Unplugged {
    /// Up to the first checkpoint, with the page watched.
    fn start(gate: Gate) -> Unplugged {
        let mut guest = Scenario::bare("ejected_vcpu");
        guest.machine.vcpus = 2;
        // QEMU has room for as many vCPUs' threads as are possible, those that have ended included.
        guest.machine.args = ["-smp", "2,maxcpus=3"].map(str::to_owned).to_vec();
        guest.consumers.listener.get_or_insert_default();
        let (mut qemu, folder, job) = machine_under(gate, guest);
        let socket = folder.file("socket");
        let mut toolstack = Client::connect(&socket).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let listener = Channel::enable(&socket, Ring::Access, RingSettings::default()).unwrap();
        qemu.qmp.execute("cont").unwrap();
        let stands = Some(next_checkpoint(&mut toolstack).vcpu);
        let watched = job.symbols().find("WATCHED").unwrap().gpa.gfn();
        let mut unplugged = Unplugged { qemu, _folder: folder, toolstack, listener, watched, stands };
        unplugged.allow(AccessType::N);
        unplugged
    }

    fn allow(&mut self, access: AccessType) {
        self.toolstack.set_access(self.watched, access).unwrap();
    }

    /// The first vCPU goes on to its next checkpoint.
    fn goes_on(&mut self) {
        self.toolstack.values(&Call::Release { vcpu: self.stands.take().unwrap() }).unwrap();
        self.stands = Some(next_checkpoint(&mut self.toolstack).vcpu);
    }

    /// The second one waits for the listener.
    fn is_stopped(&mut self) -> Request {
        let request = next_request(&mut self.listener);
        assert_eq!((request.vcpu, request.frame()), (VcpuId(1), Some(self.watched)));
        request
    }

    fn another_comes_and_all_ends_well(mut self) {
        plug_in_a_vcpu(&mut self.qemu.qmp);
        self.toolstack.values(&Call::Release { vcpu: self.stands.take().unwrap() }).unwrap();
        let request = self.is_stopped();
        self.allow(AccessType::Rwx);
        answer(&mut self.listener, &request);
        let last = next_checkpoint(&mut self.toolstack).vcpu;
        self.toolstack.send(&Call::Release { vcpu: last }).unwrap();
        wait_for("the guest's end", &self.qemu);
        assert!(self.qemu.console().contains("verdict: success"), "{} {}", self.qemu.console(), self.qemu.errors());
    }
}

/// The first of those that are possible and not there; QEMU lists the last one first.
fn plug_in_a_vcpu(qmp: &mut harness::machine::qmp::Qmp) {
    let possible = qmp.execute("query-hotpluggable-cpus").unwrap();
    let absent = possible.as_array().unwrap().iter().rfind(|vcpu| vcpu.get("qom-path").is_none()).unwrap();
    let mut device = absent["props"].clone();
    device["driver"] = absent["type"].clone();
    qmp.execute_with("device_add", &json!(device)).unwrap();
}
