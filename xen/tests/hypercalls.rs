//! Each hypercall from its bytes to what the domain is asked, and back: without a guest, on a domain that is made up.

#![allow(clippy::unwrap_used, reason = "what a test unwraps is part of what it asserts")]

mod support;

use mem_event::{
    AccessType, Control, CpuEventKind, Errno as Refusal, Gfn, MonitorMode, Ring, TrapKind, VcpuId, ViewId,
};
use support::{Bench, Made};
use xen::errno::Errno;
use xen::layout::record::{Field, Number};
use xen::layout::{
    access, altp2m, domctl, hvm_cpu, hvm_param, hypercall, multicall, paging, privcmd, reservation, sysctl,
};
use xen::tool::{Frame, Tool};

/// A domctl with what its union has.
fn domctl(version: u32, command: u32, domain: u16) -> Made {
    let mut made = Made::new(domctl::BYTES);
    made.set(domctl::CMD, command).set(domctl::INTERFACE_VERSION, version).set(domctl::DOMAIN, domain);
    made
}

#[test]
fn tools_of_another_interface_are_to_be_built_anew() {
    let mut bench = Bench::new();
    for (version, result) in [(0x14, Err(Errno::EACCES)), (0x15, Ok(0)), (0x17, Ok(0)), (0x18, Err(Errno::EACCES))] {
        let call = domctl(version, domctl::PAUSEDOMAIN, 1);
        assert_eq!(bench.call(hypercall::DOMCTL, &[call]), result, "{version:#x}");
    }
}

#[test]
fn pauses_are_counted() {
    let mut bench = Bench::new();
    let mut ask = |command| bench.call(hypercall::DOMCTL, &[domctl(0x15, command, 1)]);
    assert_eq!(ask(domctl::UNPAUSEDOMAIN), Err(Errno::EINVAL));
    assert_eq!(ask(domctl::PAUSEDOMAIN), Ok(0));
    assert_eq!(ask(domctl::PAUSEDOMAIN), Ok(0));
    assert_eq!(ask(domctl::UNPAUSEDOMAIN), Ok(0));
    assert_eq!(ask(domctl::UNPAUSEDOMAIN), Ok(0));
    assert_eq!(ask(domctl::UNPAUSEDOMAIN), Err(Errno::EINVAL));
    assert_eq!(bench.domain().pauses, 0);
}

/// The whole context of domain 1 as it is saved, with room for one more record.
fn saved(bench: &mut Bench) -> Vec<u8> {
    let mut call = domctl(0x15, domctl::GETHVMCONTEXT, 1);
    assert_eq!(bench.call(hypercall::DOMCTL, &[call]), Ok(0));
    let size: u32 = bench.get(domctl::CONTEXT_SIZE);
    let buffer = bench.list(&[]);
    call = domctl(0x15, domctl::GETHVMCONTEXT, 1);
    call.set(domctl::CONTEXT_SIZE, size).set(domctl::CONTEXT_BUFFER, buffer);
    assert_eq!(bench.call(hypercall::DOMCTL, &[call]), Ok(0));
    let mut saved = vec![0; size as usize];
    bench.tool.read(buffer, &mut saved).unwrap();
    // The made-up registers are numbers in order, and no processor's.
    for vcpu in [0, 1] {
        patch(&mut saved, vcpu, hvm_cpu::CR0, 0x8000_0011);
        patch(&mut saved, vcpu, hvm_cpu::IDTR_LIMIT, 0xfff);
        for rights in [hvm_cpu::CS_ARBYTES, hvm_cpu::SS_ARBYTES, hvm_cpu::DS_ARBYTES, hvm_cpu::ES_ARBYTES] {
            patch(&mut saved, vcpu, rights, 0xc93);
        }
    }
    saved
}

/// Where a vCPU's record begins in a context: behind the header, and the records before it, each with its descriptor.
fn record_at(vcpu: usize) -> usize {
    8 + 24 + vcpu * (8 + 1032) + 8
}

fn patch<T: Number>(saved: &mut [u8], vcpu: usize, field: Field<T>, value: T) {
    let (at, bytes) = (record_at(vcpu) + field.offset(), value.bytes());
    saved[at..at + bytes.len()].copy_from_slice(&bytes);
}

fn sets(bench: &mut Bench, saved: &[u8]) -> Result<i64, Errno> {
    let buffer = bench.list(&[]);
    bench.tool.write(buffer, saved).unwrap();
    let mut call = domctl(0x15, domctl::SETHVMCONTEXT, 1);
    call.set(domctl::CONTEXT_SIZE, u32::try_from(saved.len()).unwrap()).set(domctl::CONTEXT_BUFFER, buffer);
    bench.call(hypercall::DOMCTL, &[call])
}

#[test]
fn a_saved_context_with_another_rip_sets_that_register_of_that_vcpu_alone() {
    let mut bench = Bench::new();
    let mut saved = saved(&mut bench);
    assert_eq!(sets(&mut bench, &saved), Ok(0));
    let before = std::mem::take(&mut bench.domain().contexts);
    assert_eq!(before.iter().map(|(vcpu, _)| vcpu.0).collect::<Vec<_>>(), [0, 1]);
    patch(&mut saved, 1, hvm_cpu::RIP, 0xffff_8000_1234_5678);
    // The counter goes on whatever the record says.
    patch(&mut saved, 1, hvm_cpu::TSC, 7);
    assert_eq!(sets(&mut bench, &saved), Ok(0));
    let mut wanted = before.clone();
    wanted[1].1.registers.rip = 0xffff_8000_1234_5678;
    assert_eq!(bench.domain().contexts, wanted);
    assert_eq!(bench.domain().pauses, 0);
}

