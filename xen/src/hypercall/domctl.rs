//! `domctl`: what a toolstack asks of one domain.

use super::{hvm_context, monitor, rings};
use crate::domain::Domain;
use crate::errno::Errno;
use crate::guest::{Guest, ring_of_frame};
use crate::hypervisor::Hypervisor;
use crate::layout::record::{Number, Record};
use crate::layout::{domain_info, domctl as layout};
use crate::tool::{Tool, read_u64};
use mem_event::message::VcpuState;
use mem_event::{Control, VcpuId};

/// The interface's versions of Xen 4.17 to 4.20.
const INTERFACES: std::ops::RangeInclusive<u32> = 0x15..=0x17;

pub(super) fn domctl<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, argument: u64) -> Result<(), Errno> {
    let asked = Record::read(tool, argument, layout::BYTES)?;
    let interface = asked.get(layout::INTERFACE_VERSION);
    if !INTERFACES.contains(&interface) {
        return Err(Errno::EACCES);
    }
    xen.interface = Some(interface);
    let command = asked.get(layout::CMD);
    // It is about the interface and no domain.
    if command == layout::VM_EVENT && asked.get(layout::VM_EVENT_OP) == layout::RING_GET_VERSION {
        return asked.put(tool, layout::VM_EVENT_VERSION, mem_event::wire::vm_event::VERSION);
    }
    let number = asked.get(layout::DOMAIN);
    let guest = xen.guest(number)?;
    match command {
        layout::PAUSEDOMAIN => match guest.pause() {
            Err(why) if why != Errno::ESRCH => {
                xen.unknown.say(format!("domain {number} is paused for the tool alone, and its vCPUs run on ({why})"));
                Ok(())
            }
            done => done,
        },
        layout::UNPAUSEDOMAIN => guest.unpause(),
        layout::GETHVMCONTEXT => hvm_context::whole(guest, tool, &asked),
        layout::GETHVMCONTEXT_PARTIAL => match hvm_context::partial(guest, tool, &asked)? {
            Some(()) => Ok(()),
            None => {
                let record = asked.get(layout::RECORD_TYPE);
                xen.unknown.say(format!("record {record} of a domain's context is not there (EINVAL)"));
                Err(Errno::EINVAL)
            }
        },
        layout::SETHVMCONTEXT => hvm_context::set(guest, tool, &asked).map_err(|(errno, why)| {
            if !why.is_empty() {
                xen.unknown.say(format!("a context cannot be set: {why} ({errno})"));
            }
            errno
        }),
        layout::GETDOMAININFO => {
            let union = layout::BYTES - 128;
            tool.write(argument.wrapping_add(union as u64), figures(number, guest)?.bytes())
        }
        layout::GETVCPUINFO => vcpu(guest, tool, argument, &asked),
        // Nothing here is limited by it.
        layout::MAX_MEM => Ok(()),
        layout::DEBUG => single_step(guest, &asked),
        layout::GETPAGEFRAMEINFO3 => frame_types(guest, tool, &asked),
        layout::SET_ACCESS_REQUIRED => {
            let required = asked.get(layout::ACCESS_REQUIRED) != 0;
            guest.domain.control(Control::SetAccessRequired { required }).map(drop)
        }
        layout::MEM_SHARING if asked.get(layout::SHARING_OP) == layout::SHARING_CONTROL => {
            guest.shares = asked.get(layout::SHARING_ENABLE) != 0;
            Ok(())
        }
        layout::VM_EVENT => rings::vm_event_op(xen, tool, &asked),
        layout::MONITOR => monitor::monitor_op(xen, tool, &asked),
        other => Err(xen.lacks(&format!("domctl {other}"))),
    }
}

/// A domain's figures as the toolstack has them.
pub(super) fn figures<D: Domain>(number: u16, guest: &mut Guest<D>) -> Result<Record, Errno> {
    let info = guest.domain.info()?;
    let vcpus = u32::try_from(info.vcpus).unwrap_or(u32::MAX);
    let paused = if guest.is_paused() { domain_info::PAUSED } else { 0 };
    let mut record = Record::zeroed(domain_info::BYTES);
    record.set(domain_info::DOMAIN, number);
    record.set(domain_info::FLAGS, domain_info::HVM | domain_info::HAP | domain_info::RUNNING | paused);
    record.set(domain_info::TOT_PAGES, info.resident);
    // Tools take frames' numbers to lie below it.
    record.set(domain_info::MAX_PAGES, guest.ram()?.highest() + 1);
    record.set(domain_info::PAGED_PAGES, info.paged);
    record.set(domain_info::ONLINE_VCPUS, vcpus);
    record.set(domain_info::MAX_VCPU_ID, vcpus.saturating_sub(1));
    record.set(domain_info::ADDRESS_BITS, 48);
    Ok(record)
}

/// What a vCPU does. What its QEMU's thread has used of a processor nobody tells: 0.
fn vcpu<D: Domain>(guest: &mut Guest<D>, tool: &dyn Tool, argument: u64, asked: &Record) -> Result<(), Errno> {
    let number = asked.get(layout::VCPU);
    let reports = guest.domain.vcpus()?;
    let Some(report) = usize::try_from(number).ok().and_then(|number| reports.get(number)) else {
        return Err(Errno::EINVAL);
    };
    let runs = report.state == VcpuState::Running && !guest.is_paused();
    let mut told = Record::read(tool, argument, layout::BYTES)?;
    told.set(layout::VCPU_ONLINE, 1);
    // Which vCPUs have halted is known to QEMU alone; those that wait for an answer count as neither in Xen.
    told.set(layout::VCPU_BLOCKED, 0);
    told.set(layout::VCPU_RUNNING, u8::from(runs));
    told.set(layout::VCPU_TIME, 0);
    told.set(layout::VCPU_CPU, number);
    tool.write(argument, told.bytes())
}

fn single_step<D: Domain>(guest: &mut Guest<D>, asked: &Record) -> Result<(), Errno> {
    let on = match asked.get(layout::DEBUG_OP) {
        layout::SINGLE_STEP_OFF => false,
        layout::SINGLE_STEP_ON => true,
        _ => return Err(Errno::ENOSYS),
    };
    let vcpu = asked.get(layout::DEBUG_VCPU);
    if u64::from(vcpu) >= guest.domain.info()?.vcpus {
        return Err(Errno::EINVAL);
    }
    guest.domain.control(Control::SingleStep { vcpu: VcpuId(vcpu), on }).map(drop)
}

/// Of each frame of a list whether it is there.
fn frame_types<D: Domain>(guest: &mut Guest<D>, tool: &dyn Tool, asked: &Record) -> Result<(), Errno> {
    /// As many as Xen takes at once.
    const MOST: u64 = 1024;
    let count = asked.get(layout::FRAMES);
    if count > MOST {
        return Err(Errno(7));
    }
    let ram = guest.ram()?;
    for index in 0..count {
        let address = asked.get(layout::FRAMES_LIST).wrapping_add(8 * index);
        let gfn = read_u64(tool, address)?;
        let is_there = ring_of_frame(gfn).map_or_else(|| ram.contains(gfn), |ring| guest.ring(ring).populated);
        let kind = if is_there { layout::NO_TABLE } else { layout::NO_FRAME };
        tool.write(address, &kind.bytes())?;
    }
    Ok(())
}
