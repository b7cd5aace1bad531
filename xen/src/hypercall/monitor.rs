//! `monitor_op`: which CPU events are reported.

use crate::domain::Domain;
use crate::errno::Errno;
use crate::guest::Guest;
use crate::hypervisor::Hypervisor;
use crate::layout::record::Record;
use crate::layout::{domctl as layout, vm_event};
use crate::tool::Tool;
use mem_event::{Control, CpuEventKind, MonitorMode};
use std::ops::RangeInclusive;

/// `XEN_DOMCTL_MONITOR_EVENT_IO`, from Xen 4.18 on.
const EVENT_IO: u32 = 13;

/// The events that are there: a bit each, by the event's number.
const CAPABILITIES: u32 = 1 << layout::EVENT_WRITE_CTRLREG
    | 1 << layout::EVENT_MOV_TO_MSR
    | 1 << layout::EVENT_SINGLESTEP
    | 1 << layout::EVENT_SOFTWARE_BREAKPOINT
    | 1 << layout::EVENT_GUEST_REQUEST
    | 1 << layout::EVENT_DEBUG_EXCEPTION
    | 1 << layout::EVENT_CPUID
    | 1 << layout::EVENT_INTERRUPT
    | 1 << layout::EVENT_DESCRIPTOR_ACCESS
    | 1 << EVENT_IO;

pub(super) fn monitor_op<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, asked: &Record) -> Result<(), Errno> {
    let on = match asked.get(layout::MONITOR_OP) {
        layout::MONITOR_ENABLE => true,
        layout::MONITOR_DISABLE => false,
        layout::MONITOR_CAPABILITIES => return asked.put(tool, layout::MONITOR_EVENT, CAPABILITIES),
        other => return Err(xen.cannot(&format!("operation {other} of monitor_op"))),
    };
    let guest = xen.guest(asked.get(layout::DOMAIN))?;
    match asked.get(layout::MONITOR_EVENT) {
        layout::EVENT_WRITE_CTRLREG => ctrlreg(guest, on, asked),
        layout::EVENT_MOV_TO_MSR => msr(guest, on, asked),
        layout::EVENT_SINGLESTEP => report(guest, CpuEventKind::SingleStep, mode(on, true)),
        layout::EVENT_SOFTWARE_BREAKPOINT => report(guest, CpuEventKind::Int3, mode(on, true)),
        layout::EVENT_GUEST_REQUEST if asked.get(layout::GUEST_REQUEST_ALLOW_USERSPACE) != 0 => {
            Err(xen.cannot("monitoring requests of the guest's programs"))
        }
        layout::EVENT_GUEST_REQUEST => {
            report(guest, CpuEventKind::GuestRequest, mode(on, asked.get(layout::GUEST_REQUEST_SYNC) != 0))
        }
        layout::EVENT_DEBUG_EXCEPTION => {
            report(guest, CpuEventKind::Debug, mode(on, asked.get(layout::DEBUG_EXCEPTION_SYNC) != 0))
        }
        layout::EVENT_CPUID => report(guest, CpuEventKind::Cpuid, mode(on, true)),
        layout::EVENT_DESCRIPTOR_ACCESS => report(guest, CpuEventKind::Descriptor, mode(on, true)),
        EVENT_IO => report(guest, CpuEventKind::Io, mode(on, true)),
        other => Err(xen.cannot(&format!("monitor event {other}"))),
    }
}

fn mode(on: bool, sync: bool) -> MonitorMode {
    match (on, sync) {
        (false, _) => MonitorMode::Disabled,
        (true, false) => MonitorMode::Async,
        (true, true) => MonitorMode::Sync,
    }
}

fn report<D: Domain>(guest: &mut Guest<D>, kind: CpuEventKind, mode: MonitorMode) -> Result<(), Errno> {
    guest.domain.control(Control::Monitor { kind, mode, on_change_only: false }).map(drop)
}

/// Writes that change nothing are reported in no mode, so "changes only" adds nothing.
fn ctrlreg<D: Domain>(guest: &mut Guest<D>, on: bool, asked: &Record) -> Result<(), Errno> {
    let index = asked.get(layout::CTRLREG_INDEX);
    let kind = match index {
        vm_event::INDEX_CR0 => CpuEventKind::Cr0,
        vm_event::INDEX_CR3 => CpuEventKind::Cr3,
        vm_event::INDEX_CR4 => CpuEventKind::Cr4,
        vm_event::INDEX_XCR0 => CpuEventKind::Xcr0,
        _ => return Err(Errno::EINVAL),
    };
    let register = usize::from(index);
    if on && guest.monitored.ctrlregs[register] {
        return Err(Errno::EEXIST);
    }
    // In this order: no write is told that the tool has masked.
    let ignored = if on { asked.get(layout::CTRLREG_BITMASK) } else { 0 };
    guest.domain.control(Control::MonitorMask { kind, ignored })?;
    report(guest, kind, mode(on, asked.get(layout::CTRLREG_SYNC) != 0))?;
    guest.monitored.ctrlregs[register] = on;
    Ok(())
}

/// The model-specific registers that Xen can intercept: AMD's and Intel's maps have a bit for these, and those of a hypervisor follow.
const MSRS: [RangeInclusive<u32>; 3] = [0..=0x1fff, 0x4000_0000..=0x4000_1fff, 0xc000_0000..=0xc000_1fff];

fn msr<D: Domain>(guest: &mut Guest<D>, on: bool, asked: &Record) -> Result<(), Errno> {
    let msr = asked.get(layout::MSR);
    if !MSRS.iter().any(|range| range.contains(&msr)) {
        return Err(Errno::EINVAL);
    }
    if guest.monitored.msrs.contains(&msr) == on {
        return Err(Errno::EEXIST);
    }
    let on_change_only = on && asked.get(layout::MSR_ON_CHANGE_ONLY) != 0;
    guest.domain.control(Control::MonitorMsr { msr, mode: mode(on, true), on_change_only })?;
    if on {
        guest.monitored.msrs.insert(msr);
    } else {
        guest.monitored.msrs.remove(&msr);
    }
    Ok(())
}
