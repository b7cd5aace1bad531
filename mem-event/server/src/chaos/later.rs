//! What is done after a while: by a thread of its own, so that no thread waits that has other things to do.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

type Act = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Acts {
    due: Vec<(Instant, Act)>,
    /// Nobody asks any more.
    over: bool,
}

#[derive(Default)]
struct Due {
    acts: Mutex<Acts>,
    came: Condvar,
}

/// Acts that are due at their times. The thread begins with the first of them, and ends with this; what is due then is nobody's any more.
pub struct Later(OnceLock<Arc<Due>>);

impl fmt::Debug for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Later").finish_non_exhaustive()
    }
}

impl Later {
    /// Nothing is due.
    #[must_use]
    pub const fn new() -> Later {
        Later(OnceLock::new())
    }

    /// Does something after so long. Where there can be no thread it is done at once: late or not, nothing is left undone.
    pub fn after(&self, by: Duration, act: impl FnOnce() + Send + 'static) {
        self.at(Instant::now() + by, act);
    }

    fn at(&self, at: Instant, act: impl FnOnce() + Send + 'static) {
        let due = self.0.get_or_init(|| {
            let due = Arc::new(Due::default());
            let its = Arc::clone(&due);
            // A thread that could not begin drops its count.
            let _ = std::thread::Builder::new().name("mem-event later".to_owned()).spawn(move || its.serve());
            due
        });
        if Arc::strong_count(due) < 2 {
            return act();
        }
        due.acts.lock().unwrap_or_else(PoisonError::into_inner).due.push((at, Box::new(act)));
        due.came.notify_one();
    }
}

impl Drop for Later {
    fn drop(&mut self) {
        if let Some(due) = self.0.get() {
            due.acts.lock().unwrap_or_else(PoisonError::into_inner).over = true;
            due.came.notify_one();
        }
    }
}

impl Default for Later {
    fn default() -> Later {
        Later::new()
    }
}

impl Due {
    fn serve(&self) {
        let mut acts = self.acts.lock().unwrap_or_else(PoisonError::into_inner);
        while !acts.over {
            let first = acts.due.iter().enumerate().min_by_key(|(_, (at, _))| *at).map(|(index, (at, _))| (index, *at));
            let now = Instant::now();
            acts = match first {
                None => self.came.wait(acts).unwrap_or_else(PoisonError::into_inner),
                Some((index, at)) if at <= now => {
                    let (_, act) = acts.due.swap_remove(index);
                    drop(acts);
                    act();
                    self.acts.lock().unwrap_or_else(PoisonError::into_inner)
                }
                Some((_, at)) => self.came.wait_timeout(acts, at - now).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Later;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    #[test]
    fn what_is_due_earlier_is_done_earlier_and_nothing_is_left_undone() {
        let (later, (done, heard), (go, wait)) = (Later::new(), mpsc::channel(), mpsc::channel());
        // The thread has to do until all are there.
        later.after(Duration::ZERO, move || wait.recv().unwrap());
        let now = Instant::now();
        for (name, at) in [("second", 2), ("first", 1), ("third", 3)] {
            let done = done.clone();
            later.at(now + Duration::from_millis(at), move || done.send(name).unwrap());
        }
        go.send(()).unwrap();
        let order: Vec<&str> = heard.iter().take(3).collect();
        assert_eq!(order, ["first", "second", "third"]);
    }

    #[test]
    fn the_thread_ends_with_who_asked_it() {
        let (later, (held, ended)) = (Later::new(), mpsc::channel::<()>());
        later.after(Duration::from_secs(3600), move || drop(held));
        drop(later);
        // Its acts are dropped with the thread, and the sender with them.
        assert!(
            ended.recv_timeout(Duration::from_secs(60)).is_err_and(|why| why == mpsc::RecvTimeoutError::Disconnected)
        );
    }
}
