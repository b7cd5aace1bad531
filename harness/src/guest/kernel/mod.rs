//! Names of a Linux kernel, by its linear addresses: from a file, from an image, or from the memory of a guest that runs.
//!
//! | file | what lives there |
//! |---|---|
//! | this one | what a user may name as a file of symbols |
//! | [`image`] | a bzImage unpacked |
//! | [`flat`] | a kernel's memory as one piece, from an ELF or a guest |
//! | [`kallsyms`] | the kernel's own table of symbols, compressed |
//! | [`listing`] | System.map and the output of /proc/kallsyms |
//! | [`names`] | names for addresses, addresses for names |
//! | [`btf`], [`task`] | the kernel's own description of its types; what of it says who runs |

pub mod btf;
pub mod flat;
pub mod image;
pub mod kallsyms;
pub mod listing;
pub mod names;
pub mod task;

use self::flat::Flat;
use self::names::Names;
use self::task::Task;
use crate::refusal::{Refusal, plain};
use goblin::elf::Elf;
use std::path::Path;
use std::sync::Arc;

/// What is known of a kernel before it is found in a guest. Its addresses are those that it was linked for, or has in the guest that listed
/// them.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its symbols.
    pub names: Arc<Names>,
    /// Where its tasks say who they are, where that is known.
    pub task: Option<Task>,
    /// What it calls itself, where that is known: `Linux version …`.
    pub banner: Option<String>,
}

/// What every kernel's name for itself begins with, at its symbol `linux_banner`.
pub const BANNER: &str = "Linux version ";

fn banner(flat: &Flat, names: &Names) -> Option<String> {
    let text = flat.at(names.address("linux_banner")?, 256)?;
    let text = String::from_utf8_lossy(text.split(|byte| *byte == 0 || *byte == b'\n').next()?).into_owned();
    text.starts_with(BANNER).then_some(text)
}

impl Kernel {
    /// From a file: a vmlinux, a bzImage, a System.map, or what /proc/kallsyms has printed.
    ///
    /// # Errors
    /// It cannot be read, or is none of these.
    pub fn open(path: &Path) -> Result<Kernel, Refusal> {
        let shown = path.display();
        let forms = "name a vmlinux, a bzImage, a System.map, or a copy of the guest's /proc/kallsyms";
        let bytes = std::fs::read(path)
            .map_err(|error| Refusal::usage(format!("cannot read symbols {shown}: {}", plain(&error)), forms))?;
        Kernel::of(&bytes).map_err(|why| Refusal::usage(format!("{shown} {why}"), forms))
    }

    fn of(bytes: &[u8]) -> Result<Kernel, String> {
        if image::is_one(bytes) {
            return Kernel::of_elf(&image::unpack(bytes)?);
        }
        if bytes.starts_with(b"\x7fELF") {
            return Kernel::of_elf(bytes);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "is neither an ELF, nor a bzImage, nor a text")?;
        Ok(Kernel { names: Arc::new(listing::read(text)?), task: None, banner: None })
    }

    fn of_elf(bytes: &[u8]) -> Result<Kernel, String> {
        let elf = Elf::parse(bytes).map_err(|error| format!("is a damaged ELF: {error}"))?;
        let flat = Flat::of_elf(&elf, bytes)?;
        if elf.syms.is_empty() {
            return Kernel::of_memory(&flat);
        }
        Ok(Kernel::with(&flat, Names::of_elf(&elf)))
    }

    /// From a kernel's memory, which holds its table of symbols.
    ///
    /// # Errors
    /// There is none in it.
    pub fn of_memory(flat: &Flat) -> Result<Kernel, String> {
        Ok(Kernel::with(flat, kallsyms::read(flat)?))
    }

    fn with(flat: &Flat, names: Names) -> Kernel {
        Kernel { task: Task::of(flat, &names), banner: banner(flat, &names), names: Arc::new(names) }
    }
}
