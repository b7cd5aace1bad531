//! Breakpoints of a consumer's own: an answer means that the instruction is fetched again. What the consumer put back runs, and a breakpoint
//! that is still there is the guest's only where the consumer injects it; the older layouts' listeners, which only answer, need not.
//!
//! `MEM_EVENT_RECOILS` says how often each vCPU calls the function with the breakpoint (`ci/soak`: more often).

use crate::support::domain::how_often;
use crate::support::{gates, wait_for};
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu::Gate;
use harness::run::Job;
use harness::scenario::Scenario;
use harness::toolstack::log::Silent;
use harness::verdict::Kind;
use mem_event::message::{Call, Notice};
use mem_event::{Control, Cpu, CpuEventKind, Event, Flags, Gfn, Layout, MonitorMode, Request, Ring, Trap, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use rustix::event::{PollFd, PollFlags};
use std::collections::HashSet;
use std::path::Path;

const VCPUS: u64 = 2;
const INT3: u8 = 0xcc;
const NOP: u8 = 0x90;

/// The guest `recoil` and the consumer that puts a breakpoint into it.
pub struct Recoil {
    qemu: Qemu,
    _folder: RunFolder,
    job: Job,
    toolstack: Client,
    pub channel: Channel,
}

/// The built-in listener's breaks, by answers that bring the instruction: no vCPU runs past while another one goes over its break.
const BREAKS: &str = r#"
version = 1
about = "each call is a break"
rings.access.layout = "vm_event7"
consumers.listener.break = ["HOT"]

[machine]
guest = "recoil"
vcpus = 2

[[steps]]
at = 1
do = [{ write = { at = "MORE", value = 300 } }]

[[steps]]
at = 3
do = [{ expect = { at = "COUNT", value = 600 } }]
"#;

/// How many breaks there are by this gate; the guest has come through all its calls, and met its own alone.
fn breaks(gate: Gate, scenario: &str) -> usize {
    let mut job = Job::new(Scenario::parse(Path::new("breaks.toml"), scenario.into()).unwrap(), None).unwrap();
    job.gate = gate;
    let outcome = job.run(&mut Silent, None).unwrap();
    assert_eq!(outcome.verdict.kind, Kind::Success, "{}", outcome.verdict);
    outcome.records.iter().filter(|record| record.is_a_break()).count()
}

#[test]
fn each_call_of_two_vcpus_is_a_break_of_the_built_in_listeners() {
    for gate in gates() {
        assert_eq!(breaks(gate, BREAKS), 600, "{gate}");
    }
}

/// There no instruction is done alone, so each break is put back and stepped over; there is one vCPU, and nobody runs past.
#[test]
fn where_instructions_are_counted_the_built_in_listeners_breaks_recoil() {
    let counted = BREAKS.replace("vcpus = 2", "icount = 2").replace("value = 600", "value = 300");
    for gate in gates() {
        assert_eq!(breaks(gate, &counted), 300, "{gate}");
    }
}

#[test]
fn where_qemu_exports_nothing_a_break_that_the_guest_would_get_is_refused() {
    let mut job = Job::new(Scenario::parse(Path::new("breaks.toml"), BREAKS.into()).unwrap(), None).unwrap();
    job.plugin = vec!["falsify=names".into()];
    let said = match job.run(&mut Silent, None) {
        Ok(outcome) => outcome.verdict.to_string(),
        Err(error) => format!("{error:#}"),
    };
    assert!(said.contains("no break at") && said.contains("break by the frame"), "{said}");
}

impl Recoil {
    /// It goes on from its first checkpoint, with the breakpoint in its hot function.
    fn start(gate: Gate, layout: Layout, calls: u64) -> Recoil {
        let mut recoil = Recoil::standing(gate, layout, u32::try_from(VCPUS).unwrap(), calls);
        recoil.put(INT3);
        recoil.goes_on();
        recoil
    }

    /// It stands at its first checkpoint, before so many calls by each vCPU.
    pub fn standing(gate: Gate, layout: Layout, vcpus: u32, calls: u64) -> Recoil {
        let mut scenario = Scenario::bare("recoil");
        scenario.machine.vcpus = vcpus;
        scenario.consumers.listener.get_or_insert_default();
        let mut job = Job::new(scenario, None).unwrap();
        job.gate = gate;
        let folder = RunFolder::create().unwrap();
        let mut qemu = job.machine().unwrap().start(&folder).unwrap();
        let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
        toolstack.values(&Call::Subscribe).unwrap();
        let settings = RingSettings { layout, ..RingSettings::default() };
        let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, settings).unwrap();
        for kind in [CpuEventKind::Int3, CpuEventKind::SingleStep] {
            let monitor = Control::Monitor { kind, mode: MonitorMode::Sync, on_change_only: false };
            channel.client.control(monitor).unwrap().unwrap();
        }
        qemu.qmp.execute("cont").unwrap();
        while !matches!(toolstack.notice().unwrap(), Some(Notice::Checkpoint { .. })) {
            wait_for("the first checkpoint", &toolstack);
        }
        let mut recoil = Recoil { qemu, _folder: folder, job, toolstack, channel };
        let more = recoil.frame("MORE");
        recoil.channel.client.values(&write(more, &calls.to_le_bytes())).unwrap();
        recoil
    }

    pub fn goes_on(&mut self) {
        self.toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    }

    pub fn frame(&self, symbol: &str) -> Gfn {
        self.job.symbols().find(symbol).unwrap().gpa.gfn()
    }

    /// The first byte of the hot function.
    fn put(&mut self, byte: u8) {
        let hot = self.frame("HOT");
        self.channel.client.values(&write(hot, &[byte])).unwrap();
    }

    /// Serves the guest to its end, which must be a good one; what the plugin says.
    pub fn serve(mut self, mut serve: impl FnMut(&mut Recoil, &Request)) -> String {
        while !self.toolstack.has_ended() {
            while let Some(request) = self.channel.take() {
                serve(&mut self, &request);
            }
            let mut waited = [PollFd::new(&self.channel, PollFlags::IN), PollFd::new(&self.toolstack, PollFlags::IN)];
            let ready = rustix::event::poll(&mut waited, Some(&crate::support::DEADLINE)).unwrap();
            assert_ne!(ready, 0, "the guest hangs: {:?}", self.toolstack.vcpus());
            let heard = !waited[1].revents().is_empty();
            self.channel.clear_signal();
            while heard && let Ok(Some(notice)) = self.toolstack.notice() {
                if let Notice::Checkpoint { vcpu, .. } = notice {
                    // The guest may end before it replies.
                    let _ = self.toolstack.values(&Call::Release { vcpu });
                }
            }
        }
        self.qemu.wait().unwrap();
        let console = self.qemu.console();
        assert!(console.contains("verdict: success"), "{console}\n{}", self.qemu.errors());
        self.qemu.errors()
    }

    pub fn answer(&mut self, request: &Request, flags: Flags) {
        let mut answer = request.answer();
        answer.flags = answer.flags.union(flags);
        self.channel.answer(&answer);
        self.channel.kick().unwrap();
    }

    pub fn inject(&mut self, vcpu: VcpuId) {
        self.channel.client.control(Trap::breakpoint(vcpu)).unwrap().unwrap();
    }
}

