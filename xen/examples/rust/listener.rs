//! The listener of `listener.c` in Rust, on Xen's libraries and nothing else: who writes to a range of frames is told, and goes on. SIGINT
//! ends it.
//!
//! ```text
//! rustc --edition 2024 -O -o listener listener.rs
//! mem-event xen --domain 1=/tmp/guest.sock -- ./listener 1 0x100 16
//! ```
//!
//! What is taken of Xen stands in [`ffi`], by the names and layouts of `xenctrl.h`, `xenevtchn.h`, `xen/io/ring.h` and `xen/vm_event.h`. One
//! of the files with unsafe code: calls of C, and a page that Xen writes to.

#![allow(unsafe_code, reason = "a program on libraries in C; argued below")]

use std::io::Error;
use std::process::ExitCode;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What the program takes of Xen's libraries and of C's.
mod ffi {
    use std::ffi::{c_char, c_int, c_short, c_uint, c_ulong, c_void};

    /// `XC_PAGE_SIZE`
    pub const PAGE: usize = 4096;
    /// `VM_EVENT_INTERFACE_VERSION`
    pub const VERSION: u32 = 7;
    /// `VM_EVENT_FLAG_VCPU_PAUSED`
    pub const VCPU_PAUSED: u32 = 1;
    /// `XENMEM_access_rx`
    pub const ACCESS_RX: c_uint = 5;
    /// `XENMEM_access_rwx`
    pub const ACCESS_RWX: c_uint = 7;
    pub const SIGINT: c_int = 2;
    pub const SIGTERM: c_int = 15;
    pub const POLLIN: c_short = 1;

    /// `vm_event_request_t`, which is `vm_event_response_t`; its union as the memory access that this program asks for.
    #[repr(C)]
    #[derive(Clone, Copy)]
    pub struct VmEvent {
        pub version: u32,
        pub flags: u32,
        pub reason: u32,
        pub vcpu: u32,
        pub altp2m: u16,
        pub reserved: [u16; 3],
        pub gfn: u64,
        pub offset: u64,
        pub gla: u64,
        pub access: u32,
        pub padding: u32,
        /// `struct vm_event_regs_x86`
        pub registers: [u64; 43],
    }
    const _: () = assert!(size_of::<VmEvent>() == 400);

    /// `struct pollfd`
    #[repr(C)]
    pub struct PollFd {
        pub fd: c_int,
        pub events: c_short,
        pub revents: c_short,
    }

    /// `xc_interface`
    #[repr(C)]
    pub struct Interface([u8; 0]);

    /// `xenevtchn_handle`
    #[repr(C)]
    pub struct Channel([u8; 0]);

    #[link(name = "xenctrl")]
    unsafe extern "C" {
        pub fn xc_interface_open(logger: *mut c_void, dombuild_logger: *mut c_void, flags: c_uint) -> *mut Interface;
        pub fn xc_interface_close(xch: *mut Interface) -> c_int;
        pub fn xc_monitor_enable(xch: *mut Interface, domain: u32, port: *mut u32) -> *mut c_void;
        pub fn xc_monitor_disable(xch: *mut Interface, domain: u32) -> c_int;
        pub fn xc_set_mem_access(xch: *mut Interface, domain: u32, access: c_uint, first: u64, count: u32) -> c_int;
    }

    #[link(name = "xenevtchn")]
    unsafe extern "C" {
        pub fn xenevtchn_open(logger: *mut c_void, flags: c_uint) -> *mut Channel;
        pub fn xenevtchn_close(channel: *mut Channel) -> c_int;
        pub fn xenevtchn_fd(channel: *mut Channel) -> c_int;
        pub fn xenevtchn_bind_interdomain(channel: *mut Channel, domain: u32, remote: u32) -> c_int;
        pub fn xenevtchn_unbind(channel: *mut Channel, port: u32) -> c_int;
        pub fn xenevtchn_pending(channel: *mut Channel) -> c_int;
        pub fn xenevtchn_unmask(channel: *mut Channel, port: u32) -> c_int;
        pub fn xenevtchn_notify(channel: *mut Channel, port: u32) -> c_int;
    }

    unsafe extern "C" {
        pub fn signal(number: c_int, handler: extern "C" fn(c_int)) -> *const c_char;
        pub fn poll(waited: *mut PollFd, count: c_ulong, milliseconds: c_int) -> c_int;
        pub fn munmap(address: *mut c_void, length: usize) -> c_int;
    }
}

