//! Starts a program that ends when this process ends. One of the files with unsafe code: what runs between fork and exec.

#![allow(unsafe_code, reason = "the code between fork and exec is the caller's promise; argued below")]

use rustix::io::FdFlags;
use rustix::process::Signal;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Has a program get its three standard descriptors and no other, whatever this one was handed.
pub fn apart(command: &mut Command) -> &mut Command {
    let close = || {
        // SAFETY: numbers alone; each descriptor is closed by the exec that follows, so nothing here loses one.
        let result = unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed: one system call, and the number of its error.
    unsafe { command.pre_exec(close) }
}

/// Starts the program; the kernel kills it when the calling *thread* ends, so call this from one that stays. The descriptors are
/// open in the new process under the same numbers, and closed here.
///
/// # Errors
/// The program cannot be started.
pub fn spawn_bound(mut command: Command, hand_over: Vec<OwnedFd>) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    let bind = move || {
        // Only here, after the fork: another thread of this process may start a program of its own meanwhile.
        for descriptor in &hand_over {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have gone before the line above.
        if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(io::Error::other("the harness is gone")) }
    };
    // SAFETY: between fork and exec only async-signal-safe work is allowed. The closure makes system calls, allocates
    // nothing on its way to success, takes no lock, and touches no memory that another thread could have left half written.
    unsafe { command.pre_exec(bind) };
    command.spawn()
}