#[test]
fn a_segments_limit_is_bytes_in_a_record_and_what_the_descriptor_has_in_a_vcpu() {
    let mut bench = Bench::new();
    let mut saved = saved(&mut bench);
    for (rights, bytes, limit) in [(0xc9b, 0xffff_ffff, 0xf_ffff), (0x49b, 0x123, 0x123)] {
        patch(&mut saved, 0, hvm_cpu::CS_ARBYTES, rights);
        patch(&mut saved, 0, hvm_cpu::CS_LIMIT, bytes);
        assert_eq!(sets(&mut bench, &saved), Ok(0));
        let cs = std::mem::take(&mut bench.domain().contexts)[0].1.registers.segments[0];
        assert_eq!((u32::from(cs.rights), cs.limit), (rights, limit));
    }
}

#[test]
fn what_one_vcpu_refuses_is_set_of_none_and_named() {
    let mut bench = Bench::new();
    let saved = saved(&mut bench);
    assert_eq!(sets(&mut bench, &saved), Ok(0));
    let before = std::mem::take(&mut bench.domain().contexts);
    let mut other = saved.clone();
    patch(&mut other, 0, hvm_cpu::RAX, 0x1111);
    patch(&mut other, 1, hvm_cpu::RIP, 0x2222);
    bench.domain().cannot_set = Some((VcpuId(1), 0x2222));
    assert_eq!(sets(&mut bench, &other), Err(Errno::EOPNOTSUPP));
    assert!(bench.xen.unknown.take()[0].contains("RIP cannot be set"));
    let asked = std::mem::take(&mut bench.domain().contexts);
    assert_eq!(asked.len(), 2);
    // As it was before: the made-up vCPU always tells the same, which is no processor's CR0.
    let (vcpu, back) = asked[1];
    assert_eq!((vcpu, back.registers.general), (before[0].0, before[0].1.registers.general));
    assert_eq!(bench.domain().pauses, 0);
}

#[test]
fn a_context_that_xen_refuses_is_refused_with_its_errors() {
    let mut bench = Bench::new();
    let saved = saved(&mut bench);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = saved.clone();
        change(&mut changed);
        changed
    };
    let refused: [(&str, Vec<u8>, Errno); 11] = [
        ("nothing", Vec::new(), Errno::ENODATA),
        ("no header", saved[32..].to_vec(), Errno::ENODATA),
        ("another magic", with(&|saved| saved[8] ^= 1), Errno::EINVAL),
        ("another version", with(&|saved| saved[12] ^= 1), Errno::EINVAL),
        ("no end", saved[..saved.len() - 8].to_vec(), Errno::ENODATA),
        ("a record of vCPU 2", with(&|saved| saved[record_at(1) - 6] = 2), Errno::EINVAL),
        ("a record that is not known", with(&|saved| saved[record_at(1) - 8] = 5), Errno::EINVAL),
        ("CR0 without ET", with(&|saved| patch(saved, 0, hvm_cpu::CR0, 0x8000_0001)), Errno::EINVAL),
        ("paging without protection", with(&|saved| patch(saved, 0, hvm_cpu::CR0, 0x8000_0010)), Errno::EINVAL),
        ("a flag that is not known", with(&|saved| patch(saved, 0, hvm_cpu::FLAGS, 2)), Errno::EINVAL),
        ("a wide selector", with(&|saved| patch(saved, 0, hvm_cpu::CS_SEL, 0x10000)), Errno::EINVAL),
    ];
    for (what, context, errno) in refused {
        assert_eq!(sets(&mut bench, &context), Err(errno), "{what}");
    }
    // What cannot be done here.
    let cannot: [(&str, Vec<u8>, Errno); 3] = [
        ("registers of the FPU", with(&|saved| patch(saved, 0, hvm_cpu::FLAGS, 1)), Errno::EOPNOTSUPP),
        ("a pending event", with(&|saved| patch(saved, 0, hvm_cpu::PENDING_EVENT, 0x8000_0003)), Errno::EOPNOTSUPP),
        (
            "without a record of vCPU 0",
            with(&|saved| drop(saved.drain(record_at(0) - 8..record_at(1) - 8))),
            Errno::EINVAL,
        ),
    ];
    bench.xen.unknown.take();
    for (what, context, errno) in cannot {
        assert_eq!(sets(&mut bench, &context), Err(errno), "{what}");
        assert!(bench.xen.unknown.take()[0].contains(what), "{what}");
    }
    assert_eq!(bench.domain().contexts, []);
    assert_eq!(bench.domain().pauses, 0);
    let mut call = domctl(0x15, domctl::SETHVMCONTEXT, 1);
    call.set(domctl::CONTEXT_SIZE, 8).set(domctl::CONTEXT_BUFFER, 1);
    assert_eq!(bench.call(hypercall::DOMCTL, &[call]), Err(Errno::EFAULT));
}

#[test]
fn a_vcpu_that_waits_for_an_answer_is_online_and_does_not_run() {
    let mut bench = Bench::new();
    let mut ask = |vcpu| {
        let mut call = domctl(0x15, domctl::GETVCPUINFO, 1);
        call.set(domctl::VCPU, vcpu).set(domctl::VCPU_TIME, 77);
        let result = bench.call(hypercall::DOMCTL, &[call]);
        let told = [domctl::VCPU_ONLINE, domctl::VCPU_BLOCKED, domctl::VCPU_RUNNING].map(|field| bench.get(field));
        (result, told, bench.get(domctl::VCPU_TIME), bench.get(domctl::VCPU_CPU))
    };
    assert_eq!(ask(0), (Ok(0), [1, 0, 1], 0, 0));
    assert_eq!(ask(1), (Ok(0), [1, 0, 0], 0, 1));
    assert_eq!(ask(2).0, Err(Errno::EINVAL));
}