static STOPPED: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_signal: i32) {
    STOPPED.store(true, Ordering::Relaxed);
}

/// What has failed, and why.
fn failed(what: &str) -> String {
    format!("{what}: {}", Error::last_os_error())
}

/// What is to be 0.
fn check(returned: i32, what: &str) -> Result<(), String> {
    if returned == 0 { Ok(()) } else { Err(failed(what)) }
}

/// A domain whose accesses are listened to.
struct Listener {
    xch: NonNull<ffi::Interface>,
    domain: u32,
}

impl Listener {
    fn open(domain: u32) -> Result<Listener, String> {
        // SAFETY: no logger is given, which is what libxenctrl takes for its own.
        let xch = unsafe { ffi::xc_interface_open(std::ptr::null_mut(), std::ptr::null_mut(), 0) };
        let xch = NonNull::new(xch).ok_or_else(|| failed("there is no Xen"))?;
        Ok(Listener { xch, domain })
    }

    /// Rights of frames.
    fn set_access(&self, access: u32, first: u64, count: u32) -> Result<(), String> {
        // SAFETY: the interface is open until `self` is dropped, and the rest are numbers.
        let returned = unsafe { ffi::xc_set_mem_access(self.xch.as_ptr(), self.domain, access, first, count) };
        check(returned, "the rights cannot be set")
    }

    fn enable(&self) -> Result<Ring, String> {
        let mut remote = 0;
        // SAFETY: the interface is open, and the port is written before the call returns.
        let page = unsafe { ffi::xc_monitor_enable(self.xch.as_ptr(), self.domain, &raw mut remote) };
        let page = NonNull::new(page.cast()).ok_or_else(|| failed("the monitor ring cannot be had"))?;
        Ring::bind(page, self.domain, remote)
    }

    /// Takes what is on the ring: the page opens, the answer names what it is for, and wakes the vCPU if it was stopped.
    fn serve(&self, ring: &mut Ring) -> Result<(), String> {
        while let Some(request) = ring.next() {
            self.set_access(ffi::ACCESS_RWX, request.gfn, 1)?;
            let answer = ffi::VmEvent { version: ffi::VERSION, flags: request.flags & ffi::VCPU_PAUSED, ..request };
            ring.answer(&answer);
            ring.notify()?;
            println!("vCPU {} writes at {:#x}", request.vcpu, request.gla);
        }
        Ok(())
    }

    fn disable(&self) -> Result<(), String> {
        // SAFETY: the interface is open.
        check(unsafe { ffi::xc_monitor_disable(self.xch.as_ptr(), self.domain) }, "the ring cannot be given back")
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // SAFETY: nobody has the interface after this.
        unsafe { ffi::xc_interface_close(self.xch.as_ptr()) };
    }
}

/// The back of a ring: `vm_event_sring_t` on its page, `vm_event_back_ring_t` here, and its event channel.
struct Ring {
    page: NonNull<u8>,
    channel: NonNull<ffi::Channel>,
    port: u32,
    taken: u32,
    answered: u32,
}

impl Ring {
    /// As many slots as fit a page behind its header of 64 bytes, and are a power of two: of which.
    const ORDER: u32 = ((ffi::PAGE - 64) / size_of::<ffi::VmEvent>()).ilog2();
    const REQ_PROD: usize = 0;
    const REQ_EVENT: usize = 1;
    const RSP_PROD: usize = 2;
    const RSP_EVENT: usize = 3;

    fn bind(page: NonNull<u8>, domain: u32, remote: u32) -> Result<Ring, String> {
        // SAFETY: no logger is given.
        let channel = unsafe { ffi::xenevtchn_open(std::ptr::null_mut(), 0) };
        let channel = NonNull::new(channel).ok_or_else(|| failed("there are no event channels"))?;
        // SAFETY: the channel was opened just now.
        let port = unsafe { ffi::xenevtchn_bind_interdomain(channel.as_ptr(), domain, remote) };
        let port = u32::try_from(port).map_err(|_| failed("the event channel cannot be bound"))?;
        let ring = Ring { page, channel, port, taken: 0, answered: 0 };
        // `SHARED_RING_INIT`
        for (counter, begin) in [(Ring::REQ_PROD, 0), (Ring::RSP_PROD, 0), (Ring::REQ_EVENT, 1), (Ring::RSP_EVENT, 1)] {
            ring.counter(counter).store(begin, Ordering::Relaxed);
        }
        Ok(ring)
    }

