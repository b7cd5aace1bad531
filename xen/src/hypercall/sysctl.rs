//! `sysctl`: the list of the domains.

use super::domctl::figures;
use crate::domain::Domain;
use crate::errno::Errno;
use crate::hypervisor::Hypervisor;
use crate::layout::record::Record;
use crate::layout::{domain_info, sysctl as layout};
use crate::tool::Tool;

pub(super) fn sysctl<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, argument: u64) -> Result<(), Errno> {
    let asked = Record::read(tool, argument, layout::BYTES)?;
    if asked.get(layout::INTERFACE_VERSION) != layout::VERSION {
        return Err(Errno::EACCES);
    }
    match asked.get(layout::CMD) {
        layout::GETDOMAININFOLIST => {
            let most = asked.get(layout::MAX_DOMAINS);
            let first = asked.get(layout::FIRST_DOMAIN);
            let mut buffer = asked.get(layout::BUFFER);
            let mut count = 0;
            for (number, guest) in xen.guests.range_mut(first..) {
                // One that has ended is no domain any more.
                let Ok(record) = figures(*number, guest) else { continue };
                if count == most {
                    break;
                }
                tool.write(buffer, record.bytes())?;
                buffer = buffer.wrapping_add(domain_info::BYTES as u64);
                count += 1;
            }
            asked.put(tool, layout::NUM_DOMAINS, count)
        }
        // The one that gives each vCPU a processor of its own.
        layout::SCHED_ID => asked.put(tool, layout::SCHEDULER, layout::SCHEDULER_NULL),
        layout::PHYSINFO => physinfo(xen, tool, argument),
        other => Err(xen.lacks(&format!("sysctl {other}"))),
    }
}

/// The machine as one on which these domains run, a processor for each vCPU, and nothing else.
fn physinfo<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, argument: u64) -> Result<(), Errno> {
    let infos: Vec<_> = xen.guests.values_mut().filter_map(|guest| guest.domain.info().ok()).collect();
    let cpus =
        infos.iter().map(|info| u32::try_from(info.vcpus).unwrap_or(u32::MAX)).fold(0, u32::saturating_add).max(1);
    let mut told = Record::zeroed(layout::BYTES);
    told.set(layout::CMD, layout::PHYSINFO);
    told.set(layout::INTERFACE_VERSION, layout::VERSION);
    told.set(layout::THREADS_PER_CORE, 1);
    told.set(layout::CORES_PER_SOCKET, cpus);
    told.set(layout::NR_CPUS, cpus);
    told.set(layout::MAX_CPU_ID, cpus - 1);
    told.set(layout::NR_NODES, 1);
    told.set(layout::CPU_CAPABILITIES, layout::PHYSCAP_HVM);
    told.set(layout::TOTAL_PAGES, infos.iter().map(|info| info.frames).sum::<u64>());
    tool.write(argument, told.bytes())
}