#[test]
fn a_domain_that_cannot_stop_is_paused_for_the_tool_alone_and_a_line_says_so() {
    let mut bench = Bench::new();
    bench.domain().cannot_stop = true;
    assert_eq!(bench.call(hypercall::DOMCTL, &[domctl(0x15, domctl::PAUSEDOMAIN, 1)]), Ok(0));
    assert!(bench.xen.unknown.take()[0].contains("its vCPUs run on"));
    bench.domain().cannot_stop = false;
    assert_eq!(bench.call(hypercall::DOMCTL, &[domctl(0x15, domctl::PAUSEDOMAIN, 1)]), Ok(0));
    // It stands still until the last pause is taken back.
    for pauses in [1, 0] {
        assert_eq!(bench.call(hypercall::DOMCTL, &[domctl(0x15, domctl::UNPAUSEDOMAIN, 1)]), Ok(0));
        assert_eq!(bench.domain().pauses, pauses);
    }
}

/// A request for a vCPU's record into a buffer of so many bytes behind the call.
fn record(kind: u32, vcpu: u32, bytes: u64, buffer: u64) -> Made {
    let mut made = domctl(0x15, domctl::GETHVMCONTEXT_PARTIAL, 1);
    made.set(domctl::RECORD_TYPE, kind).set(domctl::RECORD_INSTANCE, vcpu);
    made.set(domctl::RECORD_BYTES, bytes).set(domctl::RECORD_BUFFER, buffer);
    made
}

#[test]
fn a_vcpus_record_has_each_register_in_its_place_and_the_domain_stands_still_meanwhile() {
    let mut bench = Bench::new();
    let buffer = bench.list(&[]);
    assert_eq!(bench.call(hypercall::DOMCTL, &[record(2, 1, 0, 0)]), Ok(0));
    assert_eq!(bench.get(domctl::RECORD_BYTES), 1032);
    assert_eq!(bench.call(hypercall::DOMCTL, &[record(2, 1, 1031, buffer)]), Err(Errno::ENOBUFS));
    assert_eq!(bench.call(hypercall::DOMCTL, &[record(2, 2, 1032, buffer)]), Err(Errno::ENOENT));
    assert_eq!(bench.call(hypercall::DOMCTL, &[record(14, 0, 1032, buffer)]), Err(Errno::EINVAL));
    assert_eq!(bench.call(hypercall::DOMCTL, &[record(2, 1, 1032, buffer)]), Ok(0));
    assert_eq!(bench.domain().pauses, 0);
    let word = |field: Field<u64>| bench.word(buffer - support::BASE + field.offset() as u64);
    // In a vm_event slot RBX is the fourth, RSP the fifth; in a context RBX is the second.
    assert_eq!([word(hvm_cpu::RAX), word(hvm_cpu::RBX), word(hvm_cpu::RSP)], [1000, 1003, 1004]);
    assert_eq!(
        [word(hvm_cpu::RIP), word(hvm_cpu::CR3), word(hvm_cpu::DR7), word(hvm_cpu::EFER)],
        [1019, 1022, 1018, 1027]
    );
    assert_eq!([word(hvm_cpu::FS_BASE), word(hvm_cpu::TR_BASE), word(hvm_cpu::TSC)], [1035, 1043, 1051]);
}

#[test]
fn a_whole_context_is_a_header_each_vcpu_and_an_end() {
    let mut bench = Bench::new();
    let buffer = bench.list(&[]);
    let mut ask = |bytes: u32, buffer: u64| {
        let mut made = domctl(0x15, domctl::GETHVMCONTEXT, 1);
        made.set(domctl::CONTEXT_SIZE, bytes).set(domctl::CONTEXT_BUFFER, buffer);
        bench.call(hypercall::DOMCTL, &[made])
    };
    const BYTES: u32 = 8 + 24 + 2 * (8 + 1032) + 8;
    assert_eq!(ask(BYTES - 1, buffer), Err(Errno::ENOSPC));
    assert_eq!(ask(0, 0), Ok(0));
    assert_eq!(ask(BYTES, buffer), Ok(0));
    assert_eq!(bench.get(domctl::CONTEXT_SIZE), BYTES);
    let place = buffer - support::BASE;
    let (mut at, mut kinds) = (0, Vec::new());
    while at < u64::from(BYTES) {
        let descriptor = bench.word(place + at);
        kinds.push((descriptor & 0xffff, descriptor >> 16 & 0xffff));
        at += 8 + (descriptor >> 32);
    }
    assert_eq!((at, kinds), (BYTES.into(), vec![(1, 0), (2, 0), (2, 1), (0, 0)]));
    assert_eq!(bench.word(place + 8), 1 << 32 | 0x5438_1286);
}

