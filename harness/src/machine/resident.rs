//! How much memory the guest holds, measured from the host: the blocks of its memory file, sampled by a thread.

use crate::refusal::Refusal;
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often is looked.
const EVERY: Duration = Duration::from_millis(1);

/// A sampler; it ends when it is dropped.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    end: AtomicBool,
    largest: AtomicU64,
    samples: AtomicU64,
}

impl Sampler {
    /// Finds the memory file among a QEMU's descriptors and begins to look.
    ///
    /// # Errors
    /// The process has no memory file, or may not be looked at.
    pub fn start(pid: u32) -> Result<Sampler, Refusal> {
        let file = MemoryFile::of(pid)?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            while !theirs.end.load(Ordering::Relaxed) {
                theirs.sample(&file);
                std::thread::sleep(EVERY);
            }
        });
        Ok(Sampler { shared, thread: Some(thread) })
    }

    /// Forgets what was seen: from now on the largest counts.
    pub fn restart(&self) {
        self.shared.largest.store(0, Ordering::Relaxed);
        self.shared.samples.store(0, Ordering::Relaxed);
    }

    /// The largest sample in bytes, and how many there were.
    #[must_use]
    pub fn largest(&self) -> (u64, u64) {
        (self.shared.largest.load(Ordering::Relaxed), self.shared.samples.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn sample(&self, file: &MemoryFile) {
        if let Ok(bytes) = file.bytes() {
            self.largest.fetch_max(bytes, Ordering::Relaxed);
            self.samples.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// How much memory a QEMU's guest holds now, in bytes.
///
/// # Errors
/// As [`Sampler::start`].
pub fn held(pid: u32) -> Result<u64, Refusal> {
    MemoryFile::of(pid)?
        .bytes()
        .map_err(|error| Refusal::machine(format!("the memory file of process {pid}: {error}"), ""))
}

/// A handle on a guest's memory file, which can be asked for its size and nothing else.
#[derive(Debug)]
pub struct MemoryFile(OwnedFd);

impl MemoryFile {
    /// That among a QEMU's descriptors.
    ///
    /// # Errors
    /// The process has no memory file, or may not be looked at.
    pub fn of(pid: u32) -> Result<MemoryFile, Refusal> {
        find_memory_file(pid).map(MemoryFile).ok_or_else(|| {
            let problem = format!("process {pid} has no memory file that can be seen");
            Refusal::machine(problem, "run as the user who started it")
        })
    }

    /// How much memory it holds.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn bytes(&self) -> rustix::io::Result<u64> {
        Ok(u64::try_from(rustix::fs::fstat(&self.0)?.st_blocks).unwrap_or(0) * 512)
    }
}

fn find_memory_file(pid: u32) -> Option<OwnedFd> {
    let folder = format!("/proc/{pid}/fd");
    let is_memory = |target: &std::path::Path| target.to_string_lossy().starts_with("/memfd:memory-backend");
    let link = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .find(|entry| std::fs::read_link(entry.path()).is_ok_and(|target| is_memory(&target)))?;
    rustix::fs::open(link.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()
}
