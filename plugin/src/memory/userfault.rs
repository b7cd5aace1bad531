//! userfaultfd: the kernel tells which thread touched a page that is not mapped, and keeps the thread until it is.

#![allow(unsafe_code, reason = "the ioctls of userfaultfd, which no safe crate offers with minor faults")]

use mem_event::PAGE_SIZE;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const API: u64 = 0xaa;
const FEATURE_EVENT_REMAP: u64 = 1 << 2;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const FEATURE_THREAD_ID: u64 = 1 << 8;
const FEATURE_MINOR_SHMEM: u64 = 1 << 10;
const FEATURE_EXACT_ADDRESS: u64 = 1 << 11;
const FEATURE_WP_SHMEM: u64 = 1 << 12;
const FEATURES: u64 = FEATURE_EVENT_REMAP
    | FEATURE_MISSING_SHMEM
    | FEATURE_THREAD_ID
    | FEATURE_MINOR_SHMEM
    | FEATURE_EXACT_ADDRESS
    | FEATURE_WP_SHMEM;
const MODE_MISSING: u64 = 1;
const MODE_WRITE_PROTECT: u64 = 1 << 1;
const MODE_MINOR: u64 = 1 << 2;
const EVENT_PAGEFAULT: u8 = 0x12;
const FLAG_WRITE: u64 = 1;
const FLAG_WRITE_PROTECT: u64 = 1 << 1;
/// `UFFDIO_CONTINUE_MODE_DONTWAKE`.
const CONTINUE_QUIETLY: u64 = 1;
/// `UFFDIO_COPY_MODE_WP`.
const COPY_WRITE_PROTECTED: u64 = 1 << 1;
/// `UFFDIO_WRITEPROTECT_MODE_WP`, which wakes nobody, and without it `_DONTWAKE`.
const PROTECT: u64 = 1;
const PROTECT_QUIETLY: u64 = 1 << 1;
/// From Linux 6.4 on.
const CONTINUE_WRITE_PROTECTED: u64 = 1 << 1;
const PAGE: u64 = 4096;
/// Bytes of a `struct uffd_msg`.
const MESSAGE: usize = 32;

/// `_IOWR(0xaa, number, size)`.
const fn request(number: u64, size: usize) -> libc::c_ulong {
    3 << 30 | (size as u64) << 16 | 0xaa << 8 | number
}

#[repr(C)]
struct ApiArgument {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Protect {
    start: u64,
    len: u64,
    mode: u64,
}

/// `uffdio_continue` and `uffdio_zeropage` have the same shape.
#[repr(C)]
struct Resolve {
    start: u64,
    len: u64,
    mode: u64,
    done: i64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

/// What becomes of the threads that stopped on a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Wakes,
    LetsSleep,
}

/// What the kernel tells of one fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UffdFault {
    /// The host address touched.
    pub address: u64,
    /// Whether it was a write.
    pub write: bool,
    /// The thread's number.
    pub thread: i32,
    /// How often threads had been let go when this was read.
    read: u64,
}

/// When threads were let go: what was read of a page before it was last done there is old.
#[derive(Debug)]
struct Woken {
    base: u64,
    /// How often it was begun.
    count: AtomicU64,
    /// For each page the number of the last time.
    last: Box<[AtomicU64]>,
}

impl Woken {
    fn new(base: u64, size: u64) -> Woken {
        // Made of zeros by the kernel, when it is used.
        let last = vec![0_u64; usize::try_from(size / PAGE).unwrap_or(0)].into_boxed_slice();
        // SAFETY: the box is this function's own, and an atomic number has the size, the alignment and the values of a plain one.
        let last = unsafe { Box::from_raw(Box::into_raw(last) as *mut [AtomicU64]) };
        Woken { base, count: AtomicU64::new(0), last }
    }

    fn last_of(&self, address: u64) -> Option<&AtomicU64> {
        self.last.get(usize::try_from(address.checked_sub(self.base)? / PAGE).ok()?)
    }

    /// Lets the threads go that stopped on a page. What is read from its beginning on is new in any case: such a thread may have stopped again.
    fn by(&self, address: u64, lets_go: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let number = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        lets_go()?;
        if let Some(last) = self.last_of(address) {
            last.store(number, Ordering::Release);
        }
        Ok(())
    }
}

/// A userfaultfd with one memory range.
#[derive(Debug)]
pub struct Userfault {
    fd: OwnedFd,
    woken: Woken,
}

