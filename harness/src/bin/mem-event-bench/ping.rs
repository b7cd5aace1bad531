//! The measure for a round trip with both sides asleep: two processes that wake each other by eventfds, and do nothing else.

use anyhow::{Context, ensure};
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::Instant;

/// The other side: what comes in by standard input goes out by standard output.
pub fn main(core: &str) -> anyhow::Result<()> {
    crate::cores::stay_on(None, core.parse().context("not a core")?)?;
    let mut count = [0; 8];
    loop {
        ensure!(rustix::io::read(rustix::stdio::stdin(), &mut count)? == 8, "the eventfd ended");
        ensure!(rustix::io::write(rustix::stdio::stdout(), &count)? == 8, "the eventfd ended");
    }
}

/// So many round trips, each in microseconds, between these two cores.
pub fn pong(trips: usize, [here, there]: [usize; 2]) -> anyhow::Result<Vec<f64>> {
    let (out, back) = (eventfd(0, EventfdFlags::CLOEXEC)?, eventfd(0, EventfdFlags::CLOEXEC)?);
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["ping", &there.to_string()])
        .stdin(Stdio::from(out.try_clone()?))
        .stdout(Stdio::from(back.try_clone()?));
    let mut other = command.spawn().context("cannot start the other side")?;
    let trip = || -> anyhow::Result<f64> {
        let begun = Instant::now();
        rustix::io::write(out.as_fd(), &1u64.to_ne_bytes())?;
        rustix::io::read(back.as_fd(), &mut [0; 8])?;
        Ok(begun.elapsed().as_secs_f64() * 1e6)
    };
    let times = crate::cores::roaming(|| {
        crate::cores::stay_on(None, here)?;
        // The first is the other side's start.
        trip()?;
        (0..trips).map(|_| trip()).collect()
    });
    other.kill()?;
    other.wait()?;
    times
}
