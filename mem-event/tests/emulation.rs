//! What is let through alone: once, one instruction, and spent by that instruction alone.

#![allow(clippy::cast_possible_truncation, reason = "sixteen bytes")]

mod common;

use common::{Bench, R, W, X, answer_due, flags, touch};
use mem_event::{
    Access, AccessType, Control, CpuEvent, CpuEventKind, Emulation, Flags, Gfn, Gla, Input, Layout, Outcome, Response,
    Rights, Ring, VcpuId,
};

const PASSES: Flags = Flags(Flags::VCPU_PAUSED.0 | Flags::EMULATE.0);

/// vCPU 0 stands at its read of frame 3, for which it has no right.
fn one_stopped(layout: Layout) -> Bench {
    let mut bench = Bench::new(2);
    assert_eq!(bench.try_enable(Ring::Access, layout, 4), Outcome::Proceed);
    bench.watch(3, AccessType::X);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    bench
}

fn answer(bench: &mut Bench, flags: Flags) {
    let request = bench.request(Ring::Access);
    bench.respond(Ring::Access, &Response { flags, ..request.answer() });
}

fn at(bench: &mut Bench, rip: u64, gfn: u64, rights: Rights) -> Outcome {
    bench.step(&Input::Access { vcpu: VcpuId(0), access: Access { rip, ..touch(gfn, rights) } })
}

fn ran(bench: &mut Bench) {
    assert_eq!(bench.step(&Input::Emulated { vcpu: VcpuId(0) }), Outcome::Proceed);
}

#[test]
fn the_instruction_passes_once_and_the_next_makes_its_event() {
    for layout in Layout::ALL {
        let mut bench = one_stopped(layout);
        answer(&mut bench, PASSES);
        assert_eq!(bench.access(0, 3, R), Outcome::Alone, "{layout}");
        ran(&mut bench);
        assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access), "{layout}");
    }
}

#[test]
fn as_long_as_it_was_kept_from_running_it_may_ask_again() {
    let mut bench = one_stopped(Layout::Flags32);
    answer(&mut bench, PASSES);
    for _ in 0..100 {
        assert_eq!(bench.access(0, 3, R), Outcome::Alone);
    }
    // Its other pages are its own too, whatever it wants there.
    bench.watch(4, AccessType::N);
    assert_eq!(bench.access(0, 4, W), Outcome::Alone);
    assert_eq!(bench.access(0, 5, W), Outcome::Proceed);
    assert_eq!(bench.access(0, 3, R), Outcome::Alone);
}

#[test]
fn another_instruction_is_none_of_it_and_ends_it() {
    let mut bench = one_stopped(Layout::Flags32);
    answer(&mut bench, PASSES);
    assert_eq!(at(&mut bench, 0x9000, 3, R), answer_due(Ring::Access));
    answer(&mut bench, Flags::VCPU_PAUSED);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    let event = |rip| CpuEvent { kind: CpuEventKind::Cr3, value: 1, old: 0, number: 0, rip: Gla(rip), gfn: Gfn(0) };
    answer(&mut bench, PASSES);
    let _ = bench.step(&Input::CpuEvent { vcpu: VcpuId(0), event: event(touch(3, R).rip) });
    assert_eq!(bench.access(0, 3, R), Outcome::Alone);
    let _ = bench.step(&Input::CpuEvent { vcpu: VcpuId(0), event: event(0x9000) });
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
}

#[test]
fn nobody_else_passes() {
    let mut bench = one_stopped(Layout::Flags32);
    answer(&mut bench, PASSES);
    assert_eq!(bench.access(1, 3, R), answer_due(Ring::Access));
    assert_eq!(bench.access(0, 3, R), Outcome::Alone);
}

#[test]
fn nothing_is_emulated_that_the_rights_allow_by_now() {
    let mut bench = one_stopped(Layout::Flags32);
    bench.watch(3, AccessType::Rx);
    answer(&mut bench, PASSES);
    assert!(bench.domain.emulation(VcpuId(0)).is_none());
    assert_eq!(bench.access(0, 3, R), Outcome::Proceed);
    // And what was granted ends where the rights come between the answer and the instruction.
    bench.watch(3, AccessType::X);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    answer(&mut bench, PASSES);
    bench.watch(3, AccessType::Rx);
    assert_eq!(bench.access(0, 3, R), Outcome::Proceed);
    bench.watch(3, AccessType::X);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
}

#[test]
fn a_frame_that_is_paged_out_is_brought_first() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 4);
    bench.enable(Ring::Paging, 4);
    bench.watch(3, AccessType::X);
    assert_eq!(bench.access(0, 3, R), answer_due(Ring::Access));
    bench.page_out(3);
    bench.page_out(4);
    answer(&mut bench, PASSES);
    for gfn in [3, 4] {
        assert_eq!(bench.access(0, gfn, R), answer_due(Ring::Paging));
        let request = bench.request(Ring::Paging);
        bench.must(Control::Prep { gfn: Gfn(gfn), buffer: true });
        bench.answer(Ring::Paging, &request);
    }
    assert_eq!(bench.access(0, 3, R), Outcome::Alone);
    assert_eq!(bench.access(0, 4, R), Outcome::Proceed);
    assert_eq!(bench.access(0, 3, R), Outcome::Alone);
}

#[test]
fn a_fetch_passes_as_a_read_does() {
    let mut bench = Bench::new(1);
    bench.enable(Ring::Access, 4);
    bench.watch(3, AccessType::Rw);
    assert_eq!(bench.access(0, 3, X), answer_due(Ring::Access));
    answer(&mut bench, PASSES);
    assert_eq!(bench.access(0, 3, X), Outcome::Alone);
}

/// A length, and as many bytes.
fn data(length: u32) -> Vec<u8> {
    [length.to_le_bytes().as_slice(), &[0xab; 400]].concat()
}

fn emulated(extra: Flags, data: &[u8]) -> (Option<Vec<u8>>, Option<[u8; 16]>, bool) {
    let mut bench = one_stopped(Layout::VmEvent7);
    let request = bench.request(Ring::Access);
    let response = Response { flags: flags(&[PASSES, extra]), ..request.answer() };
    bench.backs[Ring::Access.index()].as_mut().expect("a ring").answer_with_data(&response, data);
    bench.kick(Ring::Access);
    let emulation = bench.domain.emulation(VcpuId(0)).cloned();
    let Some(Emulation { reads, code, keeps_memory, .. }) = emulation else { panic!("nothing is emulated") };
    (reads, code, keeps_memory)
}

#[test]
fn the_data_of_a_response_are_the_instructions_own() {
    assert_eq!(emulated(Flags::NONE, &data(6)), (None, None, false), "without a flag they are nothing");
    assert_eq!(emulated(Flags::EMULATE_NOWRITE, &[]), (None, None, true));
    for (length, kept) in [(0, 0), (6, 6), (340, 340), (341, 340), (u32::MAX, 340)] {
        let expected = (Some(vec![0xab; kept]), None, false);
        assert_eq!(emulated(Flags::SET_EMUL_READ_DATA, &data(length)), expected, "{length}");
    }
    let code: [u8; 16] = std::array::from_fn(|at| at as u8);
    assert_eq!(emulated(Flags::SET_EMUL_INSN_DATA, &code), (None, Some(code), false));
}
