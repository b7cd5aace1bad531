//! What an answer of `vm_event` may do besides letting its vCPU go on: every combination of flags, against what Xen 4.17's `vm_event_resume`
//! does with each.

mod common;

use common::{Bench, R, answer_due};
use mem_event::registers::{NewRegisters, Registers};
use mem_event::wire::{read_response, response_bytes};
use mem_event::{
    About, AccessType, Control, Cpu, CpuEvent, CpuEventKind, Effect, Errno, Event, Flags, Gfn, Gla, Input, Layout,
    MOST_VIEWS, MonitorMode, Outcome, Request, Response, Ring, VcpuId,
};

const RIP: u64 = 0x40_1234;
/// A frame that is watched.
const WATCHED: u64 = 3;

// The bits of `VM_EVENT_FLAG_*`.
const VCPU_PAUSED: u32 = 1 << 0;
const EMULATE: u32 = 1 << 2;
const TOGGLE_SINGLESTEP: u32 = 1 << 4;
const DENY: u32 = 1 << 6;
const SET_REGISTERS: u32 = 1 << 8;
const GET_NEXT_INTERRUPT: u32 = 1 << 10;
const FAST_SINGLESTEP: u32 = 1 << 11;

fn event(kind: CpuEventKind, rip: u64) -> Input {
    let event = CpuEvent { kind, value: 0x1000, old: 0x2000, number: 0xc000_0082, rip: Gla(rip), gfn: Gfn(4) };
    Input::CpuEvent { vcpu: VcpuId(0), event }
}

/// A listener of `vm_event`, and one vCPU that is stepped.
fn bench(mode: MonitorMode) -> Bench {
    let mut bench = Bench::new(1);
    assert_eq!(bench.try_enable(Ring::Access, Layout::VmEvent7, 0), Outcome::Proceed);
    for kind in CpuEventKind::ALL {
        bench.must(Control::Monitor { kind, mode, on_change_only: false });
    }
    bench.watch(WATCHED, AccessType::N);
    bench
}

/// An answer with these bits, as a consumer in C writes it, and this register file behind it; what stands where a fast step's view does.
fn answer(bench: &mut Bench, request: &Request, bits: u32, registers: &Registers) -> u16 {
    let mut bytes = response_bytes(Layout::VmEvent7, Ring::Access, &request.answer());
    bytes[4..8].copy_from_slice(&bits.to_le_bytes());
    for (place, word) in bytes[56..].chunks_exact_mut(8).zip(registers.words()) {
        place.copy_from_slice(&word.to_le_bytes());
    }
    bench.back(Ring::Access).answer_raw(&bytes);
    bench.kick(Ring::Access);
    u16::from_le_bytes([bytes[24], bytes[25]])
}

fn registers(rip: u64) -> Registers {
    let general = std::array::from_fn(|number| 0x1111_1111 * (number as u64 + 1));
    Registers { general, rflags: 0x8d7, rip, control: [9; 4], ..Registers::default() }
}

fn set(bench: &Bench) -> Option<NewRegisters> {
    let mut found = bench.effects.list.iter().filter_map(|effect| match effect {
        Effect::SetRegisters { vcpu: VcpuId(0), registers } => Some(**registers),
        _ => None,
    });
    found.next().inspect(|_| assert!(found.next().is_none()))
}

/// What stops the vCPU, and what it does again when it goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stop {
    Violation,
    Cpu(CpuEventKind),
}

impl Stop {
    fn meet(self, bench: &mut Bench) -> Outcome {
        match self {
            Stop::Violation => bench.access(0, WATCHED, R),
            Stop::Cpu(kind) => bench.step(&event(kind, RIP)),
        }
    }

    /// What the engine says when the vCPU meets it again after an answer with these bits.
    fn again(self, bits: u32) -> Outcome {
        match self {
            Stop::Violation => answer_due(Ring::Access),
            Stop::Cpu(kind) if kind.trap().is_some() => Outcome::Retry(Errno::EAGAIN),
            Stop::Cpu(kind) if kind.can_be_denied() && bits & DENY != 0 => Outcome::Skip,
            Stop::Cpu(_) => Outcome::Proceed,
        }
    }
}

