//! A terminal of a test's own, for a command to draw on.

use super::wait_for;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

/// What is drawn, and the terminal's other end; of so many columns and rows.
pub fn terminal((columns, rows): (u16, u16)) -> (File, OwnedFd) {
    // Not for the command, which would be at both ends.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = rustix::pty::openpt(flags).expect("a terminal");
    rustix::pty::grantpt(&ours).expect("a terminal of one's own");
    rustix::pty::unlockpt(&ours).expect("its other end");
    let name = rustix::pty::ptsname(&ours, Vec::new()).expect("its name");
    let name = name.to_str().expect("its name in letters");
    let theirs = File::options().read(true).write(true).open(name).expect("its other end");
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&theirs, size).expect("its size");
    (File::from(ours), theirs.into())
}

/// A command on a terminal, which has it alone once its caller has dropped it.
pub fn spawn_on(terminal: &OwnedFd, mut command: Command) -> Child {
    let end = || Stdio::from(terminal.try_clone().expect("a descriptor"));
    command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("the command")
}

/// Reads until this was drawn; all that was.
pub fn read_until(terminal: &mut File, what: &str) -> String {
    let (mut all, mut bytes) = (String::new(), [0; 4096]);
    while !all.contains(what) {
        wait_for(what, &*terminal);
        let count = terminal.read(&mut bytes).expect("what was drawn");
        all += &String::from_utf8_lossy(&bytes[..count]);
    }
    all
}
