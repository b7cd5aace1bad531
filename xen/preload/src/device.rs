//! The two devices and the files that tell of the hypervisor, as the tool opens, asks, reads, writes and closes them.

use crate::descriptor::{self, Kind};
use crate::environment::environment;
use crate::layer::{Process, try_with, with};
use crate::memory;
use libc::c_int;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event};
use rustix::fs::{MemfdFlags, Mode, OFlags, SeekFrom};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::sync::Once;
use xen::environment::READY_FD;
use xen::errno::Errno;
use xen::hypercall::privcmd;
use xen::layout::record::Number;

/// Longer paths are none of Xen's.
const LONGEST: u64 = 64;

/// Ports that are read at once.
const PORTS: usize = 32;

/// Opens what is Xen's; `None` where the path is not.
pub fn open(path: u64, flags: c_int) -> Option<Result<c_int, Errno>> {
    let environment = environment()?;
    let path = memory::text(path, LONGEST)?;
    let close_on_exec = flags & libc::O_CLOEXEC != 0;
    if let Some(text) = environment.version.file(&path) {
        return Some(file(&text, flags));
    }
    let name = path.strip_prefix("/dev/xen/").or_else(|| path.strip_prefix("/proc/xen/"))?;
    Some(match name {
        "privcmd" => privcmd_descriptor(close_on_exec).and_then(|fd| opened(fd, Kind::Privcmd)),
        "evtchn" => evtchn_descriptor(close_on_exec),
        // Without it the library takes memory of its own for what it hands over.
        "hypercall" => Err(Errno::ENOENT),
        _ => {
            let _ = with(|layer| layer.xen.unknown.say(format!("{path} is not there (ENOENT)")));
            Err(Errno::ENOENT)
        }
    })
}

fn privcmd_descriptor(close_on_exec: bool) -> Result<OwnedFd, Errno> {
    let flags = if close_on_exec { OFlags::RDWR | OFlags::CLOEXEC } else { OFlags::RDWR };
    Ok(rustix::fs::open("/dev/null", flags, Mode::empty())?)
}

fn evtchn_descriptor(close_on_exec: bool) -> Result<c_int, Errno> {
    let flags = if close_on_exec { CreateFlags::CLOEXEC } else { CreateFlags::empty() };
    let set = epoll::create(flags)?;
    let device = with(|layer| {
        layer.devices += 1;
        layer.devices
    });
    opened(set, Kind::Evtchn(device.ok_or(Errno::ENOENT)?))
}

fn opened(fd: OwnedFd, kind: Kind) -> Result<c_int, Errno> {
    if !descriptor::set(fd.as_raw_fd(), Some(kind)) {
        return Err(Errno(libc::EMFILE));
    }
    Ok(fd.into_raw_fd())
}

/// A file with this text, to be read.
pub fn file(text: &str, flags: c_int) -> Result<c_int, Errno> {
    if flags & libc::O_ACCMODE != libc::O_RDONLY {
        return Err(Errno::EACCES);
    }
    let flags = if flags & libc::O_CLOEXEC != 0 { MemfdFlags::CLOEXEC } else { MemfdFlags::empty() };
    let file = rustix::fs::memfd_create("xen", flags)?;
    rustix::io::write(&file, text.as_bytes())?;
    rustix::fs::seek(&file, SeekFrom::Start(0))?;
    Ok(file.into_raw_fd())
}

/// A request to a device.
///
/// # Errors
/// What it is refused with.
pub fn ask(kind: Kind, fd: BorrowedFd<'_>, request: u64, argument: u64) -> Result<c_int, Errno> {
    let result = with(|layer| {
        let mut process = Process(&mut layer.regions);
        match kind {
            Kind::Privcmd => privcmd::request(&mut layer.xen, &mut process, request, argument),
            Kind::Evtchn(device) => layer.xen.evtchn(&process, device, fd, request, argument),
        }
    });
    let result = result.unwrap_or(Err(Errno::ENOTTY))?;
    // An int, as in Linux: what may be longer libxc asks for in a multicall.
    Ok(c_int::try_from(result).unwrap_or(c_int::MAX))
}

/// The tool has come to read its event channel, which is pending once when it is bound: what it does before its first request is done. Who
/// started it may wait for word of that.
fn ready() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        let number = std::env::var(READY_FD).ok().and_then(|text| text.parse::<u32>().ok());
        let file = number.map(|number| File::options().write(true).open(format!("/proc/self/fd/{number}")));
        if let Some(Ok(mut file)) = file {
            // It fails where nobody waits any more.
            let _ = file.write_all(b"\n");
        }
    });
}

/// Waits for ports of an event channel's device, and writes their numbers to the tool's memory; how many bytes.
///
/// # Errors
/// EAGAIN: there is none, and the descriptor does not block; EFAULT; what the kernel refuses.
pub fn read_ports(device: u32, fd: BorrowedFd<'_>, buffer: u64, length: usize) -> Result<usize, Errno> {
    let most = (length / size_of::<u32>()).min(PORTS);
    if most == 0 {
        return Ok(0);
    }
    let at_once = Timespec::default();
    let blocks = !rustix::fs::fcntl_getfl(fd)?.contains(OFlags::NONBLOCK);
    loop {
        let mut events = Vec::<Event>::with_capacity(most);
        let spare = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(fd, spare, (!blocks).then_some(&at_once))?;
        if events.is_empty() && !blocks {
            return Err(Errno(libc::EAGAIN));
        }
        let numbers: Vec<u32> = events.iter().filter_map(|event| u32::try_from(event.data.u64()).ok()).collect();
        let told = with(|layer| layer.xen.fired(device, &numbers)).unwrap_or_default();
        if !told.is_empty() {
            let bytes: Vec<u8> = told.iter().flat_map(|number| number.to_le_bytes()).collect();
            memory::write(buffer, &bytes)?;
            ready();
            return Ok(bytes.len());
        }
    }
}

/// The tool has waited for descriptors: what is on the rings of its ports it may look at before it reads them. Not where this process is within a
/// call of Xen, in whose signal handler it may have waited.
pub fn waited() {
    if descriptor::has_evtchn() {
        let _ = try_with(|layer| layer.xen.show_more());
    }
}

/// Unmasks the ports whose numbers stand in the tool's memory; how many bytes.
///
/// # Errors
/// EFAULT.
pub fn write_ports(device: u32, fd: BorrowedFd<'_>, buffer: u64, length: usize) -> Result<usize, Errno> {
    let count = length / size_of::<u32>();
    for index in 0..count {
        let mut bytes = [0; 4];
        memory::read(buffer.wrapping_add(4 * index as u64), &mut bytes)?;
        let _ = with(|layer| layer.xen.unmask(device, fd, u32::of(&bytes)));
    }
    Ok(count * size_of::<u32>())
}

/// A descriptor that was Xen's is none any more. The last one of a device ends its ports.
pub fn closed(fd: c_int) {
    let kind = descriptor::kind(fd);
    descriptor::set(fd, None);
    if let Some(kind @ Kind::Evtchn(device)) = kind
        && !descriptor::is_open(kind)
    {
        let _ = with(|layer| layer.xen.close_evtchn(device));
    }
}

/// The tool has made a descriptor of another one.
pub fn duplicated(from: c_int, to: c_int) {
    if to >= 0 && from != to {
        let kind = descriptor::kind(from);
        closed(to);
        descriptor::set(to, kind);
    }
}
