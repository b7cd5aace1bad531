//! What the trace's header says besides the arguments: the host, and what a file of the harness's tells (`facts=PATH`).
//!
//! ```text
//! fact NAME VALUE…            a fact; VALUE goes on to the line's end
//! scenario TEXT…              a line of the scenario's text
//! symbol GPA SIZE NAME…       a symbol of the guest, numbers in hexadecimal without 0x
//! ```

use crate::arguments::Arguments;
use mem_event::DomainConfig;
use mem_event::trace::{Header, Symbol};
use std::path::Path;

/// The header of this run's trace.
///
/// # Errors
/// A sentence: the file of facts cannot be read, or a line of it is none.
pub fn header(arguments: &Arguments, config: &DomainConfig) -> Result<Header, String> {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let facts = [
        ("plugin API", crate::qemu::declared::spoken().to_string()),
        ("gate", arguments.gate.name().to_owned()),
        ("host kernel", kernel.trim().to_owned()),
        ("host cores", cores.to_string()),
    ];
    let mut header = Header {
        guest: arguments.guest.clone(),
        guest_hash: arguments.guest_hash.clone(),
        qemu: arguments.qemu.clone(),
        plugin: env!("CARGO_PKG_VERSION").to_owned(),
        scenario: arguments.scenario.clone(),
        config: config.clone(),
        facts: facts.map(|(name, value)| (name.to_owned(), value)).into(),
        symbols: Vec::new(),
    };
    match &arguments.facts {
        None => {}
        Some(path) => add_file(&mut header, path)?,
    }
    header.symbols.sort_by_key(|symbol| symbol.gpa);
    Ok(header)
}

fn add_file(header: &mut Header, path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("facts {}: {error}", path.display()))?;
    for line in text.lines() {
        add(header, line).ok_or_else(|| format!("facts {}: not a line of facts: {line}", path.display()))?;
    }
    Ok(())
}

fn add(header: &mut Header, line: &str) -> Option<()> {
    let (kind, rest) = line.split_once(' ')?;
    match kind {
        "fact" => {
            let (name, value) = rest.split_once(' ')?;
            header.facts.push((name.to_owned(), value.to_owned()));
        }
        "scenario" => {
            header.scenario.push('\n');
            header.scenario.push_str(rest);
        }
        "symbol" => {
            let (gpa, rest) = rest.split_once(' ')?;
            let (size, name) = rest.split_once(' ')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            header.symbols.push(Symbol { gpa: number(gpa)?, size: number(size)?, name: name.to_owned() });
        }
        _ => return None,
    }
    Some(())
}
