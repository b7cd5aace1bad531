//! The flags of a vCPU that the host's MMU stopped within its block: what a request says, against what the vCPU has once it is out.

use crate::support::{DEADLINE, checkpoint, kernel_maps_write_protected, machine_under};
use harness::machine::qemu::Gate;
use harness::scenario::Scenario;
use mem_event::message::{Call, Notice};
use mem_event::{AccessType, Errno, Event, Flags, Gfn, Layout, Ring, VcpuId};
use mem_event_client::{Channel, Client, RingSettings};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::BTreeSet;

/// CF, PF, AF, ZF, SF and OF.
const ARITHMETIC: u64 = 0x8d5;
const PROGRAMS: u64 = 200;

/// Random programs touch pages that are closed, and each touch is let through alone.
#[test]
fn a_request_of_a_vcpu_within_its_block_has_the_flags_that_it_has_out_of_it() {
    if !kernel_maps_write_protected() {
        return;
    }
    let mut scenario = Scenario::bare("random_code");
    scenario.consumers.listener.get_or_insert_default();
    scenario.machine.cpu = Some("max".into());
    let (mut qemu, folder, job) = machine_under(Gate::Mmu, scenario);
    let mut toolstack = Client::connect(&folder.file("socket")).unwrap();
    toolstack.values(&Call::Subscribe).unwrap();
    let settings = RingSettings { layout: Layout::VmEvent7, slots: 0 };
    let mut channel = Channel::enable(&folder.file("socket"), Ring::Access, settings).unwrap();
    qemu.qmp.execute("cont").unwrap();
    assert_eq!(checkpoint(&mut toolstack, 1), VcpuId(0));
    let [data, seed] = ["DATA", "SEED"].map(|name| job.symbols().find(name).unwrap().gpa);
    let bytes = PROGRAMS.to_le_bytes().to_vec();
    toolstack.values(&Call::WriteFrame { gfn: seed.gfn(), offset: 8, bytes }).unwrap();
    for page in 0..4 {
        toolstack.set_access(Gfn(data.gfn().0 + page), AccessType::N).unwrap();
    }
    toolstack.values(&Call::Release { vcpu: VcpuId(0) }).unwrap();
    let (mut compared, mut seen) = (0, BTreeSet::new());
    while !is_over(&mut toolstack) {
        let Some(request) = channel.take() else {
            let mut waited = [PollFd::new(&channel, PollFlags::IN), PollFd::new(&toolstack, PollFlags::IN)];
            assert!(poll(&mut waited, Some(&DEADLINE)).unwrap() > 0, "the guest hangs");
            channel.clear_signal();
            continue;
        };
        let told = channel.registers().expect("registers");
        match (request.event, toolstack.registers(VcpuId(0)).unwrap()) {
            (Event::Violation { gla: Some(_), .. }, Ok(context)) => {
                let found = context.registers;
                assert_eq!(told.rip, found.rip, "{request:?}");
                assert_eq!(told.rflags & ARITHMETIC, found.rflags & ARITHMETIC, "at {:#x}: {request:?}", told.rip);
                seen.insert(found.rflags & ARITHMETIC);
                compared += 1;
            }
            // The processor's own, or an instruction that has begun to write.
            (_, Ok(_) | Err((Errno::EBUSY, _))) => {}
            (_, Err(refused)) => panic!("{refused:?}"),
        }
        channel.answer(&request.answer().with(Flags::EMULATE));
        channel.kick().unwrap();
    }
    println!("{compared} compared, {} different flags", seen.len());
    assert!(compared > 100 && seen.len() > 8, "{compared} compared, {} different flags", seen.len());
}

fn is_over(toolstack: &mut Client) -> bool {
    matches!(toolstack.notice().unwrap(), Some(Notice::Checkpoint { number: 2, .. } | Notice::Ended))
}
