//! The hypercalls: from the tool's bytes to what a domain is asked, and back.
//!
//! | file | hypercall |
//! |---|---|
//! | [`privcmd`] | the requests of `/dev/xen/privcmd`, through which all others come |
//! | `domctl`, `monitor`, `rings` | of a toolstack, of one domain |
//! | `memory_op`, `access` | of frames |
//! | `hvm_op`, `dm_op` | of a guest with hardware support |
//! | `sysctl`, `machine` | of the machine |

mod access;
mod altp2m;
mod cpu_record;
mod dm_op;
mod domctl;
mod hvm_context;
mod hvm_op;
mod machine;
mod memory_op;
mod monitor;
pub mod privcmd;
mod rings;
mod sysctl;

use crate::domain::Domain;
use crate::errno::Errno;
use crate::hypervisor::Hypervisor;
use crate::layout::hypercall as number;
use crate::layout::multicall;
use crate::layout::record::Record;
use crate::tool::Tool;

/// A hypercall's arguments.
pub type Arguments = [u64; 5];

/// A hypercall and its result.
///
/// # Errors
/// What it is refused with.
pub fn call<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, op: u64, args: Arguments) -> Result<i64, Errno> {
    match op {
        number::MULTICALL => many(xen, tool, args[0], args[1]).map(|()| 0),
        _ => one(xen, tool, op, args),
    }
}

fn one<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, op: u64, args: Arguments) -> Result<i64, Errno> {
    match op {
        number::MEMORY_OP => memory_op::memory_op(xen, tool, args[0], args[1]),
        number::DOMCTL => domctl::domctl(xen, tool, args[0]).map(|()| 0),
        number::SYSCTL => sysctl::sysctl(xen, tool, args[0]).map(|()| 0),
        number::HVM_OP => hvm_op::hvm_op(xen, tool, args[0], args[1]).map(|()| 0),
        number::XEN_VERSION => machine::xen_version(xen, tool, args[0], args[1]),
        other => Err(xen.lacks(&format!("hypercall {other}"))),
    }
}

/// Each call of a list, one after the other. A list within a list is refused, as in Xen.
fn many<D: Domain>(xen: &mut Hypervisor<D>, tool: &dyn Tool, list: u64, count: u64) -> Result<(), Errno> {
    for index in 0..count {
        let address = index.checked_mul(multicall::BYTES as u64).and_then(|offset| list.checked_add(offset));
        let entry = Record::read(tool, address.ok_or(Errno::EFAULT)?, multicall::BYTES)?;
        let args = [multicall::ARG0, multicall::ARG1, multicall::ARG2, multicall::ARG3, multicall::ARG4];
        let result = match entry.get(multicall::OP) {
            number::MULTICALL => Err(Errno::EINVAL),
            op => one(xen, tool, op, args.map(|arg| entry.get(arg))),
        };
        let result = result.unwrap_or_else(|errno| -i64::from(errno.0));
        entry.put(tool, multicall::RESULT, result.cast_unsigned())?;
    }
    Ok(())
}