#[test]
fn a_domain_that_is_not_there_is_esrch_in_every_call() {
    let mut bench = Bench::new();
    let mut access = Made::new(access::BYTES);
    access.set(access::DOMID, 9);
    let mut paging = Made::new(paging::BYTES);
    paging.set(paging::DOMAIN, 9);
    let mut param = Made::new(hvm_param::BYTES);
    param.set(hvm_param::DOMID, 9).set(hvm_param::INDEX, hvm_param::MONITOR_RING_PFN);
    for (op, command, made) in [
        (hypercall::DOMCTL, None, domctl(0x15, domctl::GETDOMAININFO, 9)),
        (hypercall::MEMORY_OP, Some(reservation::ACCESS), access),
        (hypercall::MEMORY_OP, Some(reservation::PAGING), paging),
        (hypercall::HVM_OP, Some(hvm_param::GET), param),
    ] {
        assert_eq!(bench.command(op, command, &made), Err(Errno::ESRCH), "{op} {command:?}");
    }
    assert_eq!(bench.asked(), []);
}

#[test]
fn a_ring_is_enabled_mapped_and_disabled() {
    let mut bench = Bench::new();
    let mut param = Made::new(hvm_param::BYTES);
    param.set(hvm_param::DOMID, 1).set(hvm_param::INDEX, hvm_param::MONITOR_RING_PFN);
    bench.command(hypercall::HVM_OP, Some(hvm_param::GET), &param).unwrap();
    let frame = bench.get(hvm_param::VALUE);
    assert_eq!(frame, 0xf_eff9);

    let mut enable = domctl(0x15, domctl::VM_EVENT, 1);
    enable.set(domctl::VM_EVENT_OP, domctl::RING_ENABLE).set(domctl::VM_EVENT_MODE, domctl::MODE_MONITOR);
    bench.call(hypercall::DOMCTL, std::slice::from_ref(&enable)).unwrap();
    assert_eq!(bench.get(domctl::VM_EVENT_PORT), 42);
    assert_eq!(bench.map(&[frame]), (Ok(0), vec![0]));
    assert_eq!((bench.mapped(), bench.domain().maps.len()), (1, 0), "a ring's page is no frame of the domain's");
    assert_eq!(bench.call(hypercall::DOMCTL, &[enable]), Err(Errno::EBUSY));

    let mut disable = domctl(0x15, domctl::VM_EVENT, 1);
    disable.set(domctl::VM_EVENT_OP, domctl::RING_DISABLE).set(domctl::VM_EVENT_MODE, domctl::MODE_MONITOR);
    bench.call(hypercall::DOMCTL, &[disable]).unwrap();
    let disabled = Control::Disable { ring: Ring::Access, drain: false };
    assert_eq!(bench.asked(), [Control::SetAccessRequired { required: false }, disabled]);
}

#[test]
fn frames_are_pinned_when_they_are_mapped_and_each_has_its_own_error() {
    let mut bench = Bench::new();
    let frame = |gfn| Frame { domain: 1, gfn: Gfn(gfn) };
    bench.domain().mappings = [Errno::ENOENT, Errno::EINVAL].into();
    assert_eq!(
        bench.map(&[0x10, 0x900, 0x11]),
        (Err(Errno::ENOENT), vec![-2, -22, 0]),
        "the library asks again for one"
    );
    assert_eq!(bench.domain().maps, [(Gfn(0x11), false)]);
    assert_eq!(bench.asked(), []);
    // Where a page is mapped already the frame before it goes.
    assert_eq!(bench.map(&[0x10, 0x12, 0x13]).0, Ok(0));
    assert_eq!(bench.asked(), [Control::Unpin { gfn: Gfn(0x11) }]);
    let seen: Vec<Frame> = bench.tool.frames.values().copied().collect();
    assert_eq!(seen, [frame(0x10), frame(0x12), frame(0x13)]);
    bench.xen.unmapped(&seen[1..]);
    assert_eq!(bench.asked(), [Control::Unpin { gfn: Gfn(0x12) }, Control::Unpin { gfn: Gfn(0x13) }]);
    bench.domain().mappings = [Errno::EPERM].into();
    assert_eq!(bench.map(&[0x10]), (Ok(0), vec![-1]));
    assert_eq!(
        bench.xen.unknown.take(),
        ["frames of domain 1 cannot be mapped (EPERM): start the plugin with foreign=map"]
    );
}

#[test]
fn a_rings_frame_can_be_taken_out_and_put_back() {
    let mut bench = Bench::new();
    let frame = 0xf_eff9u64;
    let mut call = |command| {
        let mut made = Made::new(reservation::BYTES);
        made.set(reservation::EXTENTS, bench.list(&[frame])).set(reservation::NR_EXTENTS, 1);
        made.set(reservation::DOMID, 1);
        let done = bench.command(hypercall::MEMORY_OP, Some(command), &made);
        (done, bench.map(&[frame]).1)
    };
    assert_eq!(call(reservation::DECREASE), (Ok(1), vec![-22]));
    assert_eq!(call(reservation::POPULATE), (Ok(1), vec![0]));
}

#[test]
fn a_frame_that_is_populated_comes_back_empty_if_it_was_paged_out() {
    for (what, answer, done) in [("it is paged out", Ok(0), 1), ("it is there", Err(Errno::ENOENT), 0)] {
        let mut bench = Bench::new();
        bench.domain().answers.extend([Err(Errno::EBUSY), answer]);
        let mut made = Made::new(reservation::BYTES);
        made.set(reservation::EXTENTS, bench.list(&[7])).set(reservation::NR_EXTENTS, 1);
        made.set(reservation::DOMID, 1);
        assert_eq!(bench.command(hypercall::MEMORY_OP, Some(reservation::POPULATE), &made), Ok(done), "{what}");
        let load = Control::Prep { gfn: Gfn(7), buffer: true };
        assert_eq!(bench.asked(), [Control::Populate { gfn: Gfn(7) }, load]);
        assert_eq!(bench.domain().loaded, [0; 4096]);
    }
    // One that was taken out has memory again, where the budget has it.
    for (answer, done) in [(Ok(0), 1), (Err(Errno::ENOMEM), 0)] {
        let mut bench = Bench::new();
        bench.domain().answers.push_back(answer);
        let mut made = Made::new(reservation::BYTES);
        made.set(reservation::EXTENTS, bench.list(&[7])).set(reservation::NR_EXTENTS, 1);
        made.set(reservation::DOMID, 1);
        assert_eq!(bench.command(hypercall::MEMORY_OP, Some(reservation::POPULATE), &made), Ok(done));
        assert_eq!(bench.asked(), [Control::Populate { gfn: Gfn(7) }]);
    }
}

