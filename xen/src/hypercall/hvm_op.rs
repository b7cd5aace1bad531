//! `hvm_op`: a guest's parameters, and what has a file of its own.

use super::altp2m::altp2m;
use crate::domain::Domain;
use crate::errno::Errno;
use crate::guest::ring_frame;
use crate::hypervisor::Hypervisor;
use crate::layout::hvm_param as layout;
use crate::layout::record::Record;
use crate::tool::Tool;
use mem_event::Ring;

pub(super) fn hvm_op<D: Domain>(
    xen: &mut Hypervisor<D>,
    tool: &dyn Tool,
    command: u64,
    argument: u64,
) -> Result<(), Errno> {
    match command {
        layout::GET => {
            let asked = Record::read(tool, argument, layout::BYTES)?;
            xen.guest(asked.get(layout::DOMID))?;
            let ring = match asked.get(layout::INDEX) {
                layout::PAGING_RING_PFN => Ring::Paging,
                layout::MONITOR_RING_PFN => Ring::Access,
                layout::SHARING_RING_PFN => Ring::Sharing,
                other => return Err(xen.lacks(&format!("parameter {other} of a guest"))),
            };
            asked.put(tool, layout::VALUE, ring_frame(ring))
        }
        layout::ALTP2M => altp2m(xen, tool, argument),
        other => Err(xen.lacks(&format!("hvm_op {other}"))),
    }
}