fn write(gfn: Gfn, bytes: &[u8]) -> Call {
    Call::WriteFrame { gfn, offset: 0, bytes: bytes.into() }
}

#[test]
fn a_breakpoint_recoils_on_two_vcpus_and_the_guest_never_sees_it() {
    let calls = how_often("MEM_EVENT_RECOILS", 1500);
    for gate in gates() {
        let guest = Recoil::start(gate, Layout::VmEvent7, calls);
        let own = guest.frame("OWN");
        let (mut hits, mut stepping) = (0, HashSet::new());
        let said = guest.serve(|guest, request| match request.event {
            Event::Cpu(Cpu::Int3 { gfn, .. }) if gfn == own => {
                guest.inject(request.vcpu);
                guest.answer(request, Flags::NONE);
            }
            Event::Cpu(Cpu::Int3 { .. }) => {
                hits += 1;
                guest.put(NOP);
                stepping.insert(request.vcpu);
                guest.answer(request, Flags::TOGGLE_SINGLESTEP);
            }
            Event::Cpu(Cpu::SingleStep { .. }) => {
                stepping.remove(&request.vcpu);
                // As long as another vCPU steps over it, the breakpoint stays away.
                if stepping.is_empty() {
                    guest.put(INT3);
                }
                guest.answer(request, Flags::TOGGLE_SINGLESTEP);
            }
            other => panic!("{other:?}"),
        });
        println!("{gate}: {hits} of {} calls met the breakpoint; {said}", VCPUS * calls);
        // How many calls pass while the other vCPU steps over it is chance; that it comes back again and again is not.
        assert!(hits >= 10, "{hits} of {} calls met the breakpoint", VCPUS * calls);
    }
}

/// The breakpoint stays where it is: other vCPUs meet it while one goes over it.
#[test]
fn a_breakpoint_whose_instruction_comes_with_its_answer_stays_and_is_never_missed() {
    let calls = how_often("MEM_EVENT_RECOILS", 1500);
    for gate in gates() {
        let guest = Recoil::start(gate, Layout::VmEvent7, calls);
        let own = guest.frame("OWN");
        let (mut hits, mut injected) = (0, 0);
        guest.serve(|guest, request| match request.event {
            Event::Cpu(Cpu::Int3 { gfn, .. }) if gfn == own => {
                injected += 1;
                guest.inject(request.vcpu);
                guest.answer(request, Flags::NONE);
            }
            Event::Cpu(Cpu::Int3 { .. }) => {
                hits += 1;
                let response = request.answer().with(Flags::EMULATE.union(Flags::SET_EMUL_INSN_DATA));
                guest.channel.answer_with_data(&response, &[NOP]);
                guest.channel.kick().unwrap();
            }
            other => panic!("{other:?}"),
        });
        assert_eq!((hits, injected), (VCPUS * calls, 1), "{gate}");
    }
}

#[test]
fn what_was_put_back_before_the_answer_runs_in_every_layout() {
    for (gate, layout) in gates().into_iter().flat_map(|gate| Layout::ALL.map(|layout| (gate, layout))) {
        let guest = Recoil::start(gate, layout, 10);
        let own = guest.frame("OWN");
        let mut own_seen = 0;
        guest.serve(|guest, request| {
            let Event::Cpu(Cpu::Int3 { gfn, .. }) = request.event else { panic!("{request:?}") };
            if gfn != own {
                guest.put(NOP);
            } else {
                own_seen += 1;
                if layout == Layout::VmEvent7 {
                    guest.inject(request.vcpu);
                }
            }
            guest.answer(request, Flags::NONE);
        });
        assert_eq!(own_seen, 1, "{layout} {gate}: the guest's own breakpoint is one event");
    }
}

#[test]
fn a_breakpoint_of_vm_event_that_is_answered_and_still_there_is_an_event_again() {
    for gate in gates() {
        let guest = Recoil::start(gate, Layout::VmEvent7, 0);
        let mut seen = 0;
        guest.serve(|guest, request| {
            seen += 1;
            if seen == 3 {
                guest.inject(request.vcpu);
            }
            guest.answer(request, Flags::NONE);
        });
        assert_eq!(seen, 3);
    }
}