#[test]
fn rights_are_set_where_there_is_ram_beside_the_window_of_vga_and_rom() {
    let mut bench = Bench::new();
    let set = |first, count| Control::SetAccess { first: Gfn(first), count, access: AccessType::Rx };
    let cases = [
        (0, 0x200, Ok(0), vec![set(0, 0xa0), set(0x100, 0x100)]),
        (0x110, 1, Ok(0), vec![set(0x110, 1)]),
        (0xa0, 0x60, Ok(0), vec![]),
        (0, 0x201, Err(Errno::EINVAL), vec![]),
        (5, 0, Err(Errno::EINVAL), vec![]),
        (u64::MAX, 0, Ok(0), vec![Control::SetDefaultAccess { access: AccessType::Rx }]),
    ];
    bench.domain().has_ring = true;
    for (pfn, nr, result, asked) in cases {
        let mut made = Made::new(access::BYTES);
        made.set(access::OP, access::SET).set(access::ACCESS, 5).set(access::DOMID, 1);
        made.set(access::NR, nr).set(access::PFN, pfn);
        assert_eq!(bench.command(hypercall::MEMORY_OP, Some(reservation::ACCESS), &made), result, "{pfn:#x} {nr:#x}");
        assert_eq!(bench.asked(), asked, "{pfn:#x} {nr:#x}");
    }
}

#[test]
fn without_a_ring_there_are_no_rights_to_set() {
    let mut bench = Bench::new();
    let mut made = Made::new(access::BYTES);
    made.set(access::OP, access::SET).set(access::ACCESS, 5).set(access::DOMID, 1).set(access::NR, 1);
    assert_eq!(bench.command(hypercall::MEMORY_OP, Some(reservation::ACCESS), &made), Err(Errno::ENODEV));
}

#[test]
fn the_number_that_means_the_default_is_that_of_the_tools_release() {
    for (version, number, result) in [
        (0x15, 10, Ok(0)),
        (0x15, 11, Err(Errno::EINVAL)),
        (0x17, 10, Err(Errno::EOPNOTSUPP)),
        (0x17, 11, Ok(0)),
        (0x17, 12, Err(Errno::EINVAL)),
    ] {
        let mut bench = Bench::new();
        bench.domain().has_ring = true;
        bench.call(hypercall::DOMCTL, &[domctl(version, domctl::PAUSEDOMAIN, 1)]).unwrap();
        let mut made = Made::new(access::BYTES);
        made.set(access::OP, access::SET).set(access::ACCESS, number).set(access::DOMID, 1).set(access::NR, 1);
        let answer = bench.command(hypercall::MEMORY_OP, Some(reservation::ACCESS), &made);
        assert_eq!(answer, result, "{version:#x} {number}");
    }
}

#[test]
fn rights_are_told() {
    let mut bench = Bench::new();
    bench.domain().has_ring = true;
    bench.domain().answers.push_back(Ok(AccessType::Rx as u64));
    bench.domain().answers.push_back(Err(Refusal::ESRCH.into()));
    let mut made = Made::new(access::BYTES);
    made.set(access::OP, access::GET).set(access::DOMID, 1).set(access::PFN, 0x7);
    bench.command(hypercall::MEMORY_OP, Some(reservation::ACCESS), &made).unwrap();
    assert_eq!(bench.get(access::ACCESS), 5);
    assert_eq!(bench.command(hypercall::MEMORY_OP, Some(reservation::ACCESS), &made), Err(Errno::ESRCH));
}