#[test]
fn every_combination_of_flags_does_what_xen_does_with_each() {
    let stops = CpuEventKind::ALL.map(Stop::Cpu).into_iter().chain([Stop::Violation]);
    for stop in stops {
        let mut bench = bench(MonitorMode::Sync);
        let mut steps = true;
        bench.must(Control::SingleStep { vcpu: VcpuId(0), on: true });
        for bits in (0..1 << 16).filter(|bits| bits & EMULATE == 0) {
            if stop == Stop::Cpu(CpuEventKind::SingleStep) && !steps {
                bench.must(Control::SingleStep { vcpu: VcpuId(0), on: true });
                steps = true;
            }
            assert_eq!(stop.meet(&mut bench), answer_due(Ring::Access), "{stop:?} {bits:#x}");
            let request = bench.request(Ring::Access);
            let view = answer(&mut bench, &request, bits, &registers(RIP));
            let due = (bits & SET_REGISTERS != 0).then(|| NewRegisters::of(&registers(RIP)));
            assert_eq!(set(&bench), due, "{stop:?} {bits:#x}");
            let asks = bits & GET_NEXT_INTERRUPT != 0;
            let is_asked = bench.effects.list.contains(&Effect::NextInterrupt(VcpuId(0)));
            assert_eq!(
                (is_asked, bench.domain.tells_next_interrupt(VcpuId(0)) || !asks),
                (asks, true),
                "{stop:?} {bits:#x}"
            );
            let is_fast = bits & (TOGGLE_SINGLESTEP | FAST_SINGLESTEP) == FAST_SINGLESTEP && view < MOST_VIEWS;
            steps = is_fast || steps ^ (bits & TOGGLE_SINGLESTEP != 0);
            assert_eq!(bench.domain.single_steps(VcpuId(0)), steps, "{stop:?} {bits:#x}");
            if bits & VCPU_PAUSED == 0 {
                assert!(bench.woken().is_empty(), "{stop:?} {bits:#x}");
                assert_eq!(stop.meet(&mut bench), answer_due(Ring::Access), "{stop:?} {bits:#x}");
                // The ring's end lets it go, and what the answer denied is forgotten with it.
                bench.must(Control::Disable { ring: Ring::Access, drain: false });
                bench = restart(steps);
                continue;
            }
            assert_eq!(bench.woken(), [0], "{stop:?} {bits:#x}");
            if stop != Stop::Violation {
                assert_eq!(stop.meet(&mut bench), stop.again(bits), "{stop:?} {bits:#x}");
            }
            if is_fast {
                let step = event(CpuEventKind::SingleStep, RIP + 0x20);
                assert_eq!(bench.step(&step), Outcome::Proceed, "{stop:?} {bits:#x}");
                assert_eq!(bench.requests(Ring::Access), [], "{stop:?} {bits:#x}");
                steps = false;
                assert!(!bench.domain.single_steps(VcpuId(0)), "{stop:?} {bits:#x}");
            }
        }
    }
}

fn restart(steps: bool) -> Bench {
    let mut bench = bench(MonitorMode::Sync);
    bench.must(Control::SingleStep { vcpu: VcpuId(0), on: steps });
    bench
}

#[test]
fn registers_are_set_before_the_vcpu_is_woken() {
    let mut bench = bench(MonitorMode::Sync);
    assert_eq!(Stop::Violation.meet(&mut bench), answer_due(Ring::Access));
    let request = bench.request(Ring::Access);
    answer(&mut bench, &request, VCPU_PAUSED | SET_REGISTERS, &registers(RIP));
    let place = |is: fn(&Effect) -> bool| bench.effects.list.iter().position(is).unwrap();
    assert!(place(|it| matches!(it, Effect::SetRegisters { .. })) < place(|it| matches!(it, Effect::Wake(_))));
}

#[test]
fn a_vcpu_that_is_put_elsewhere_and_comes_back_has_its_event_anew() {
    for kind in CpuEventKind::ALL {
        let mut bench = bench(MonitorMode::Sync);
        bench.must(Control::SingleStep { vcpu: VcpuId(0), on: true });
        for _ in 0..3 {
            assert_eq!(bench.step(&event(kind, RIP)), answer_due(Ring::Access), "{kind}");
            let request = bench.request(Ring::Access);
            answer(&mut bench, &request, VCPU_PAUSED | SET_REGISTERS | DENY, &registers(RIP + 8));
            assert_eq!(bench.woken(), [0]);
        }
        // In a code segment that does not begin at 0 the register file's address is another one than the linear one.
        assert_eq!(bench.step(&event(kind, RIP)), answer_due(Ring::Access), "{kind}");
        let request = bench.request(Ring::Access);
        let mut same = registers(RIP - 0x40_0000);
        same.segments[0].base = 0x40_0000;
        answer(&mut bench, &request, VCPU_PAUSED | SET_REGISTERS, &same);
        assert_ne!(bench.step(&event(kind, RIP)), answer_due(Ring::Access), "{kind}: it stands where it stood");
    }
}