impl Userfault {
    /// Opens one for this range of addresses, and agrees on features.
    ///
    /// # Errors
    /// No right to open one, or a kernel without the features, in a sentence with the remedy.
    pub fn open(base: u64, size: u64) -> Result<Userfault, String> {
        let fd = open_descriptor()?;
        let userfault = Userfault { fd, woken: Woken::new(base, size) };
        let mut api = ApiArgument { api: API, features: FEATURES, ioctls: 0 };
        // SAFETY: the argument has the layout of `struct uffdio_api` and lives through the call.
        unsafe { userfault.ioctl(request(0x3f, size_of::<ApiArgument>()), &mut api) }.map_err(|error| {
            format!(
                "this kernel's userfaultfd lacks minor faults or write protection of shared memory ({error}); Linux 5.19 or later has them"
            )
        })?;
        Ok(userfault)
    }

    /// From now on, touches of unmapped pages in this range stop the thread that touches.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn register(&self, start: u64, len: u64, missing: bool) -> io::Result<()> {
        let mode = MODE_WRITE_PROTECT | MODE_MINOR | if missing { MODE_MISSING } else { 0 };
        let mut register = Register { start, len, mode, ioctls: 0 };
        // SAFETY: `struct uffdio_register`; registering changes no memory.
        unsafe { self.ioctl(request(0, size_of::<Register>()), &mut register) }
    }

    /// Maps the page that the memory file holds, writable or not, and lets all threads go that stopped on it. A page that is
    /// mapped already gets the protection; `false` means that the file holds no page there.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn map(&self, address: u64, writable: bool) -> io::Result<bool> {
        self.map_and(Then::Wakes, address, writable)
    }

    /// The same, writable, and lets nobody go.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn map_quietly(&self, address: u64) -> io::Result<bool> {
        self.map_and(Then::LetsSleep, address, true)
    }

    fn map_and(&self, then: Then, address: u64, writable: bool) -> io::Result<bool> {
        let protected = if writable || !can_map_protected() { 0 } else { CONTINUE_WRITE_PROTECTED };
        let mode = protected | if then == Then::Wakes { 0 } else { CONTINUE_QUIETLY };
        let mut resolve = Resolve { start: address & !(PAGE - 1), len: PAGE, mode, done: 0 };
        // SAFETY: `struct uffdio_continue`; it maps a page of a registered range where none is.
        let mut continues = || unsafe { self.ioctl(request(7, size_of::<Resolve>()), &mut resolve) };
        let done = if then == Then::Wakes { self.woken.by(address, continues) } else { continues() };
        match done {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.protect(address, !writable)?;
                if then == Then::Wakes { self.wake(address).map(|()| true) } else { Ok(true) }
            }
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the kernel knows `UFFDIO_CONTINUE_MODE_WP`: it checks the mode before it searches for the range, and this one is not
    /// registered. A kernel that does not know the mode answers EINVAL.
    fn knows_protected(&self) -> bool {
        let here = 0u8;
        let start = (&raw const here).addr() as u64 & !(PAGE - 1);
        let mut resolve = Resolve { start, len: PAGE, mode: CONTINUE_WRITE_PROTECTED, done: 0 };
        // SAFETY: `struct uffdio_continue`; it changes nothing outside of a registered range, and the stack is never one.
        let answer = unsafe { self.ioctl(request(7, size_of::<Resolve>()), &mut resolve) };
        answer.is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT))
    }

    /// Gives the page zeroed memory where it has none, and lets all threads go that stopped on it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn zero(&self, address: u64) -> io::Result<()> {
        let mut resolve = Resolve { start: address & !(PAGE - 1), len: PAGE, mode: 0, done: 0 };
        // SAFETY: `struct uffdio_zeropage`; it fills a page of a registered range where none is.
        match self.woken.by(address, || unsafe { self.ioctl(request(4, size_of::<Resolve>()), &mut resolve) }) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => self.map(address, true).map(|_| ()),
            other => other,
        }
    }

    /// Makes the page with this content where the memory file has none, maps it, writable or not, and lets all threads go that stopped on it.
    ///
    /// # Errors
    /// The kernel's error: EEXIST where there is one.
    pub fn copy(&self, address: u64, content: &[u8; PAGE_SIZE], writable: bool) -> io::Result<()> {
        let mode = if writable { 0 } else { COPY_WRITE_PROTECTED };
        let (dst, src) = (address & !(PAGE - 1), content.as_ptr().expose_provenance() as u64);
        let mut copy = Copy { dst, src, len: PAGE, mode, copied: 0 };
        // SAFETY: `struct uffdio_copy`; the source is a page's bytes that live through the call, and it fills a page of a registered range where
        // none is.
        self.woken.by(address, || unsafe { self.ioctl(request(3, size_of::<Copy>()), &mut copy) })
    }

    /// Write-protects a mapped page, or takes the protection off; wakes nobody.
    fn protect(&self, address: u64, protected: bool) -> io::Result<()> {
        let mode = if protected { PROTECT } else { PROTECT_QUIETLY };
        let mut argument = Protect { start: address & !(PAGE - 1), len: PAGE, mode };
        // SAFETY: `struct uffdio_writeprotect`; it changes the protection of a page of a registered range.
        unsafe { self.ioctl(request(6, size_of::<Protect>()), &mut argument) }
    }

    /// Lets all threads go that stopped on a page.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn wake(&self, address: u64) -> io::Result<()> {
        let mut range = Range { start: address & !(PAGE - 1), len: PAGE };
        // SAFETY: `struct uffdio_range`; it only wakes. Its number is `_IOR`.
        self.woken.by(address, || unsafe { self.ioctl(2 << 30 | 16 << 16 | 0xaa << 8 | 2, &mut range) })
    }

    /// Whether the thread was let go since this was read. If it stops there again, that is told anew.
    pub fn is_old(&self, fault: &UffdFault) -> bool {
        self.woken.last_of(fault.address).is_some_and(|last| last.load(Ordering::Acquire) > fault.read)
    }

    /// The faults that wait. What else the kernel tells is that a mapping was moved (`remap`): the thread that moved it goes on now that it is
    /// read.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn faults(&self, mut each: impl FnMut(UffdFault)) -> io::Result<()> {
        let mut messages = [[0u8; MESSAGE]; 16];
        loop {
            let count = match rustix::io::read(&self.fd, messages.as_flattened_mut()) {
                Ok(length) => length / MESSAGE,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let read = self.woken.count.load(Ordering::Acquire);
            let faults = messages[..count].iter().filter(|message| message[0] == EVENT_PAGEFAULT);
            faults.map(|message| parse(message, read)).for_each(&mut each);
            if count < messages.len() {
                return Ok(());
            }
        }
    }

    /// # Safety
    /// The argument has the layout and the effects that the caller of this number must answer for.
    unsafe fn ioctl<T>(&self, number: libc::c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: by this function's contract.
        if unsafe { libc::ioctl(self.fd.as_raw_fd(), number, std::ptr::from_mut(argument)) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

impl AsFd for Userfault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// How a run is called in which frames are watched by checks alone.
pub const WITHOUT: &str = "watching without userfaultfd";

/// Whether this process may open a userfaultfd, of a kernel that has what is needed; it is asked once.
///
/// # Errors
/// What is lacking, a semicolon, and the remedy.
pub fn right() -> Result<(), String> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    FOUND.get_or_init(|| Userfault::open(0, 0).map(drop)).clone()
}

/// Whether this kernel offers what `gate=mmu` needs; it is asked once.
///
/// # Errors
/// What is lacking, a semicolon, and the remedy.
pub fn probe() -> Result<(), String> {
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    let ask = || {
        if Userfault::open(0, 0)?.knows_protected() {
            Ok(())
        } else {
            Err("this kernel maps no page write-protected at once; Linux 6.4 or later does, and gate=callback works without".to_owned())
        }
    };
    FOUND.get_or_init(ask).clone()
}

/// Whether this kernel maps a page write-protected at once.
pub fn can_map_protected() -> bool {
    probe().is_ok()
}

/// `struct uffd_msg`: event u8 at 0; for page faults flags u64 at 8, address u64 at 16, thread u32 at 24.
fn parse(message: &[u8; MESSAGE], read: u64) -> UffdFault {
    let u64_at = |at: usize| message[at..at + 8].iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    UffdFault {
        address: u64_at(16),
        write: u64_at(8) & (FLAG_WRITE | FLAG_WRITE_PROTECT) != 0,
        thread: i32::from_le_bytes([message[24], message[25], message[26], message[27]]),
        read,
    }
}

/// The system call where it is allowed, else `/dev/userfaultfd`; never user-mode-only, which would fail QEMU's own system
/// calls into guest memory.
fn open_descriptor() -> Result<OwnedFd, String> {
    const NEW: libc::c_ulong = 0xaa << 8;
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    // SAFETY: a system call with plain numbers that returns a new descriptor or -1.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) };
    let fd = if fd >= 0 {
        fd
    } else {
        match std::fs::OpenOptions::new().read(true).write(true).open("/dev/userfaultfd") {
            // SAFETY: USERFAULTFD_IOC_NEW takes flags and returns a new descriptor or -1.
            Ok(device) => i64::from(unsafe { libc::ioctl(device.as_raw_fd(), NEW, flags) }),
            Err(_) => -1,
        }
    };
    match i32::try_from(fd) {
        // SAFETY: a new descriptor that nobody else owns.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err("no right to open a userfaultfd; run as root, or give access to /dev/userfaultfd, or set the sysctl \
                  vm.unprivileged_userfaultfd to 1"
            .to_owned()),
    }
}
