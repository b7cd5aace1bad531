//! Machines with a display of QEMU's own, whose picture is a shared memory file beside the guest's.

use harness::machine::folder::RunFolder;
use harness::machine::qemu;
use mem_event_client::Client;
use std::process::{Command, Stdio};
use std::time::Duration;

/// With one thread for all vCPUs the picture is there before the first vCPU runs, and was taken for a second memory of the guest's.
#[test]
fn a_picture_is_no_memory_of_the_guest() {
    for (threads, screen) in [("single", "std"), ("single", "cirrus"), ("multi", "std")] {
        let folder = RunFolder::create().unwrap();
        let socket = folder.file("socket");
        let mut plugin = qemu::plugin_library().unwrap().into_os_string();
        plugin.push(",socket=");
        plugin.push(&socket);
        let mut machine = Command::new(qemu::find(None).unwrap())
            .args(["-nodefaults", "-display", "none", "-machine", "pc,memory-backend=ram", "-m", "64M"])
            .args(["-object", "memory-backend-memfd,id=ram,size=64M,share=on", "-vga", screen])
            .args(["-accel", &format!("tcg,thread={threads}"), "-plugin"])
            .arg(plugin)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let joined = loop {
            match Client::connect(&socket) {
                Ok(client) => break Some(client),
                Err(_) if machine.try_wait().unwrap().is_none() => std::thread::sleep(Duration::from_millis(5)),
                Err(_) => break None,
            }
        };
        // It answers where it found the guest's memory.
        let is_served = joined.is_some_and(|mut client| client.values(&mem_event::message::Call::Subscribe).is_ok());
        machine.kill().unwrap();
        let said = String::from_utf8_lossy(&machine.wait_with_output().unwrap().stderr).into_owned();
        assert!(is_served, "{threads} {screen}: {said}");
    }
}
