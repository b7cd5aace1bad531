//! What an answer of `vm_event` may do besides letting its vCPU go on: every combination of flags, against what Xen 4.17's `vm_event_resume`
//! does with each.

mod common;

use common::{Bench, R, answer_due, touch};
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
const EMULATE_NOWRITE: u32 = 1 << 3;
const TOGGLE_SINGLESTEP: u32 = 1 << 4;
const SET_EMUL_READ_DATA: u32 = 1 << 5;
const DENY: u32 = 1 << 6;
const SET_REGISTERS: u32 = 1 << 8;
const SET_EMUL_INSN_DATA: u32 = 1 << 9;
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

    /// Where the vCPU stands then.
    fn rip(self) -> u64 {
        match self {
            Stop::Violation => touch(WATCHED, R).rip,
            Stop::Cpu(_) => RIP,
        }
    }

    /// How an instruction is done that is emulated by an answer with these bits (`vm_event_emulate_check`), if it is: `hvm_vm_event_do_resume` takes
    /// the first of the three flags that is set.
    fn emulated(self, bits: u32) -> Option<How> {
        let how = match bits {
            bits if bits & SET_EMUL_READ_DATA != 0 => How::Reads,
            bits if bits & EMULATE_NOWRITE != 0 => How::KeepsMemory,
            bits if bits & SET_EMUL_INSN_DATA != 0 => How::IsOther,
            _ => How::AsItIs,
        };
        let is_emulated = match self {
            Stop::Violation => true,
            // What is there is the breakpoint: without other code its emulation is the guest's exception.
            Stop::Cpu(CpuEventKind::Int3) => how == How::IsOther,
            // Done as it is, it need not be done apart. Code is none of its own in Xen: no answer about it brings any.
            Stop::Cpu(CpuEventKind::Descriptor) => matches!(how, How::Reads | How::KeepsMemory),
            Stop::Cpu(_) => false,
        };
        (bits & EMULATE != 0 && is_emulated).then_some(how)
    }

    /// What the engine says when the vCPU meets it again after an answer with these bits.
    fn again(self, bits: u32) -> Outcome {
        const INSTRUCTION: u32 = EMULATE | SET_EMUL_INSN_DATA;
        match self {
            _ if self.emulated(bits).is_some() => Outcome::Alone,
            Stop::Violation => answer_due(Ring::Access),
            Stop::Cpu(CpuEventKind::Int3) if bits & INSTRUCTION == INSTRUCTION => Outcome::Proceed,
            Stop::Cpu(kind) if kind.trap().is_some() => Outcome::Retry(Errno::EAGAIN),
            Stop::Cpu(kind) if kind.can_be_denied() && bits & DENY != 0 => Outcome::Skip,
            Stop::Cpu(_) => Outcome::Proceed,
        }
    }
}

/// How an instruction is emulated.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    AsItIs,
    Reads,
    KeepsMemory,
    IsOther,
}

/// How an instruction is that the vCPU may do alone.
fn how(bench: &Bench) -> Option<How> {
    let it = bench.domain.emulation(VcpuId(0))?;
    Some(match (&it.reads, it.keeps_memory, &it.code) {
        (None, false, None) => How::AsItIs,
        (Some(_), false, None) => How::Reads,
        (None, true, None) => How::KeepsMemory,
        (None, false, Some(_)) => How::IsOther,
        _ => panic!("{it:?} is two of them"),
    })
}

/// The vCPU comes back after its answer: it does its instruction alone, if it may, and one that it did so is told when it comes again.
fn comes_back(bench: &mut Bench, stop: Stop, bits: u32) {
    assert_eq!(how(bench), stop.emulated(bits), "{stop:?} {bits:#x}");
    let is_alone = stop.emulated(bits).is_some();
    if stop == Stop::Violation && !is_alone {
        return;
    }
    assert_eq!(stop.meet(bench), stop.again(bits), "{stop:?} {bits:#x}");
    if is_alone {
        assert_eq!(bench.step(&Input::Emulated { vcpu: VcpuId(0) }), Outcome::Proceed);
        assert_eq!(how(bench), None, "{stop:?} {bits:#x}");
    }
}

#[test]
fn every_combination_of_flags_does_what_xen_does_with_each() {
    let stops = CpuEventKind::ALL.map(Stop::Cpu).into_iter().chain([Stop::Violation]);
    for stop in stops {
        let mut bench = bench(MonitorMode::Sync);
        let mut steps = true;
        bench.must(Control::SingleStep { vcpu: VcpuId(0), on: true });
        for bits in 0..1 << 16 {
            if stop == Stop::Cpu(CpuEventKind::SingleStep) && !steps {
                bench.must(Control::SingleStep { vcpu: VcpuId(0), on: true });
                steps = true;
            }
            assert_eq!(stop.meet(&mut bench), answer_due(Ring::Access), "{stop:?} {bits:#x}");
            let request = bench.request(Ring::Access);
            let registers = registers(stop.rip());
            let view = answer(&mut bench, &request, bits, &registers);
            let due = (bits & SET_REGISTERS != 0).then(|| NewRegisters::of(&registers));
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
            comes_back(&mut bench, stop, bits);
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

/// Xen goes by the reason that the answer says, and emulates what stands where the answer has put the vCPU; here that is over.
#[test]
fn nothing_is_emulated_by_an_answer_about_something_else_or_elsewhere() {
    const CODE: u32 = VCPU_PAUSED | EMULATE | SET_EMUL_INSN_DATA;
    let int3 = Stop::Cpu(CpuEventKind::Int3);
    let violation = Event::Violation { gfn: Gfn(WATCHED), offset: 0, gla: None, rights: R, in_gpt: false };
    let (cr3, breakpoint) = (Cpu::Cr3 { new: 0x1000, old: 0x2000 }, Cpu::Int3 { rip: Gla(RIP), gfn: Gfn(4) });
    for (stop, about) in
        [(Stop::Violation, Event::Cpu(cr3)), (Stop::Violation, Event::Cpu(breakpoint)), (int3, violation)]
    {
        let mut bench = bench(MonitorMode::Sync);
        assert_eq!(stop.meet(&mut bench), answer_due(Ring::Access));
        let request = bench.request(Ring::Access);
        answer(&mut bench, &Request { event: about, ..request }, CODE, &registers(stop.rip()));
        assert_eq!((bench.woken(), how(&bench)), (vec![0], None), "{stop:?} answered as {about:?}");
    }
    for stop in [Stop::Violation, int3, Stop::Cpu(CpuEventKind::Descriptor)] {
        let mut bench = bench(MonitorMode::Sync);
        assert_eq!(stop.meet(&mut bench), answer_due(Ring::Access));
        let request = bench.request(Ring::Access);
        answer(&mut bench, &request, CODE | SET_REGISTERS, &registers(stop.rip() + 8));
        assert_eq!((bench.woken(), how(&bench)), (vec![0], None), "{stop:?}");
        assert_eq!(stop.meet(&mut bench), answer_due(Ring::Access), "{stop:?}");
    }
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
