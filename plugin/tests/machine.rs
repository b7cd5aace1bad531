//! How the machine lays out its memory, and the page cache.

use mem_event::message::Stays;
use mem_event::{Access, AccessSource, Gfn, Gpa, Rights, VcpuId};
use mem_event_plugin::arguments::{Arguments, Gate, choose_gate};
use mem_event_plugin::engine::kernel_stops::KernelStops;
use mem_event_plugin::host::touch::{FrameFault, StoppedAccess, Toucher};
use mem_event_plugin::insn::cache::{
    self,
    Part::{Read, Write},
};
use mem_event_plugin::memory::map::MemoryMap;
use mem_event_plugin::qemu::source::Source;

const GIB: u64 = 1 << 30;

#[test]
fn memory_goes_on_at_4_gib_above_the_hole() {
    let map = MemoryMap::new(6 * GIB, 2 * GIB);
    assert_eq!(map.offset(Gfn(0x7_ffff)), Some(2 * GIB - 4096));
    assert_eq!(map.offset(Gfn(0x8_0000)), None, "the hole");
    assert_eq!(map.offset(Gfn(0xf_ffff)), None, "the hole");
    assert_eq!(map.offset(Gfn(0x10_0000)), Some(2 * GIB));
    assert_eq!(map.offset(Gfn(0x1f_ffff)), Some(6 * GIB - 4096));
    assert_eq!(map.offset(Gfn(0x20_0000)), None, "above RAM");
    assert_eq!(map.ram(), [(Gfn(0), 0x8_0000), (Gfn(0x10_0000), 0x10_0000)]);
    assert_eq!(map.offset(Gfn(u64::MAX)), None);
}

#[test]
fn frame_and_offset_are_each_others_inverse() {
    for (size, below) in [(64 << 20, 2 * GIB), (6 * GIB, 0xc000_0000), (4 * GIB, 0x8000_0000)] {
        let map = MemoryMap::new(size, below);
        for offset in (0..size).step_by(1 << 20) {
            let gfn = map.frame(offset).expect("RAM");
            assert_eq!(map.offset(gfn), Some(offset));
        }
        assert_eq!(map.frame(size), None);
    }
}

#[test]
fn a_run_over_the_hole_is_two_runs() {
    let map = MemoryMap::new(4 * GIB, 2 * GIB);
    let mut runs = Vec::new();
    map.runs(2 * GIB - 8192, 2 * GIB + 4096, &mut runs);
    assert_eq!(runs, [(Gfn(0x7_fffe), 2), (Gfn(0x10_0000), 1)]);
    assert_eq!(map.contiguous(Gfn(0x7_fffe), 100), Some(2));
    assert_eq!(map.contiguous(Gfn(0x9_0000), 1), None);
    let runs: Vec<_> = map.runs_of(Gfn(0x7_fffe), 0x8_0004).collect();
    assert_eq!(runs, [(Gfn(0x7_fffe), 2), (Gfn(0x10_0000), 2)], "what lies between is no RAM");
}

#[test]
fn the_vga_and_rom_window_is_known() {
    assert!(MemoryMap::meets_window(Gfn(0), 0x1000));
    assert!(MemoryMap::meets_window(Gfn(0xff), 1));
    assert!(!MemoryMap::meets_window(Gfn(0x100), u64::MAX));
    assert!(!MemoryMap::meets_window(Gfn(0), 0xa0));
}

#[test]
fn a_row_of_frames_that_is_partly_no_ram_is_told_by_its_first_gap() {
    let map = MemoryMap::new(8 << 30, 2 << 30);
    assert_eq!(map.to_string(), "0x0 to 0x7ffff and 0x100000 to 0x27ffff");
    for (first, count, gap) in [
        (0, 0x8_0000, None),
        (0x10_0000, 0x18_0000, None),
        (0xf_ee00, 1, Some((0xf_ee00, 0xf_ee00))),
        (0x7_fffe, 4, Some((0x8_0000, 0x8_0001))),
        (0x7_fffe, 0x10_0000, Some((0x8_0000, 0xf_ffff))),
        (0x27_ffff, 3, Some((0x28_0000, 0x28_0001))),
    ] {
        let found = map.gap(Gfn(first), count).map(|(from, to)| (from.0, to.0));
        assert_eq!(found, gap, "{count:#x} frames at {first:#x}");
    }
}

#[test]
fn an_emptied_cache_knows_nothing_until_it_is_told_again() {
    let cache = cache::of(3).expect("a cache");
    cache.empty();
    for gla in [0, 0x1000, 0x1fff, 0xffff_ffff_ffff_f000] {
        assert!(!cache.allows(gla, Read), "new");
    }
    cache.revalidate();
    cache.allow(0x5123, Read);
    assert!(cache.allows(0x5fff, Read));
    assert!(!cache.allows(0x5fff, Write), "reading is not writing");
    assert!(!cache.allows(0x6000, Read));
    cache.empty();
    assert!(!cache.allows(0x5fff, Read));
    cache.allow(0x7000, Write);
    assert!(!cache.allows(0x7000, Write), "not valid again yet");
    cache.revalidate();
    assert!(!cache.allows(0x5fff, Read) && !cache.allows(0x7000, Write), "nothing survives");
    assert!(!cache.allows(0, Read) && !cache.allows(0x1000, Write));
}

