//! What the kernel tells of a thread of this process, in its `stat`.

use rustix::thread::CpuSet;
use std::time::Duration;

/// The third field, which is the first after the name.
const STATE: usize = 0;
/// The 39th field.
const CORE: usize = 36;

/// Whether the thread runs, or would if there were a core for it: it waits for nobody.
pub fn is_runnable(thread: i32) -> bool {
    field(thread, STATE).is_some_and(|state| state == "R")
}

/// How long it has run on a core; nothing where the kernel does not tell.
pub fn has_run(thread: i32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0))
}

/// The core on which it runs, or ran last.
pub fn core_of(thread: i32) -> Option<usize> {
    field(thread, CORE)?.parse().ok().filter(|core| *core < CpuSet::MAX_CPU)
}

/// A field by its number after the second, which is the thread's name in parentheses and may hold anything.
fn field(thread: i32, number: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    rest.split(' ').nth(number).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::{core_of, has_run, is_runnable};
    use rustix::thread::gettid;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn a_thread_that_asks_for_itself_runs_and_one_that_waits_for_it_does_not() {
        let (tell, told) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let own = || gettid().as_raw_nonzero().get();
        let waits = std::thread::spawn(move || {
            tell.send(own()).unwrap();
            ended.recv().unwrap_err();
        });
        let other = told.recv().unwrap();
        assert!(is_runnable(own()) && core_of(own()).is_some());
        while is_runnable(other) {
            std::thread::yield_now();
        }
        // The one that looks runs, and the other one does not.
        let (mine, others) = (has_run(own()), has_run(other));
        while has_run(own()) - mine < Duration::from_millis(20) {
            assert_eq!(has_run(other), others);
        }
        drop(end);
        waits.join().unwrap();
    }

    #[test]
    fn of_a_thread_that_is_not_there_nothing_is_told() {
        assert!(!is_runnable(-1) && core_of(-1).is_none());
    }
}
