//! The measure for a page-in: userfaultfd's plainest use, one thread that touches pages and one that copies them in.
//!
//! One of the files with unsafe code: a mapping that is touched while it has holes, three ioctls, and the counter that the guest's clock is.

#![allow(
    unsafe_code,
    reason = "mappings, ioctls of userfaultfd and the time stamp counter; each block argues for itself"
)]

use anyhow::{Context, bail};
use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};
use rustix::mm::{MapFlags, ProtFlags, UserfaultfdFlags};
use std::ffi::c_void;
use std::os::fd::OwnedFd;
use std::time::Instant;

const PAGE: usize = 4096;
const EVENT_PAGEFAULT: u8 = 0x12;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;

/// What the handler does until a fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handler {
    /// It sleeps in `read`.
    Asleep,
    /// It reads again and again.
    Spinning,
}

/// An ioctl of userfaultfd with its argument, which the kernel reads and writes.
struct Call<T, const NUMBER: u8>(T);

// SAFETY: the opcode states the size of `T`, which is `repr(C)` in the kernel's layout at each use below; the kernel writes
// nothing but that.
unsafe impl<T, const NUMBER: u8> Ioctl for Call<T, NUMBER> {
    type Output = T;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode::read_write::<T>(0xaa, NUMBER)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, argument: *mut c_void) -> rustix::io::Result<T> {
        // SAFETY: the pointer is what `as_ptr` gave.
        Ok(unsafe { argument.cast::<T>().read() })
    }
}

/// `uffdio_api`: version, features, ioctls.
type Api = Call<[u64; 3], 0x3f>;
/// `uffdio_register`: start, length, mode, ioctls.
type Register = Call<[u64; 4], 0x00>;
/// `uffdio_copy`: destination, source, length, mode, copied.
type Copy = Call<[u64; 5], 0x03>;

/// A mapping of a memory file without any page.
struct Holes {
    address: *mut c_void,
    length: usize,
    file: OwnedFd,
}

impl Holes {
    fn new(pages: usize) -> anyhow::Result<Holes> {
        let length = pages * PAGE;
        let file = rustix::fs::memfd_create("mem-event-bench", MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&file, length as u64)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping where the kernel chooses; nothing of this process is there.
        let address =
            unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, protection, MapFlags::SHARED, &file, 0) }?;
        let holes = Holes { address, length, file };
        // Filled and emptied again, as the guest's pages were.
        for page in 0..pages {
            // SAFETY: inside the mapping, aligned, and nobody else uses it yet.
            unsafe { address.cast::<u64>().add(page * PAGE / 8).write_volatile(1) };
        }
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&holes.file, flags, 0, length as u64)?;
        Ok(holes)
    }

    fn touch(&self, page: usize) -> u64 {
        assert!(page * PAGE < self.length);
        // SAFETY: inside the mapping and aligned; the handler may fill the page meanwhile, so the read is volatile.
        unsafe { self.address.cast::<u64>().add(page * PAGE / 8).read_volatile() }
    }
}

impl Drop for Holes {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's, and nobody touches it any more.
        let _ = unsafe { rustix::mm::munmap(self.address, self.length) };
    }
}

fn userfaultfd(holes: &Holes, handler: Handler) -> anyhow::Result<OwnedFd> {
    let mut flags = UserfaultfdFlags::CLOEXEC;
    if handler == Handler::Spinning {
        flags |= UserfaultfdFlags::NONBLOCK;
    }
    // SAFETY: a userfaultfd does nothing until a range is registered.
    let faults = unsafe { rustix::mm::userfaultfd(flags) }.context("no right to open a userfaultfd")?;
    // SAFETY: the argument is `uffdio_api`.
    unsafe { rustix::ioctl::ioctl(&faults, Api::from([0xaa, FEATURE_MISSING_SHMEM, 0])) }?;
    let start = holes.address.expose_provenance() as u64;
    // SAFETY: the argument is `uffdio_register`; the range is the mapping, whose faults the handler resolves.
    unsafe { rustix::ioctl::ioctl(&faults, Register::from([start, holes.length as u64, 1, 0])) }?;
    Ok(faults)
}

impl<T, const NUMBER: u8> From<T> for Call<T, NUMBER> {
    fn from(argument: T) -> Self {
        Call(argument)
    }
}

/// Copies a page in for each of so many faults.
fn handle(faults: &OwnedFd, count: usize) -> anyhow::Result<()> {
    let page = [1u64; PAGE / 8];
    let mut handled = 0;
    while handled < count {
        let mut message = [0; 32];
        match rustix::io::read(faults, &mut message) {
            Ok(32) if message[0] == EVENT_PAGEFAULT => {}
            Ok(_) => bail!("no fault came from the userfaultfd"),
            Err(rustix::io::Errno::AGAIN) => {
                std::hint::spin_loop();
                continue;
            }
            Err(error) => return Err(error).context("the userfaultfd cannot be read"),
        }
        let address = u64::from_le_bytes(message[16..24].try_into()?) & !(PAGE as u64 - 1);
        let source = page.as_ptr().expose_provenance() as u64;
        // SAFETY: the argument is `uffdio_copy`; the source is a page of this function's, the destination a hole.
        unsafe { rustix::ioctl::ioctl(faults, Copy::from([address, source, PAGE as u64, 0, 0])) }?;
        handled += 1;
    }
    Ok(())
}

/// The time stamp counter, which QEMU's translated guests read as it is.
pub fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has it, and Linux lets programs read it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// The median touch in microseconds.
pub fn touch(pages: usize, handler: Handler) -> anyhow::Result<f64> {
    let holes = Holes::new(pages)?;
    let faults = userfaultfd(&holes, handler)?;
    let mut times = Vec::with_capacity(pages);
    std::thread::scope(|scope| {
        let handling = scope.spawn(|| handle(&faults, pages));
        for page in 0..pages {
            let begun = Instant::now();
            let found = holes.touch(page);
            times.push(begun.elapsed().as_secs_f64() * 1e6);
            assert_eq!(found, 1, "page {page} came in with other content");
        }
        handling.join().map_err(|_| anyhow::anyhow!("the handler panicked"))?
    })?;
    Ok(crate::figure::median(times))
}
