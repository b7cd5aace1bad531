//! The requests of `/dev/xen/privcmd`.

use super::{call, dm_op};
use crate::domain::Domain;
use crate::errno::Errno;
use crate::hypervisor::Hypervisor;
use crate::layout::privcmd::{self, batch, call as layout};
use crate::layout::record::{Number, Record};
use crate::tool::{Tool, read_u64};
use mem_event::PAGE_SIZE;

/// A request and its result.
///
/// # Errors
/// What it is refused with. ENOTTY: the device knows no such request; libxenforeignmemory wants that of one of them.
pub fn request<D: Domain>(
    xen: &mut Hypervisor<D>,
    tool: &mut dyn Tool,
    request: u64,
    argument: u64,
) -> Result<i64, Errno> {
    match request {
        privcmd::HYPERCALL => {
            let asked = Record::read(tool, argument, layout::BYTES)?;
            let args = [layout::ARG0, layout::ARG1, layout::ARG2, layout::ARG3, layout::ARG4];
            call(xen, tool, asked.get(layout::OP), args.map(|arg| asked.get(arg)))
        }
        privcmd::MMAPBATCH_V2 => map_batch(xen, tool, argument).map(|()| 0),
        privcmd::DM_OP => dm_op::dm_op(xen, tool, argument).map(|()| 0),
        privcmd::RESTRICT | privcmd::UNIMPLEMENTED => Err(Errno::ENOTTY),
        other => {
            xen.lacks(&format!("request {other:#x} of /dev/xen/privcmd"));
            Err(Errno::ENOTTY)
        }
    }
}

/// Maps frames in a row. Each has an error of its own; the whole is ENOENT where one of them is paged out, and the library asks
/// again for those.
fn map_batch<D: Domain>(xen: &mut Hypervisor<D>, tool: &mut dyn Tool, argument: u64) -> Result<(), Errno> {
    let asked = Record::read(tool, argument, batch::BYTES)?;
    let domain = asked.get(batch::DOM);
    xen.guest(domain)?;
    let mut paged_out = false;
    for index in 0..u64::from(asked.get(batch::NUM)) {
        let gfn = read_u64(tool, asked.get(batch::FRAMES).wrapping_add(8 * index))?;
        let address = asked.get(batch::ADDR).wrapping_add(PAGE_SIZE as u64 * index);
        let error = xen.map(tool, domain, gfn, address).err();
        paged_out |= error == Some(Errno::ENOENT);
        let number = error.map_or(0, |errno| -errno.0);
        tool.write(asked.get(batch::ERRORS).wrapping_add(4 * index), &number.bytes())?;
    }
    if paged_out { Err(Errno::ENOENT) } else { Ok(()) }
}
