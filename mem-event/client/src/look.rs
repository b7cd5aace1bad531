//! Looking again and again before one sleeps.

use mem_event::spin::Window;
use std::sync::OnceLock;
use std::time::Instant;

/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// Looks until something is there or the window is over, or until others turn out to want the core; says whether it is there. With one core only, whoever is waited for
/// needs it: then this does not look at all.
pub fn look(window: &mut Window, mut is_there: impl FnMut() -> bool) -> bool {
    let length = window.length();
    if length.is_zero() || cores() < 2 {
        return is_there();
    }
    let begun = Instant::now();
    let mut looked = begun;
    while looked - begun < length {
        for _ in 0..LOOKS {
            if is_there() {
                return true;
            }
            std::hint::spin_loop();
        }
        // There may be others on this core, and it may be one of them that is waited for.
        std::thread::yield_now();
        let now = Instant::now();
        if !window.looked_after(now - looked) {
            break;
        }
        looked = now;
    }
    is_there()
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
}
