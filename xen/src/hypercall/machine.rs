//! `xen_version`: which Xen it is.

use crate::domain::Domain;
use crate::errno::Errno;
use crate::hypervisor::Hypervisor;
use crate::layout::hypercall as number;
use crate::tool::Tool;
use mem_event::PAGE_SIZE;

/// Bytes of `xen_extraversion_t` and of `xen_capabilities_info_t`.
const EXTRAVERSION: usize = 16;
const CAPABILITIES: usize = 1024;

pub(super) fn xen_version<D: Domain>(
    xen: &mut Hypervisor<D>,
    tool: &dyn Tool,
    command: u64,
    buffer: u64,
) -> Result<i64, Errno> {
    match command {
        number::VERSION => Ok(i64::from(xen.version.major) << 16 | i64::from(xen.version.minor)),
        number::EXTRAVERSION => text(tool, buffer, "", EXTRAVERSION),
        number::CAPABILITIES => text(tool, buffer, "hvm-3.0-x86_64 ", CAPABILITIES),
        number::PAGESIZE => Ok(PAGE_SIZE as i64),
        other => Err(xen.lacks(&format!("xen_version {other}"))),
    }
}

fn text(tool: &dyn Tool, buffer: u64, text: &str, bytes: usize) -> Result<i64, Errno> {
    let mut whole = vec![0; bytes];
    whole[..text.len()].copy_from_slice(text.as_bytes());
    tool.write(buffer, &whole)?;
    Ok(0)
}
