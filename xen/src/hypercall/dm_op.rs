//! `dm_op`: the delivery of an exception or interrupt.

use crate::domain::Domain;
use crate::errno::Errno;
use crate::hypervisor::Hypervisor;
use crate::layout::dm_op as layout;
use crate::layout::privcmd::buffers;
use crate::layout::record::Record;
use crate::tool::{Tool, read_u64};
use mem_event::{Control, TrapKind, VcpuId};

pub(super) fn dm_op<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, argument: u64) -> Result<(), Errno> {
    let asked = Record::read(tool, argument, buffers::BYTES)?;
    // libxendevicemodel asks so whether the request is there, of a domain that is none.
    if asked.get(buffers::NUM) == 0 {
        return Ok(());
    }
    let call = read_u64(tool, asked.get(buffers::BUFFERS))?;
    let call = Record::read(tool, call, layout::BYTES)?;
    let guest = xen.guest(asked.get(buffers::DOM))?;
    match call.get(layout::OP) {
        layout::INJECT_EVENT => {
            let (vcpu, vector) = (VcpuId(call.get(layout::VCPU)), call.get(layout::VECTOR).into());
            let kind = TrapKind::from_number(call.get(layout::TYPE)).ok_or(Errno::EINVAL)?;
            let (error, cr2) = (call.get(layout::ERROR), call.get(layout::CR2));
            guest.domain.control(Control::Inject { vcpu, vector, kind, error, cr2 }).map(drop)
        }
        other => Err(xen.cannot(&format!("dm_op {other}"))),
    }
}
