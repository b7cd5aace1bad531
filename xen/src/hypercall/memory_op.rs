//! `memory_op`: frames of a domain.

use super::access;
use crate::domain::Domain;
use crate::errno::Errno;
use crate::guest::{Guest, ring_of_frame};
use crate::hypervisor::Hypervisor;
use crate::layout::record::Record;
use crate::layout::{paging, reservation as layout, sharing};
use crate::tool::{Tool, read_u64};
use mem_event::{Control, Gfn, PAGE_SIZE};

pub(super) fn memory_op<D: Domain>(
    xen: &mut Hypervisor<D>,
    tool: &dyn Tool,
    command: u64,
    argument: u64,
) -> Result<i64, Errno> {
    match command {
        layout::MAXIMUM_GPFN => {
            let mut domain = [0; 2];
            tool.read(argument, &mut domain)?;
            let highest = xen.guest(u16::from_le_bytes(domain))?.ram()?.highest();
            Ok(i64::try_from(highest).unwrap_or(i64::MAX))
        }
        layout::DECREASE | layout::POPULATE => {
            let asked = Record::read(tool, argument, layout::BYTES)?;
            reserve(xen, tool, &asked, command == layout::POPULATE)
        }
        layout::ACCESS => access::access_op(xen, tool, argument).map(|()| 0),
        layout::PAGING => paging_op(xen, tool, argument).map(|()| 0),
        layout::SHARING => sharing_op(xen, tool, argument).map(|()| 0),
        other => Err(xen.lacks(&format!("memory_op {other}"))),
    }
}

/// Puts frames into the domain, or takes them out; how many were done, as in Xen, which stops at the first that it cannot do.
fn reserve<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, asked: &Record, populate: bool) -> Result<i64, Errno> {
    let number = asked.get(layout::DOMID);
    xen.guest(number)?;
    if asked.get(layout::ORDER) != 0 {
        return Err(xen.lacks("a reservation of more than one frame an extent"));
    }
    let mut done = 0;
    for index in 0..asked.get(layout::NR_EXTENTS) {
        let gfn = read_u64(tool, asked.get(layout::EXTENTS).wrapping_add(8 * index))?;
        let guest = xen.guest(number)?;
        if let Some(ring) = ring_of_frame(gfn) {
            guest.ring(ring).populated = populate;
        } else if populate {
            // A frame that is paged out comes back empty: what the pager has of it is nobody's then.
            let done = match guest.domain.control(Control::Populate { gfn: Gfn(gfn) }) {
                Err(Errno::EBUSY) => guest.domain.load(Gfn(gfn), &[0; PAGE_SIZE]),
                other => other.map(drop),
            };
            if done == Err(Errno::ENOENT) {
                xen.lacks("populating a frame that is there");
            }
            if done.is_err() {
                break;
            }
        } else if guest.domain.control(Control::Drop { gfn: Gfn(gfn) }).is_err() {
            break;
        }
        done += 1;
    }
    Ok(done)
}

fn paging_op<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, argument: u64) -> Result<(), Errno> {
    let asked = Record::read(tool, argument, paging::BYTES)?;
    let guest = xen.guest(asked.get(paging::DOMAIN))?;
    let gfn = Gfn(asked.get(paging::GFN));
    match asked.get(paging::OP) {
        paging::NOMINATE => guest.domain.control(Control::Nominate { gfn }).map(drop),
        paging::EVICT => guest.domain.control(Control::Evict { gfn }).map(drop),
        paging::PREP => prepare(guest, tool, gfn, asked.get(paging::BUFFER)),
        other => Err(xen.lacks(&format!("operation {other} of paging_op"))),
    }
}

fn prepare<D: Domain>(guest: &mut Guest<D>, tool: &dyn Tool, gfn: Gfn, buffer: u64) -> Result<(), Errno> {
    if buffer == 0 {
        return guest.domain.control(Control::Prep { gfn, buffer: false }).map(drop);
    }
    let mut content = vec![0; PAGE_SIZE];
    tool.read(buffer, &mut content)?;
    guest.domain.load(gfn, &content)
}

fn sharing_op<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, argument: u64) -> Result<(), Errno> {
    let asked = Record::read(tool, argument, sharing::BYTES)?;
    let number = asked.get(sharing::DOMAIN);
    let guest = xen.guest(number)?;
    if !guest.shares {
        return Err(Errno::EINVAL);
    }
    match asked.get(sharing::OP) {
        sharing::NOMINATE_GFN => {
            let gfn = Gfn(asked.get(sharing::GFN));
            let handle = guest.domain.control(Control::NominateShare { gfn })?;
            asked.put(tool, sharing::HANDLE, handle)
        }
        sharing::SHARE if asked.get(sharing::CLIENT_DOMAIN) != number => Err(xen.cannot("sharing between two domains")),
        sharing::SHARE => {
            let (source, client) = (Gfn(asked.get(sharing::SOURCE_GFN)), Gfn(asked.get(sharing::CLIENT_GFN)));
            let source_handle = asked.get(sharing::SOURCE_HANDLE);
            let client_handle = asked.get(sharing::CLIENT_HANDLE);
            guest.domain.control(Control::Share { source, source_handle, client, client_handle }).map(drop)
        }
        other => Err(xen.lacks(&format!("operation {other} of sharing_op"))),
    }
}