#[test]
fn cpu_events_are_switched_and_what_is_not_there_is_named_once() {
    let on = |kind, mode| Control::Monitor { kind, mode, on_change_only: false };
    let mut bench = Bench::new();
    let mut ask = |op: u32, event: u32, index: u8, sync: u8| {
        let mut made = domctl(0x15, domctl::MONITOR, 1);
        made.set(domctl::MONITOR_OP, op).set(domctl::MONITOR_EVENT, event);
        made.set(domctl::CTRLREG_INDEX, index).set(domctl::CTRLREG_SYNC, sync);
        // A flag is whatever is not zero: some tools hand over what lay on their stack.
        made.set(domctl::CTRLREG_ON_CHANGE_ONLY, 236);
        let result = bench.call(hypercall::DOMCTL, &[made]);
        (result, bench.asked())
    };
    let (enable, disable) = (domctl::MONITOR_ENABLE, domctl::MONITOR_DISABLE);
    let cr4 = CpuEventKind::Cr4;
    let masked = |kind, mode| vec![Control::MonitorMask { kind, ignored: 0 }, on(kind, mode)];
    assert_eq!(ask(enable, 0, 2, 75), (Ok(0), masked(cr4, MonitorMode::Sync)));
    assert_eq!(ask(enable, 0, 2, 1), (Err(Errno::EEXIST), vec![]));
    assert_eq!(ask(disable, 0, 2, 0), (Ok(0), masked(cr4, MonitorMode::Disabled)));
    assert_eq!(ask(enable, 0, 1, 0), (Ok(0), masked(CpuEventKind::Cr3, MonitorMode::Async)));
    assert_eq!(ask(enable, 0, 3, 1), (Ok(0), masked(CpuEventKind::Xcr0, MonitorMode::Sync)));
    assert_eq!(ask(enable, 0, 4, 0), (Err(Errno::EINVAL), vec![]));
    assert_eq!(ask(enable, 3, 0, 0), (Ok(0), vec![on(CpuEventKind::Int3, MonitorMode::Sync)]));
    assert_eq!(ask(enable, 2, 0, 0), (Ok(0), vec![on(CpuEventKind::SingleStep, MonitorMode::Sync)]));
    assert_eq!(ask(enable, 6, 0, 0), (Ok(0), vec![on(CpuEventKind::Cpuid, MonitorMode::Sync)]));
    assert_eq!(ask(enable, 9, 0, 0), (Ok(0), vec![on(CpuEventKind::Descriptor, MonitorMode::Sync)]));
    assert_eq!(ask(enable, 13, 0, 0), (Ok(0), vec![on(CpuEventKind::Io, MonitorMode::Sync)]));
    // The byte is sync there.
    assert_eq!(ask(enable, 5, 1, 0), (Ok(0), vec![on(CpuEventKind::Debug, MonitorMode::Sync)]));
    assert_eq!(ask(enable, 5, 0, 0), (Ok(0), vec![on(CpuEventKind::Debug, MonitorMode::Async)]));
    // The bytes are sync and allow_userspace there.
    assert_eq!(ask(enable, 4, 0, 0), (Ok(0), vec![on(CpuEventKind::GuestRequest, MonitorMode::Async)]));
    assert_eq!(ask(disable, 4, 1, 0), (Ok(0), vec![on(CpuEventKind::GuestRequest, MonitorMode::Disabled)]));
    assert_eq!(ask(enable, 4, 1, 0), (Ok(0), vec![on(CpuEventKind::GuestRequest, MonitorMode::Sync)]));
    for _ in 0..2 {
        assert_eq!(ask(enable, 4, 1, 1), (Err(Errno::EOPNOTSUPP), vec![]));
        assert_eq!(ask(enable, 8, 0, 0), (Err(Errno::EOPNOTSUPP), vec![]));
    }
    let said = bench.xen.unknown.take();
    let due = ["monitoring requests of the guest's programs", "monitor event 8"]
        .map(|what| format!("{what} is not supported (EOPNOTSUPP)"));
    assert_eq!(said, due);

    let mut made = domctl(0x15, domctl::MONITOR, 1);
    made.set(domctl::MONITOR_OP, domctl::MONITOR_CAPABILITIES);
    bench.call(hypercall::DOMCTL, &[made]).unwrap();
    assert_eq!(bench.get(domctl::MONITOR_EVENT), 0x237f);
}

#[test]
fn single_model_specific_registers_are_asked_for_each_by_itself() {
    let mut bench = Bench::new();
    let mut ask = |op: u32, msr: u32| {
        let mut made = domctl(0x15, domctl::MONITOR, 1);
        made.set(domctl::MSR_ON_CHANGE_ONLY, u8::from(msr == 2))
            .set(domctl::MONITOR_OP, op)
            .set(domctl::MONITOR_EVENT, domctl::EVENT_MOV_TO_MSR)
            .set(domctl::MSR, msr);
        let result = bench.call(hypercall::DOMCTL, &[made]);
        (result, bench.asked())
    };
    let msr = |msr, mode, on_change_only| vec![Control::MonitorMsr { msr, mode, on_change_only }];
    assert_eq!(ask(domctl::MONITOR_DISABLE, 1), (Err(Errno::EEXIST), vec![]));
    assert_eq!(ask(domctl::MONITOR_ENABLE, 1), (Ok(0), msr(1, MonitorMode::Sync, false)));
    assert_eq!(ask(domctl::MONITOR_ENABLE, 2), (Ok(0), msr(2, MonitorMode::Sync, true)));
    assert_eq!(ask(domctl::MONITOR_ENABLE, 2), (Err(Errno::EEXIST), vec![]));
    assert_eq!(ask(domctl::MONITOR_DISABLE, 1), (Ok(0), msr(1, MonitorMode::Disabled, false)));
    assert_eq!(ask(domctl::MONITOR_DISABLE, 2), (Ok(0), msr(2, MonitorMode::Disabled, false)));
    for intercepted_by_none in [0x2000, 0x3000, 0xbfff_ffff, 0xc000_2000, 0xc001_0000] {
        assert_eq!(ask(domctl::MONITOR_ENABLE, intercepted_by_none), (Err(Errno::EINVAL), vec![]));
    }
}

#[test]
fn a_frame_is_nominated_evicted_and_brought_back() {
    let mut bench = Bench::new();
    let content = bench.content(0xab);
    for (op, buffer, due) in [
        (paging::NOMINATE, 0, Control::Nominate { gfn: Gfn(7) }),
        (paging::EVICT, 0, Control::Evict { gfn: Gfn(7) }),
        (paging::PREP, 0, Control::Prep { gfn: Gfn(7), buffer: false }),
        (paging::PREP, content, Control::Prep { gfn: Gfn(7), buffer: true }),
    ] {
        let mut made = Made::new(paging::BYTES);
        made.set(paging::OP, op).set(paging::DOMAIN, 1).set(paging::GFN, 7).set(paging::BUFFER, buffer);
        assert_eq!(bench.command(hypercall::MEMORY_OP, Some(reservation::PAGING), &made), Ok(0));
        assert_eq!(bench.asked(), [due]);
    }
    assert_eq!(bench.domain().loaded, [0xab; 4096]);
}

