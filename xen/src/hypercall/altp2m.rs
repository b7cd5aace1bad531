//! `HVMOP_altp2m`: a domain's views of its memory.

use super::access::{Meaning, meaning};
use crate::domain::Domain;
use crate::errno::Errno;
use crate::guest::Guest;
use crate::hypervisor::Hypervisor;
use crate::layout::altp2m as layout;
use crate::layout::record::Record;
use crate::tool::{Tool, read_u64};
use mem_event::{AccessType, Control, Gfn, VcpuId, ViewId};

pub(super) fn altp2m<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, argument: u64) -> Result<(), Errno> {
    let asked = Record::read(tool, argument, layout::BYTES)?;
    if asked.get(layout::VERSION) != layout::INTERFACE_VERSION {
        return Err(Errno::EINVAL);
    }
    let with_r_pw = xen.has_r_pw();
    let guest = xen.guest(asked.get(layout::DOMAIN))?;
    let view = ViewId(asked.get(layout::VIEW));
    match asked.get(layout::CMD) {
        layout::GET_DOMAIN_STATE => asked.put(tool, layout::STATE, u8::from(has_views(guest)?)),
        layout::SET_DOMAIN_STATE => {
            let on = asked.get(layout::STATE) != 0;
            guest.domain.control(Control::SetViews { on }).map(drop)
        }
        layout::CREATE => {
            let access = rights(guest, asked.get(layout::DEFAULT_ACCESS), with_r_pw)?;
            let made = guest.domain.control(Control::CreateView { access })?;
            asked.put(tool, layout::VIEW, u16::try_from(made).unwrap_or_default())
        }
        layout::DESTROY => guest.domain.control(Control::DestroyView { view }).map(drop),
        layout::SWITCH => guest.domain.control(Control::SwitchView { view }).map(drop),
        layout::SET_MEM_ACCESS => {
            let access = rights(guest, asked.get(layout::ACCESS), with_r_pw)?;
            set(guest, view, asked.get(layout::GFN), access)
        }
        layout::SET_MEM_ACCESS_MULTI => {
            for index in 0..u64::from(asked.get(layout::NR)) {
                let pfn = read_u64(tool, asked.get(layout::PFN_LIST).wrapping_add(8 * index))?;
                let mut access = [0];
                tool.read(asked.get(layout::ACCESS_LIST).wrapping_add(index), &mut access)?;
                let access = rights(guest, access[0].into(), with_r_pw)?;
                set(guest, view, pfn, access)?;
            }
            Ok(())
        }
        layout::CHANGE_GFN if asked.get(layout::PAD1) != 0 || asked.get(layout::PAD2) != 0 => Err(Errno::EINVAL),
        layout::CHANGE_GFN => {
            let [old, new] = [layout::OLD_GFN, layout::NEW_GFN].map(|gfn| Gfn(asked.get(gfn)));
            guest.domain.control(Control::ChangeGfn { view, old, new }).map(drop)
        }
        layout::GET_MEM_ACCESS => {
            let gfn = Gfn(asked.get(layout::GFN));
            let access = guest.domain.control(Control::GetViewAccess { view, gfn })?;
            asked.put(tool, layout::ACCESS, u16::try_from(access).unwrap_or_default())
        }
        layout::GET_P2M_IDX => {
            let vcpu = VcpuId(asked.get(layout::VCPU));
            let view = guest.domain.control(Control::GetVcpuView { vcpu })?;
            asked.put(tool, layout::VCPU_VIEW, u16::try_from(view).unwrap_or_default())
        }
        // A guest's own switches are not there, so none can be hidden from it.
        layout::SET_VISIBILITY => Err(xen.cannot("altp2m's visibility")),
        other => Err(xen.lacks(&format!("altp2m operation {other}"))),
    }
}

fn has_views<D: Domain>(guest: &mut Guest<D>) -> Result<bool, Errno> {
    match guest.domain.control(Control::GetVcpuView { vcpu: VcpuId(0) }) {
        Ok(_) => Ok(true),
        Err(Errno::EOPNOTSUPP) => Ok(false),
        Err(other) => Err(other),
    }
}

fn rights<D: Domain>(guest: &Guest<D>, number: u16, with_r_pw: bool) -> Result<AccessType, Errno> {
    let number = u8::try_from(number).map_err(|_| Errno::EINVAL)?;
    Ok(match meaning(number, with_r_pw)? {
        Meaning::Rights(access) => access,
        Meaning::Default => guest.default_access,
    })
}

/// Sets a frame's rights in a view, if it is RAM and can be trapped: Xen notes them of any frame, where nothing comes of it.
fn set<D: Domain>(guest: &mut Guest<D>, view: ViewId, pfn: u64, access: AccessType) -> Result<(), Errno> {
    let ram = guest.ram()?;
    if pfn > ram.highest() {
        return Err(Errno::EINVAL);
    }
    if ram.trappable(&(pfn..pfn + 1)).is_empty() {
        return Ok(());
    }
    guest.domain.control(Control::SetViewAccess { view, first: Gfn(pfn), count: 1, access }).map(drop)
}
