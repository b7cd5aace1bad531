//! `access_op`: the rights of frames.

use crate::domain::Domain;
use crate::errno::Errno;
use crate::guest::Guest;
use crate::hypervisor::Hypervisor;
use crate::layout::access as layout;
use crate::layout::record::Record;
use crate::tool::{Tool, read_u64};
use mem_event::{AccessType, Control, Gfn, Ring};
use std::ops::Range;

/// What stands for the frames to come.
const DEFAULT: u64 = u64::MAX;

/// The first interface that has the right `r_pw`, which took the number that "default" had.
const WITH_R_PW: u32 = 0x16;
const R_PW: u8 = 10;

/// What an access type's number means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Rights(AccessType),
    Default,
}

impl<D: Domain> Hypervisor<D> {
    /// Whether the tool was built with this right.
    pub(super) fn has_r_pw(&self) -> bool {
        self.interface.is_some_and(|interface| interface >= WITH_R_PW)
    }
}

pub(super) fn access_op<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, argument: u64) -> Result<(), Errno> {
    let asked = Record::read(tool, argument, layout::BYTES)?;
    let with_r_pw = xen.has_r_pw();
    let guest = xen.guest(asked.get(layout::DOMID))?;
    if !guest.ring(Ring::Access).is_open() && !guest.domain.has_ring(Ring::Access)? {
        return Err(Errno::ENODEV);
    }
    let pfn = asked.get(layout::PFN);
    let nr = asked.get(layout::NR);
    match asked.get(layout::OP) {
        layout::SET => set(guest, pfn, nr.into(), meaning(asked.get(layout::ACCESS), with_r_pw)?),
        layout::GET if pfn == DEFAULT => asked.put(tool, layout::ACCESS, guest.default_access as u8),
        layout::GET => {
            let access = guest.domain.control(Control::GetAccess { gfn: Gfn(pfn) })?;
            asked.put(tool, layout::ACCESS, u8::try_from(access).unwrap_or_default())
        }
        layout::SET_MULTI => {
            for index in 0..u64::from(nr) {
                let pfn = read_u64(tool, asked.get(layout::PFN_LIST).wrapping_add(8 * index))?;
                let mut access = [0];
                tool.read(asked.get(layout::ACCESS_LIST).wrapping_add(index), &mut access)?;
                set(guest, pfn, 1, meaning(access[0], with_r_pw)?)?;
            }
            Ok(())
        }
        other => Err(xen.lacks(&format!("operation {other} of access_op"))),
    }
}

pub(super) fn meaning(number: u8, with_r_pw: bool) -> Result<Meaning, Errno> {
    match AccessType::from_number(number) {
        Some(access) => Ok(Meaning::Rights(access)),
        None if number == R_PW + u8::from(with_r_pw) => Ok(Meaning::Default),
        None if number == R_PW => Err(Errno::EOPNOTSUPP),
        None => Err(Errno::EINVAL),
    }
}

/// Sets rights as far as there is RAM: Xen notes them of any frame, where nothing comes of it.
fn set<D: Domain>(guest: &mut Guest<D>, pfn: u64, nr: u64, meaning: Meaning) -> Result<(), Errno> {
    let access = match meaning {
        Meaning::Rights(access) => access,
        Meaning::Default => guest.default_access,
    };
    if pfn == DEFAULT {
        guest.domain.control(Control::SetDefaultAccess { access })?;
        guest.default_access = access;
        return Ok(());
    }
    let ram = guest.ram()?;
    let end = pfn.checked_add(nr).filter(|end| nr > 0 && *end <= ram.highest() + 1).ok_or(Errno::EINVAL)?;
    for Range { start, end } in ram.trappable(&(pfn..end)) {
        guest.domain.control(Control::SetAccess { first: Gfn(start), count: end - start, access })?;
    }
    Ok(())
}