#[test]
fn a_page_goes_back_only_when_nobody_stopped_on_it_lacks_an_answer() {
    let mut stopped = KernelStops::default();
    let fault = FrameFault { gfn: Gfn(7), offset: 0, write: false };
    let access =
        Access { gfn: Gfn(7), offset: 0, gla: None, rights: Rights::R, source: AccessSource::PageWalk, rip: 0 };
    let (first, second) = (Toucher::Vcpu(VcpuId(0)), Toucher::Vcpu(VcpuId(1)));
    stopped.add(StoppedAccess { toucher: first, fault, access, ahead: None });
    stopped.add(StoppedAccess { toucher: second, fault: FrameFault { write: true, ..fault }, access, ahead: None });
    stopped.answered(first, fault);
    assert!(stopped.is_touched(Gfn(7)), "the second lacks its answer");
    stopped.answered(second, FrameFault { write: true, ..fault });
    assert!(!stopped.is_touched(Gfn(7)));
    assert_eq!(
        stopped.let_go(Gfn(7)),
        [(VcpuId(0), fault, false), (VcpuId(1), FrameFault { write: true, ..fault }, false)]
    );
    assert!(stopped.is_empty());
}

#[test]
fn a_vcpu_that_left_and_comes_back_to_its_access_does_not_ask_again() {
    let mut stopped = KernelStops::default();
    let fault = FrameFault { gfn: Gfn(7), offset: 0, write: false };
    let access =
        Access { gfn: Gfn(7), offset: 0, gla: None, rights: Rights::R, source: AccessSource::PageWalk, rip: 0 };
    let stands = StoppedAccess { toucher: Toucher::Vcpu(VcpuId(0)), fault, access, ahead: None };
    assert!(!stopped.comes_back(&stands, 0), "for the first time");
    stopped.add(stands);
    assert_eq!(stopped.next_to_ask(), Some(stands));
    let told = |stopped: &mut KernelStops, left| stopped.stand(VcpuId(0)).unwrap().told = Some(left);
    told(&mut stopped, 3);
    assert!(stopped.comes_back(&stands, 4));
    assert_eq!((stopped.next_to_ask(), stopped.stays(VcpuId(0))), (None, None));
    // One that was told and did not leave holds something that keeps it from that.
    told(&mut stopped, 4);
    assert!(stopped.comes_back(&stands, 4));
    assert_eq!(stopped.stays(VcpuId(0)), Some(Stays::Held));
    let elsewhere = StoppedAccess { fault: FrameFault { gfn: Gfn(8), ..fault }, ..stands };
    assert!(!stopped.comes_back(&elsewhere, 4), "another access");
    assert_eq!(stopped.forget(VcpuId(0)), Some(Gfn(7)));
    assert!(stopped.is_empty() && !stopped.wake(VcpuId(0)));
}

#[test]
fn arguments_say_what_is_wrong_and_what_is_known() {
    let parse = |words: &[&str]| Arguments::parse(&words.iter().map(|word| (*word).into()).collect::<Vec<_>>());
    let arguments = parse(&["socket=/run/x", "gate=none", "checkpoints=on", "places=0x1000:0x20"]).expect("good");
    assert_eq!((arguments.gate, arguments.checkpoints), (Gate::None, true));
    assert_eq!(arguments.breakpoints, [Gpa(0x1000), Gpa(0x20)]);
    for (words, part) in [
        (&["gate=callback"][..], "socket=PATH"),
        (&["socket=a", "gate=mmu2"], "auto, callback, mmu or none"),
        (&["socket=a", "colour=red"], "colour"),
        (&["socket=a", "checkpoints=maybe"], "on or off"),
        (&["socket=a", "places=0x1000:main"], "places=0x1000:main: guest-physical addresses"),
        (&["socket=a", "places="], "guest-physical addresses"),
        (&["socket"], "has no value"),
    ] {
        let error = parse(words).expect_err("bad");
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn gate_auto_takes_the_hosts_mmu_where_kernel_qemu_and_registers_allow() {
    let lack = || Err("no right".to_owned());
    for source in [Source::Auto, Source::Direct] {
        assert_eq!(choose_gate(source, || Ok(())).0, Gate::Mmu);
        assert_eq!(choose_gate(source, lack), (Gate::Callback, "no right".to_owned()));
    }
    let (gate, why) = choose_gate(Source::Api, || panic!("nothing else is asked"));
    assert_eq!(gate, Gate::Callback);
    assert!(why.contains("registers=api"), "{why}");
}