#[test]
fn domains_are_listed_with_their_figures() {
    let mut bench = Bench::new();
    let mut made = Made::new(sysctl::BYTES);
    made.set(sysctl::CMD, sysctl::GETDOMAININFOLIST).set(sysctl::INTERFACE_VERSION, sysctl::VERSION);
    made.set(sysctl::MAX_DOMAINS, 8).set(sysctl::BUFFER, bench.content(0));
    bench.call(hypercall::SYSCTL, &[made]).unwrap();
    assert_eq!(bench.get(sysctl::NUM_DOMAINS), 1);
}

#[test]
fn an_exception_is_injected_with_its_error_code_and_address() {
    let mut bench = Bench::new();
    assert_eq!(bench.inject(0, (3, 6)), Ok(0), "the library asks so whether the request is there");
    assert_eq!(bench.asked(), []);
    for kind in TrapKind::ALL {
        assert_eq!(bench.inject(1, (14, kind as u8)), Ok(0));
        let asked = Control::Inject { vcpu: VcpuId(1), vector: 14, kind, error: 6, cr2: 0x1234 };
        assert_eq!(bench.asked(), [asked]);
    }
    assert_eq!(bench.inject(1, (14, 1)), Err(Errno::EINVAL), "no kind of event");
    assert_eq!(bench.asked(), []);
}

/// An altp2m operation with what its union has.
fn altp2m_op(command: u32) -> Made {
    let mut made = Made::new(altp2m::BYTES);
    made.set(altp2m::VERSION, altp2m::INTERFACE_VERSION).set(altp2m::CMD, command).set(altp2m::DOMAIN, 1);
    made
}

#[test]
fn views_are_made_set_and_switched_to() {
    let mut bench = Bench::new();
    let call = |bench: &mut Bench, made: &Made| bench.command(hypercall::HVM_OP, Some(hvm_param::ALTP2M), made);
    let view = ViewId(3);
    let set = |first| Control::SetViewAccess { view, first: Gfn(first), count: 1, access: AccessType::Rx };
    let mut made = altp2m_op(altp2m::SET_DOMAIN_STATE);
    made.set(altp2m::STATE, 1);
    call(&mut bench, &made).unwrap();
    assert_eq!(bench.asked(), [Control::SetViews { on: true }]);
    bench.domain().answers.push_back(Ok(3));
    let mut made = altp2m_op(altp2m::CREATE);
    made.set(altp2m::DEFAULT_ACCESS, 3);
    call(&mut bench, &made).unwrap();
    assert_eq!(bench.asked(), [Control::CreateView { access: AccessType::Rw }]);
    assert_eq!(bench.get(altp2m::VIEW), 3);
    let mut made = altp2m_op(altp2m::SET_MEM_ACCESS);
    made.set(altp2m::ACCESS_VIEW, 3).set(altp2m::ACCESS, 5).set(altp2m::GFN, 0x110);
    call(&mut bench, &made).unwrap();
    assert_eq!(bench.asked(), [set(0x110)]);
    // The window of VGA and ROM, and what is above the last frame.
    made.set(altp2m::GFN, 0xa0);
    call(&mut bench, &made).unwrap();
    made.set(altp2m::GFN, 0x200);
    assert_eq!(call(&mut bench, &made), Err(Errno::EINVAL));
    assert_eq!(bench.asked(), []);
    // Two numbers of frames, and behind them a byte for each.
    let pfns = bench.list(&[7, 9, 0x0505]);
    let accesses = pfns + 16;
    let mut made = altp2m_op(altp2m::SET_MEM_ACCESS_MULTI);
    made.set(altp2m::MULTI_VIEW, 3).set(altp2m::NR, 2);
    made.set(altp2m::PFN_LIST, pfns).set(altp2m::ACCESS_LIST, accesses);
    call(&mut bench, &made).unwrap();
    assert_eq!(bench.asked(), [set(7), set(9)]);
    for (command, control) in
        [(altp2m::SWITCH, Control::SwitchView { view }), (altp2m::DESTROY, Control::DestroyView { view })]
    {
        let mut made = altp2m_op(command);
        made.set(altp2m::VIEW, 3);
        call(&mut bench, &made).unwrap();
        assert_eq!(bench.asked(), [control]);
    }
}

#[test]
fn a_frame_beyond_ram_is_populated_shown_in_a_view_and_given_back() {
    let mut bench = Bench::new();
    let reserve = |bench: &mut Bench, command| {
        let mut made = Made::new(reservation::BYTES);
        made.set(reservation::EXTENTS, bench.list(&[0x200])).set(reservation::NR_EXTENTS, 1);
        made.set(reservation::DOMID, 1);
        bench.command(hypercall::MEMORY_OP, Some(command), &made)
    };
    assert_eq!(reserve(&mut bench, reservation::POPULATE), Ok(1));
    assert_eq!(bench.asked(), [Control::Populate { gfn: Gfn(0x200) }]);
    for new in [0x200, u64::MAX] {
        let mut made = altp2m_op(altp2m::CHANGE_GFN);
        made.set(altp2m::CHANGE_VIEW, 2).set(altp2m::OLD_GFN, 7).set(altp2m::NEW_GFN, new);
        bench.command(hypercall::HVM_OP, Some(hvm_param::ALTP2M), &made).unwrap();
        assert_eq!(bench.asked(), [Control::ChangeGfn { view: ViewId(2), old: Gfn(7), new: Gfn(new) }]);
    }
    assert_eq!(reserve(&mut bench, reservation::DECREASE), Ok(1));
    assert_eq!(bench.asked(), [Control::Drop { gfn: Gfn(0x200) }]);
    bench.domain().answers.extend([Err(Errno::EBUSY), Err(Errno::ENOENT)]);
    assert_eq!(reserve(&mut bench, reservation::POPULATE), Ok(0));
}