    fn counter(&self, number: usize) -> &AtomicU32 {
        // SAFETY: the page begins with four aligned counters, is mapped until `self` is dropped, and whoever shares it counts on them
        // by whole words.
        unsafe { AtomicU32::from_ptr(self.page.cast::<u32>().add(number).as_ptr()) }
    }

    fn slot(&self, count: u32) -> *mut ffi::VmEvent {
        let number = count & ((1 << Ring::ORDER) - 1);
        // SAFETY: so many slots lie on the page behind its header.
        unsafe { self.page.add(64).cast::<ffi::VmEvent>().add(number as usize).as_ptr() }
    }

    /// Waits for a request, or a second.
    fn wait(&self) {
        // SAFETY: the channel is open until `self` is dropped.
        let fd = unsafe { ffi::xenevtchn_fd(self.channel.as_ptr()) };
        let mut waited = ffi::PollFd { fd, events: ffi::POLLIN, revents: 0 };
        // SAFETY: it is one descriptor that is waited for.
        if unsafe { ffi::poll(&raw mut waited, 1, 1000) } <= 0 {
            return;
        }
        // SAFETY: the channel is open.
        let pending = unsafe { ffi::xenevtchn_pending(self.channel.as_ptr()) };
        if let Ok(port) = u32::try_from(pending) {
            // SAFETY: the channel is open.
            unsafe { ffi::xenevtchn_unmask(self.channel.as_ptr(), port) };
        }
    }

    /// The next request, if there is one.
    fn next(&mut self) -> Option<ffi::VmEvent> {
        if self.counter(Ring::REQ_PROD).load(Ordering::Acquire) == self.taken {
            return None;
        }
        // SAFETY: the slot was written before the count of requests, and is this program's until it is answered.
        let request = unsafe { self.slot(self.taken).read() };
        self.taken = self.taken.wrapping_add(1);
        self.counter(Ring::REQ_EVENT).store(self.taken.wrapping_add(1), Ordering::Relaxed);
        Some(request)
    }

    fn answer(&mut self, answer: &ffi::VmEvent) {
        // SAFETY: of each request that was taken the slot is this program's for the answer.
        unsafe { self.slot(self.answered).write(*answer) };
        self.answered = self.answered.wrapping_add(1);
        self.counter(Ring::RSP_PROD).store(self.answered, Ordering::Release);
    }

    fn notify(&self) -> Result<(), String> {
        // SAFETY: the channel is open, and the port is bound.
        check(unsafe { ffi::xenevtchn_notify(self.channel.as_ptr(), self.port) }, "the answer cannot be signalled")
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: nobody has the page, the port or the channel after this.
        unsafe {
            ffi::munmap(self.page.as_ptr().cast(), ffi::PAGE);
            ffi::xenevtchn_unbind(self.channel.as_ptr(), self.port);
            ffi::xenevtchn_close(self.channel.as_ptr());
        }
    }
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok())
}

fn listen(domain: u32, first: u64, count: u32) -> Result<(), String> {
    let listener = Listener::open(domain)?;
    let mut ring = listener.enable()?;
    listener.set_access(ffi::ACCESS_RX, first, count)?;
    while !STOPPED.load(Ordering::Relaxed) {
        ring.wait();
        listener.serve(&mut ring)?;
    }
    // What comes until the rights are back is answered, too.
    listener.set_access(ffi::ACCESS_RWX, first, count)?;
    listener.serve(&mut ring)?;
    drop(ring);
    listener.disable()
}

fn main() -> ExitCode {
    for signal in [ffi::SIGINT, ffi::SIGTERM] {
        // SAFETY: the handler stores to an atomic and does nothing else.
        unsafe { ffi::signal(signal, stop) };
    }
    let arguments: Vec<Option<u64>> = std::env::args().skip(1).map(|text| number(&text)).collect();
    let [Some(domain), Some(first), Some(count)] = arguments[..] else {
        eprintln!("usage: listener DOMAIN FIRST COUNT");
        return ExitCode::from(2);
    };
    match listen(domain as u32, first, count as u32) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("listener: {why}");
            ExitCode::FAILURE
        }
    }
}
