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
        other => Err(xen.lacks(&format!("sysctl {other}"))),
    }
}
