//! What this process was told, if it was told anything.

use std::sync::OnceLock;
use xen::environment::Environment;

/// What was said; it is read once.
pub fn environment() -> Option<&'static Environment> {
    static READ: OnceLock<Option<Environment>> = OnceLock::new();
    READ.get_or_init(|| Environment::read(|name| std::env::var_os(name))).as_ref()
}
