//! Polling before a sleep.

use mem_event::spin::Window;
use std::sync::OnceLock;
use std::time::Instant;

/// Polls between two readings of the clock.
const POLLS: u32 = 32;

/// Polls until something is there, the window is over, or other threads turn out to want the core; says whether it is there. With
/// one core only, the thread that is waited for needs it: then this polls once.
pub fn poll_until(window: &mut Window, mut is_there: impl FnMut() -> bool) -> bool {
    let length = window.length();
    if length.is_zero() || cores() < 2 {
        return is_there();
    }
    let begun = Instant::now();
    let mut polled = begun;
    while polled - begun < length {
        if window.yields() {
            std::thread::yield_now();
            if is_there() {
                return true;
            }
        }
        for _ in 0..POLLS {
            if is_there() {
                window.came_by_yielding(false);
                return true;
            }
            std::hint::spin_loop();
        }
        let now = Instant::now();
        if !window.polled_after(now - polled) {
            break;
        }
        polled = now;
    }
    std::thread::yield_now();
    let came = is_there();
    window.came_by_yielding(came);
    came
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}