#[test]
fn what_is_denied_is_the_write_whose_reason_the_answer_says() {
    let (cr3, msr) = (CpuEventKind::Cr3, CpuEventKind::Msr);
    let about_cr3 = Event::Cpu(Cpu::Cr3 { new: 0x1000, old: 0x2000 });
    let about_cr0 = Event::Cpu(Cpu::Cr0 { new: 0x1000, old: 0x2000 });
    let about_msr = Event::Cpu(Cpu::Msr { msr: 1, new: 0x1000, old: 0x2000 });
    let cases = [
        (cr3, about_cr3, Outcome::Skip),
        (cr3, about_cr0, Outcome::Proceed),
        (cr3, about_msr, Outcome::Proceed),
        (msr, about_cr3, Outcome::Proceed),
        // Xen does not look which register it is.
        (msr, about_msr, Outcome::Skip),
    ];
    for (kind, about, due) in cases {
        let mut bench = bench(MonitorMode::Sync);
        assert_eq!(bench.step(&event(kind, RIP)), answer_due(Ring::Access));
        let request = bench.request(Ring::Access);
        let request = Request { event: about, ..request };
        answer(&mut bench, &request, VCPU_PAUSED | DENY, &registers(RIP));
        assert_eq!(bench.step(&event(kind, RIP)), due, "{kind} answered as {about:?}");
        assert_eq!(bench.step(&event(kind, RIP)), answer_due(Ring::Access), "the next one is another");
    }
}

#[test]
fn a_write_that_was_told_asynchronously_is_not_denied_any_more() {
    let mut bench = bench(MonitorMode::Async);
    assert_eq!(bench.step(&event(CpuEventKind::Cr3, RIP)), Outcome::Proceed);
    let request = bench.request(Ring::Access);
    answer(&mut bench, &request, DENY | SET_REGISTERS | TOGGLE_SINGLESTEP, &registers(RIP + 8));
    assert_eq!((set(&bench), bench.domain.single_steps(VcpuId(0))), (None, false), "the vCPU runs");
    assert_eq!(bench.step(&event(CpuEventKind::Cr3, RIP)), Outcome::Proceed);
}

/// There the bits are other flags, or none.
#[test]
fn the_older_layouts_know_none_of_these_flags() {
    for layout in [Layout::Flags16, Layout::Flags32] {
        let mut bench = Bench::new(1);
        assert_eq!(bench.try_enable(Ring::Access, layout, 0), Outcome::Proceed);
        bench.must(Control::Monitor { kind: CpuEventKind::Cr3, mode: MonitorMode::Sync, on_change_only: false });
        assert_eq!(bench.step(&event(CpuEventKind::Cr3, RIP)), answer_due(Ring::Access));
        let request = bench.request(Ring::Access);
        let flags = Flags(Flags::VCPU_PAUSED.0 | 0xffe0);
        bench.respond(Ring::Access, &Response { flags, about: About::Event(request.event), ..request.answer() });
        assert_eq!(set(&bench), None);
        assert_eq!(bench.step(&event(CpuEventKind::Cr3, RIP)), Outcome::Proceed, "{layout}");
    }
}

#[test]
fn the_flags_of_a_response_are_read_by_their_names() {
    let response = Response {
        flags: Flags::DENY,
        vcpu: 0,
        about: About::Other(0),
        other_version: None,
        view: mem_event::ViewId::HOST,
    };
    for (flag, bit) in [(Flags::DENY, 6), (Flags::SET_REGISTERS, 8), (Flags::FAST_SINGLESTEP, 11)] {
        let bytes = response_bytes(Layout::VmEvent7, Ring::Access, &Response { flags: flag, ..response });
        assert_eq!(bytes[4..8], (1_u32 << bit).to_le_bytes(), "{flag}");
        assert_eq!(read_response(Layout::VmEvent7, Ring::Access, &bytes).flags, flag);
    }
}
