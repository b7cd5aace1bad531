//! `dm_op`: the delivery of a trap.

use crate::domain::Domain;
use crate::errno::Errno;
use crate::hypervisor::Hypervisor;
use crate::layout::dm_op as layout;
use crate::layout::privcmd::buffers;
use crate::layout::record::Record;
use crate::tool::{Tool, read_u64};
use mem_event::{Control, VcpuId};

/// The breakpoint's vector.
const BREAKPOINT: u8 = 3;

pub(super) fn dm_op<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, argument: u64) -> Result<(), Errno> {
    let asked = Record::read(tool, argument, buffers::BYTES)?;
    // libxendevicemodel asks so whether the request is there, of a domain that is none.
    if asked.get(buffers::NUM) == 0 {
        return Ok(());
    }
    let call = read_u64(tool, asked.get(buffers::BUFFERS))?;
    let call = Record::read(tool, call, layout::BYTES)?;
    let guest = xen.guest(asked.get(buffers::DOM))?;
    match (call.get(layout::OP), call.get(layout::VECTOR)) {
        (layout::INJECT_EVENT, BREAKPOINT) => {
            let vcpu = VcpuId(call.get(layout::VCPU));
            guest.domain.control(Control::Inject { vcpu, vector: BREAKPOINT.into() }).map(drop)
        }
        (layout::INJECT_EVENT, vector) => Err(xen.cannot(&format!("injecting vector {vector}"))),
        (other, _) => Err(xen.cannot(&format!("dm_op {other}"))),
    }
}