#[test]
fn what_views_say_is_told() {
    let mut bench = Bench::new();
    let call = |bench: &mut Bench, made: &Made| bench.command(hypercall::HVM_OP, Some(hvm_param::ALTP2M), made);
    let mut made = altp2m_op(altp2m::GET_DOMAIN_STATE);
    made.set(altp2m::STATE, 1);
    bench.domain().answers.push_back(Err(Errno::EOPNOTSUPP));
    call(&mut bench, &made).unwrap();
    assert_eq!(bench.get(altp2m::STATE), 0);
    call(&mut bench, &made).unwrap();
    assert_eq!(bench.get(altp2m::STATE), 1);
    bench.asked();
    bench.domain().answers.push_back(Ok(5));
    let mut made = altp2m_op(altp2m::GET_MEM_ACCESS);
    made.set(altp2m::ACCESS_VIEW, 2).set(altp2m::GFN, 9);
    call(&mut bench, &made).unwrap();
    assert_eq!(bench.asked(), [Control::GetViewAccess { view: ViewId(2), gfn: Gfn(9) }]);
    assert_eq!(bench.get(altp2m::ACCESS), 5);
    bench.domain().answers.push_back(Ok(4));
    let mut made = altp2m_op(altp2m::GET_P2M_IDX);
    made.set(altp2m::VCPU, 1);
    call(&mut bench, &made).unwrap();
    assert_eq!(bench.asked(), [Control::GetVcpuView { vcpu: VcpuId(1) }]);
    assert_eq!(bench.get(altp2m::VCPU_VIEW), 4);
}

#[test]
fn views_of_another_interface_and_what_they_cannot_are_refused() {
    let mut bench = Bench::new();
    let call = |bench: &mut Bench, made: &Made| bench.command(hypercall::HVM_OP, Some(hvm_param::ALTP2M), made);
    let mut made = altp2m_op(altp2m::GET_DOMAIN_STATE);
    made.set(altp2m::VERSION, 2);
    assert_eq!(call(&mut bench, &made), Err(Errno::EINVAL));
    assert_eq!(call(&mut bench, &altp2m_op(altp2m::SET_VISIBILITY)), Err(Errno::EOPNOTSUPP));
    assert_eq!(call(&mut bench, &altp2m_op(10)), Err(Errno::ENOSYS));
    let mut made = altp2m_op(altp2m::CHANGE_GFN);
    made.set(altp2m::PAD2, 1);
    assert_eq!(call(&mut bench, &made), Err(Errno::EINVAL));
    assert_eq!(bench.asked(), []);
}

#[test]
fn the_calls_of_a_list_have_results_of_64_bits_and_a_list_within_a_list_is_refused() {
    let mut bench = Bench::new();
    let domain = bench.list(&[1]);
    let mut list = Made::new(2 * multicall::BYTES);
    list.set(multicall::OP, hypercall::MEMORY_OP).set(multicall::ARG0, reservation::MAXIMUM_GPFN);
    list.set(multicall::ARG1, domain);
    list.bytes[multicall::BYTES] = 13;
    assert_eq!(bench.count(hypercall::MULTICALL, &list, 2), Ok(0));
    assert_eq!(bench.get(multicall::RESULT), 0x1ff);
    assert_eq!(bench.word(multicall::BYTES as u64 + 8).cast_signed(), -22);
}

#[test]
fn wild_pointers_are_efault() {
    let mut bench = Bench::new();
    for address in [0, 8, u64::MAX, u64::MAX - 4, 1 << 47] {
        for op in [hypercall::DOMCTL, hypercall::SYSCTL] {
            assert_eq!(bench.wild(op, [address, 0, 0, 0, 0]), Err(Errno::EFAULT), "{op} {address:#x}");
        }
        for command in [reservation::POPULATE, reservation::MAXIMUM_GPFN, reservation::ACCESS, reservation::PAGING] {
            assert_eq!(bench.wild(hypercall::MEMORY_OP, [command, address, 0, 0, 0]), Err(Errno::EFAULT));
        }
        assert_eq!(bench.wild(hypercall::MULTICALL, [address, u64::MAX, 0, 0, 0]), Err(Errno::EFAULT));
        for request in [privcmd::HYPERCALL, privcmd::MMAPBATCH_V2, privcmd::DM_OP] {
            assert_eq!(bench.request(request, address), Err(Errno::EFAULT), "{request:#x} {address:#x}");
        }
    }
}

#[test]
fn an_unknown_call_is_enosys_and_named_once() {
    let mut bench = Bench::new();
    for _ in 0..2 {
        assert_eq!(bench.wild(32, [0; 5]), Err(Errno::ENOSYS));
        assert_eq!(bench.call(hypercall::DOMCTL, &[domctl(0x15, 13, 1)]), Err(Errno::ENOSYS));
        assert_eq!(bench.request(privcmd::UNIMPLEMENTED, 0), Err(Errno::ENOTTY), "the library asks for this one");
    }
    let said = bench.xen.unknown.take();
    assert_eq!(said, ["hypercall 32 is not there (ENOSYS)", "domctl 13 is not there (ENOSYS)"]);
}
