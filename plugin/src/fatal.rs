//! The end of a run that cannot go on.

use crate::host::domain_host::Host;
use crate::qemu::api;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The control socket, which goes with the process.
static SOCKET: OnceLock<PathBuf> = OnceLock::new();

/// The control socket is there, by this path.
pub fn owns_socket(path: PathBuf) {
    let _ = SOCKET.set(path);
}

/// The process ends: nobody connects any more.
pub fn remove_socket() {
    if let Some(path) = SOCKET.get() {
        let _ = std::fs::remove_file(path);
    }
}

/// Says why, tells the subscribers, and ends QEMU at once. The trace has been closed by then.
pub fn end_run(host: Option<&Host>, sentence: &str) -> ! {
    eprintln!("mem-event: {sentence}");
    if let Some(host) = host {
        host.crash(sentence);
    }
    remove_socket();
    // Not `exit`: QEMU's exit handlers wait for vCPU threads, and this may be called from one.
    api::end_process(1)
}
