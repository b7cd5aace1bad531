//! `xen_version`: which Xen it is. Of what a build of Xen says of itself there is little: it is none.

use crate::domain::Domain;
use crate::errno::Errno;
use crate::hypervisor::Hypervisor;
use crate::layout::hypercall as number;
use crate::tool::Tool;
use mem_event::PAGE_SIZE;

/// Bytes of `xen_extraversion_t` and of `xen_capabilities_info_t`.
const EXTRAVERSION: usize = 16;
const CAPABILITIES: usize = 1024;
/// Bytes of `xen_compile_info_t`, `xen_changeset_info_t` and `xen_commandline_t`.
const COMPILE_INFO: usize = 144;
const CHANGESET: usize = 64;
const COMMANDLINE: usize = 1024;
/// Where a 64-bit Xen's own memory begins.
const VIRT_START: u64 = 0xffff_8000_0000_0000;

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
        // Its compiler, and nothing of by whom, where and when.
        number::COMPILE_INFO => text(tool, buffer, "rustc", COMPILE_INFO),
        number::CHANGESET => text(tool, buffer, "", CHANGESET),
        number::PLATFORM => tool.write(buffer, &VIRT_START.to_le_bytes()).map(|()| 0),
        number::PAGESIZE => Ok(PAGE_SIZE as i64),
        number::COMMANDLINE => text(tool, buffer, "", COMMANDLINE),
        other => Err(xen.lacks(&format!("xen_version {other}"))),
    }
}

fn text(tool: &dyn Tool, buffer: u64, text: &str, bytes: usize) -> Result<i64, Errno> {
    let mut whole = vec![0; bytes];
    whole[..text.len()].copy_from_slice(text.as_bytes());
    tool.write(buffer, &whole)?;
    Ok(0)
}
