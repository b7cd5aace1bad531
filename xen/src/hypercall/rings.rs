//! `vm_event_op`: the life of a ring.

use crate::domain::Domain;
use crate::errno::Errno;
use crate::evtchn::REMOTE;
use crate::filter::Filter;
use crate::guest::Guest;
use crate::layout::domctl as layout;
use crate::layout::record::Record;
use crate::tool::Tool;
use mem_event::{Control, Ring};

pub(super) fn vm_event_op<D: Domain>(guest: &mut Guest<D>, tool: &dyn Tool, asked: &Record) -> Result<(), Errno> {
    let ring = match asked.get(layout::VM_EVENT_MODE) {
        layout::MODE_PAGING => Ring::Paging,
        layout::MODE_MONITOR => Ring::Access,
        layout::MODE_SHARING => Ring::Sharing,
        _ => return Err(Errno::ENOSYS),
    };
    match asked.get(layout::VM_EVENT_OP) {
        layout::RING_ENABLE => {
            let descriptors = guest.domain.enable(ring)?;
            guest.ring(ring).open(descriptors)?;
            asked.put(tool, layout::VM_EVENT_PORT, REMOTE + ring as u32)
        }
        layout::RING_DISABLE => {
            guest.domain.control(Control::Disable { ring, drain: false })?;
            guest.ring(ring).close();
            if ring == Ring::Access {
                guest.filter = Filter::default();
            }
            Ok(())
        }
        layout::RING_RESUME => {
            guest.ring(ring).hear();
            guest.domain.control(Control::Resume { ring }).map(drop)
        }
        _ => Err(Errno::ENOSYS),
    }
}
