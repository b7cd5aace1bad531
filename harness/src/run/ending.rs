//! What QEMU's end says of the guest.

use super::job::Job;
use crate::machine::process::{Qemu, ended_by_signal};
use crate::verdict::{Kind, Verdict};

/// The verdict of a QEMU that ends by itself, which is waited for.
///
/// # Errors
/// The kernel does not tell, or the monitor speaks nonsense.
pub fn of_the_guest(job: &Job, qemu: &mut Qemu) -> anyhow::Result<Verdict> {
    let status = qemu.wait()?;
    if let Some(signal) = ended_by_signal(status) {
        return Ok(Verdict::new(Kind::Crash, format!("QEMU died of {signal}{}", last_words(qemu))));
    }
    of_its_end(job, qemu, Some(status.code().unwrap_or(-1)))
}

/// With QEMU's exit status; with none for one that had to be killed on its way to its end.
pub fn of_its_end(job: &Job, qemu: &mut Qemu, status: Option<i32>) -> anyhow::Result<Verdict> {
    let console = qemu.console();
    if let Some(panic) = console.lines().find(|line| line.contains("Kernel panic")) {
        return Ok(Verdict::new(Kind::Crash, panic.trim()));
    }
    let said = Verdict::on_console(&console);
    qemu.qmp.hear()?;
    let shutdown = qemu.qmp.shutdown().filter(|_| said.is_none());
    if shutdown == Some("guest-reset") {
        return Ok(Verdict::new(Kind::Crash, "the guest reset itself (a triple fault?)"));
    }
    if job.guest.is_some() && !job.is_ours() && shutdown == Some("guest-shutdown") {
        // It has never heard of verdicts: that it came to its own end is what it can say.
        return Ok(Verdict::new(Kind::Success, "the guest powered off"));
    }
    let how = status.map_or_else(
        || "QEMU could not end: a vCPU or a device waits".to_owned(),
        |status| format!("QEMU's exit status is {status}"),
    );
    let last = last_words(qemu);
    Ok(match said {
        Some(said) if job.is_ours() && status != Some(exit_status(said.kind)) => {
            Verdict::new(Kind::Error, format!("the guest says {said}, but {how}{last}"))
        }
        Some(said) => said,
        None => Verdict::new(Kind::Error, format!("no verdict from the guest ({how}){last}")),
    })
}

/// What QEMU's exit status is after a guest wrote its verdict (0x10 and our exit code) to the exit port.
fn exit_status(kind: Kind) -> i32 {
    (0x10 + i32::from(kind.exit_code())) << 1 | 1
}

/// The last line that QEMU or the plugin wrote on the error output, after a colon.
pub fn last_words(qemu: &Qemu) -> String {
    let errors = qemu.errors();
    errors
        .lines()
        .rev()
        .find(|line| !line.trim().is_empty())
        .map(|line| format!(": {}", line.trim()))
        .unwrap_or_default()
}
