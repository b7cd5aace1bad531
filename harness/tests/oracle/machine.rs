//! The guest of the recordings in a QEMU of one's own, and the interpreter of the scripts as a tool of Xen's.

use crate::support::command;
use harness::machine::folder::RunFolder;
use harness::machine::process::Qemu;
use harness::machine::qemu;
use rustix::event::{PollFd, PollFlags, Timespec};
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// A guest that walks over memory delays each page so long: a round is short beside a script's waits.
const OF_A_PAGE: &str = "-DDELAY=500000";
/// One that makes CPU events delays each round so long: a script's calls come between its rounds.
const OF_A_ROUND: &str = "-DDELAY=1000000";
/// A script waits some seconds by itself; more is a hang.
const LONGEST: Duration = Duration::from_secs(120);

/// What scripts call `xl destroy`: the end of the domain is that of its QEMU.
const XL: &str = "\
#!/usr/bin/env python3
import os, select, signal
qemu = int(os.environ['ORACLE_QEMU'])
ended = os.pidfd_open(qemu)
os.kill(qemu, signal.SIGTERM)
select.select([ended], [], [])
";

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(name)
}

/// A file of the recordings.
pub fn text(name: &str) -> String {
    std::fs::read_to_string(source(name)).unwrap()
}

/// What is built for the scripts.
pub struct Tools {
    interpreter: PathBuf,
    folder: PathBuf,
}

impl Tools {
    /// Builds them, where this machine has Xen's libraries.
    pub fn build(folder: &RunFolder) -> Option<Tools> {
        if !Path::new("/usr/include/xenctrl.h").is_file() {
            eprintln!("skipped: there are no headers of Xen's libraries; ci/setup installs them (libxen-dev)");
            return None;
        }
        let interpreter = folder.file("ora");
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-w", "-o"]).arg(&interpreter).arg(source("ora.c"));
        cc.args(["-lxenctrl", "-lxenevtchn", "-lxenforeignmemory", "-lxencall"]);
        assert!(cc.status().unwrap().success(), "the interpreter does not build");
        for (kind, from, delay) in [("m", "guest.S", OF_A_PAGE), ("c", "guest.S", OF_A_ROUND), ("s", "smp.S", "-DSMP")]
        {
            let mut cc = Command::new("cc");
            cc.args(["-m32", delay, "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none,--no-warn-rwx-segments"]);
            cc.arg(format!("-Wl,-T,{}", source("guest.ld").display()));
            cc.arg("-o").arg(folder.file(kind)).arg(source(from));
            assert!(cc.status().unwrap().success(), "the guest does not build");
        }
        std::fs::write(folder.file("xl"), XL).unwrap();
        std::fs::set_permissions(folder.file("xl"), PermissionsExt::from_mode(0o755)).unwrap();
        Some(Tools { interpreter, folder: folder.file("") })
    }
}

/// A guest that has come into its rounds; of `kind` `m` it walks over memory, of `c` it makes CPU events, of `s` its vCPUs do what a script
/// tells them.
pub struct Machine {
    qemu: Qemu,
    folder: RunFolder,
}

impl Machine {
    pub fn start(tools: &Tools, kind: &str, vcpus: usize, gate: &str) -> Machine {
        let folder = RunFolder::create().unwrap();
        let path = |name: &str| folder.file(name).display().to_string();
        let mut command = Command::new(qemu::find(None).unwrap());
        command.args(["-accel", "tcg,thread=multi", "-machine", "q35,smm=off,memory-backend=ram"]);
        // Frames that were never touched are there in Xen.
        command.args(["-object", "memory-backend-memfd,id=ram,size=16M,share=on,prealloc=on", "-m", "16M"]);
        command.args(["-smp", &vcpus.to_string()]);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(["-chardev", &format!("socket,id=monitor,path={}", path("monitor"))]);
        command.args(["-mon", "chardev=monitor,mode=control", "-debugcon", &format!("file:{}", path("console"))]);
        command.arg("-kernel").arg(tools.folder.join(kind)).args(["-append", kind]);
        let plugin = qemu::plugin_library().unwrap();
        let socket = path("socket");
        command.arg("-plugin").arg(format!("{},socket={socket},gate={gate},foreign=map", plugin.display()));
        let Ok(qemu) = Qemu::start(command, &folder) else { panic!("QEMU does not start") };
        let machine = Machine { qemu, folder };
        let come = |console: &str| match kind {
            "s" => console.matches('U').count() == vcpus,
            _ => console.matches("L0").count().max(console.matches("R0").count()) >= 3,
        };
        machine.comes_to(&come);
        machine
    }

    fn comes_to(&self, come: &dyn Fn(&str) -> bool) {
        let end = Instant::now() + LONGEST;
        loop {
            let console = self.qemu.console();
            if come(&console) {
                return;
            }
            assert!(Instant::now() < end, "the guest does not come so far: {console}{}", self.qemu.errors());
            let mut waited = [PollFd::new(&self.qemu, PollFlags::IN)];
            let shortly = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            assert_eq!(rustix::event::poll(&mut waited, Some(&shortly)).unwrap_or_default(), 0, "QEMU has ended");
        }
    }

    /// What the interpreter prints on the script in this file.
    pub fn runs(&self, tools: &Tools, script: &str) -> String {
        let printed = self.folder.file("printed");
        let mut tool = command(&self.folder);
        tool.args(["xen", "--domain", &format!("1={}", self.folder.file("socket").display()), "--"]);
        // A script starts the interpreter once more, by its name, and `xl`.
        let path = format!("{}:{}", tools.folder.display(), std::env::var("PATH").unwrap_or_default());
        tool.env("PATH", path).env("ORACLE_QEMU", self.qemu.pid().to_string());
        // A script ends its mappers by its group.
        tool.process_group(0);
        tool.arg(&tools.interpreter).arg("1").stdin(File::open(source(script)).unwrap());
        tool.stdout(File::create(&printed).unwrap()).stderr(File::create(self.folder.file("said")).unwrap());
        let mut child = tool.spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let longest = Timespec { tv_sec: 120, tv_nsec: 0 };
        let count = rustix::event::poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&longest));
        if count != Ok(1) {
            child.kill().unwrap();
        }
        child.wait().unwrap();
        let text = std::fs::read_to_string(printed).unwrap();
        assert_eq!(count, Ok(1), "{script} hangs: {text}");
        text
    }
}
