//! `gate=auto`: which gate is taken, and why.

use crate::arguments::{Gate, Source};

/// The gate for `gate=auto`, and the reason; `means` looks at what the kernel offers `gate=mmu`, and says what it lacks.
///
/// The host's MMU is taken wherever it can do the work, since unwatched pages then cost nothing. What a consumer will want (single
/// steps, all flags) is not known when QEMU starts: whoever knows names the gate.
pub fn choose(registers: Source, means: impl FnOnce() -> Result<(), String>) -> (Gate, String) {
    if registers == Source::Api {
        return (Gate::Callback, "registers=api reads no register of a vCPU that stands in the kernel".to_owned());
    }
    match means() {
        Ok(()) => (Gate::Mmu, "the kernel has what it needs, and unwatched pages cost nothing".to_owned()),
        Err(lack) => (Gate::Callback, lack),
    }
}
