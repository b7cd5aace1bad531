//! Which page of the memory file a frame shows in QEMU's mapping.
//!
//! A plain fixed mapping over a frame drops its registration with userfaultfd, and a touch of the frame before it is registered
//! again is not seen. So there is a second mapping of the whole file, the *shadow*, which no thread ever touches: it was made from
//! QEMU's own, with its registration and its flags, and one `mremap` of one page of it (with an old size of 0, which leaves it where
//! it is) puts that page where the frame is: registered, and without a page table entry, so that the next touch is reported as of
//! any page that was taken out. As flags and registration are the same everywhere, a frame that shows its own page again becomes
//! one mapping with its neighbours.
//!
//! # Why no thread waits for ever
//!
//! The registration stays only where the kernel may tell of the move (UFFD_FEATURE_EVENT_REMAP), and then `mremap` returns only
//! when a thread has read that. The thread that asks for a remap holds the engine's lock, and the service thread, which reads usually, may be
//! waiting for that lock with a fault in its hands. So the two parts are divided the other way round:
//!
//! - The *worker*, a thread of its own, calls `mremap`. It takes no lock and touches no guest memory: all that it waits for is its next
//!   order, and the reading of its events.
//! - The thread that asks reads them: while the worker is at work it waits for the userfaultfd and the worker's signal, and for nothing
//!   else. Page faults that it reads on the way it gives to its caller, which hands them to the engine when this step is over.
//!
//! So an event is read by the thread that asks, or by the service thread where that comes first (which reads without any lock, and drops it): each remap
//! ends whatever others do. One remap is under way at a time, by a mutex that is taken last.
//! While one is under way the kernel answers the ioctls of userfaultfd with EAGAIN; all of those are made under the engine's lock.

#![allow(unsafe_code, reason = "mremap over QEMU's mapping of guest memory; each block is argued")]

use crate::memory::userfault::{UffdFault, Userfault};
use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::fd::OwnedFd;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

const PAGE: usize = mem_event::PAGE_SIZE;

/// One page: from this offset in the file to this host address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Offset in the memory file.
    pub offset: u64,
    /// Address in QEMU's mapping.
    pub address: u64,
}

#[derive(Debug)]
enum Order {
    /// Duplicate the mapping that begins here and is so long; says where.
    Shadow { base: u64, size: u64 },
    /// Put pages of the shadow, which begins here, where frames are.
    Moves { shadow: u64, moves: Vec<Move> },
}

/// The worker's other end.
#[derive(Debug)]
struct Worker {
    orders: Sender<Order>,
    results: Receiver<io::Result<u64>>,
    done: Arc<OwnedFd>,
}

/// The shadow, and the worker that moves its pages.
#[derive(Debug)]
pub struct Remapper {
    shadow: u64,
    worker: Mutex<Worker>,
}

impl Remapper {
    /// Makes the shadow of QEMU's mapping, which is registered, and starts the worker.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn new(userfault: &Userfault, base: u64, size: u64, meanwhile: &mut Vec<UffdFault>) -> io::Result<Remapper> {
        let worker = Worker::start()?;
        let shadow = worker.obey(userfault, Order::Shadow { base, size }, meanwhile)?;
        Ok(Remapper { shadow, worker: Mutex::new(worker) })
    }

    /// Where the shadow begins: it is registered whenever QEMU's mapping is.
    pub fn shadow(&self) -> u64 {
        self.shadow
    }

    /// Lets frames show these pages from now on. Faults that were read on the way are appended to `meanwhile`.
    ///
    /// # Errors
    /// The kernel's error; the moves before the one that failed are done.
    pub fn remap(&self, userfault: &Userfault, moves: Vec<Move>, meanwhile: &mut Vec<UffdFault>) -> io::Result<()> {
        let worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        worker.obey(userfault, Order::Moves { shadow: self.shadow, moves }, meanwhile).map(drop)
    }
}

impl Worker {
    fn start() -> io::Result<Worker> {
        let (orders, received) = channel::<Order>();
        let (answers, results) = channel();
        let done = Arc::new(rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let signal = Arc::clone(&done);
        std::thread::Builder::new().name("mem-event remap".to_owned()).spawn(move || {
            // Ends when nobody can send orders any more.
            while let Ok(order) = received.recv() {
                let is_heard = answers.send(order.carry_out()).is_ok();
                let is_signalled = rustix::io::write(&*signal, &1u64.to_ne_bytes()).is_ok();
                if !is_heard || !is_signalled {
                    return;
                }
            }
        })?;
        Ok(Worker { orders, results, done })
    }

    /// Gives an order, and reads what the kernel tells until it is carried out.
    fn obey(&self, userfault: &Userfault, order: Order, meanwhile: &mut Vec<UffdFault>) -> io::Result<u64> {
        let gone = || io::Error::other("the thread that remaps is gone");
        self.orders.send(order).map_err(|_| gone())?;
        loop {
            let mut watched = [PollFd::new(userfault, PollFlags::IN), PollFd::new(&*self.done, PollFlags::IN)];
            // An error says nothing about either; both are polled again.
            let _ = rustix::event::poll(&mut watched, None);
            let is_done = watched[1].revents().contains(PollFlags::IN);
            let _ = userfault.faults(|fault| meanwhile.push(fault));
            if is_done {
                let _ = rustix::io::read(&*self.done, &mut [0; 8]);
                return self.results.recv().map_err(|_| gone())?;
            }
        }
    }
}

impl Order {
    /// The worker's part; it may stand in the kernel until its event is read.
    fn carry_out(self) -> io::Result<u64> {
        match self {
            // SAFETY: the range is QEMU's mapping of guest memory, which is shared and stays; with an old size of 0 the kernel
            // makes another mapping of the same file somewhere else and changes nothing here.
            Order::Shadow { base, size } => unsafe { duplicate(base, size, None) },
            Order::Moves { shadow, moves } => moves.into_iter().try_fold(0, |_, Move { offset, address }| {
                // SAFETY: the offset lies in the shadow and the address in QEMU's mapping, which are equally long and live as
                // long as the process; what was mapped there is a page of the same file, whose content stays in it.
                unsafe { duplicate(shadow + offset, PAGE as u64, Some(address)) }
            }),
        }
    }
}

/// Another mapping of what begins at `from`, at an address of the kernel's choice or at this one; says where.
///
/// # Safety
/// `from` lies in a shared mapping; what is mapped at `to` may go.
unsafe fn duplicate(from: u64, size: u64, to: Option<u64>) -> io::Result<u64> {
    let pointer = |address: u64| address as *mut libc::c_void;
    let size = usize::try_from(size).map_err(io::Error::other)?;
    let flags = libc::MREMAP_MAYMOVE | if to.is_some() { libc::MREMAP_FIXED } else { 0 };
    // SAFETY: by this function's contract; the last argument is read where the flags say so.
    let made = unsafe { libc::mremap(pointer(from), 0, size, flags, pointer(to.unwrap_or(0))) };
    if made == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(made.addr() as u64) }
}
