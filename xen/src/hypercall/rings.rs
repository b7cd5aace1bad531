//! `vm_event_op`: the life of a ring.

use crate::domain::Domain;
use crate::errno::Errno;
use crate::evtchn::REMOTE;
use crate::guest::Monitored;
use crate::hypervisor::Hypervisor;
use crate::layout::domctl as layout;
use crate::layout::record::Record;
use crate::tool::Tool;
use mem_event::{Control, Ring};

pub(super) fn vm_event_op<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, asked: &Record) -> Result<(), Errno> {
    let number = asked.get(layout::DOMAIN);
    let guest = xen.guest(number)?;
    let ring = match asked.get(layout::VM_EVENT_MODE) {
        layout::MODE_PAGING => Ring::Paging,
        layout::MODE_MONITOR => Ring::Access,
        layout::MODE_SHARING => Ring::Sharing,
        _ => return Err(Errno::ENOSYS),
    };
    match asked.get(layout::VM_EVENT_OP) {
        layout::RING_ENABLE => {
            let begins = ring == Ring::Access && !guest.domain.has_ring(ring)?;
            let descriptors = guest.domain.enable(ring)?;
            // A domain of Xen's needs no listener until a tool says so; what a tool has said that died holds for its successor.
            if begins {
                guest.domain.control(Control::SetAccessRequired { required: false })?;
            }
            guest.ring(ring).open(descriptors)?;
            asked.put(tool, layout::VM_EVENT_PORT, REMOTE + ring as u32)
        }
        layout::RING_DISABLE => {
            guest.domain.control(Control::Disable { ring, drain: false })?;
            guest.ring(ring).close();
            if ring == Ring::Access {
                guest.monitored = Monitored::default();
            }
            let repaired = guest.ring(ring).repaired;
            if repaired > 0 {
                xen.unknown.say(format!("{repaired} answers on the {ring} ring were made whole"));
            }
            Ok(())
        }
        layout::RING_RESUME => {
            xen.hear(number, ring)?;
            xen.guest(number)?.domain.control(Control::Resume { ring }).map(drop)
        }
        _ => Err(Errno::ENOSYS),
    }
}
