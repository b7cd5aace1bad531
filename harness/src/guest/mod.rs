//! Guest images: the built-in ones beside the program, and files that a user names.

pub mod cpio;
mod elf;
pub mod kernel;
pub mod kind;
pub mod linear;
pub mod linux;
mod little;
pub mod symbols;

use self::kind::{Kind, NoGuest};
use self::symbols::Symbols;
use crate::beside;
use crate::refusal::{Refusal, nearest, plain};
use mem_event::Gpa;
use std::io::Read;
use std::path::{Path, PathBuf};

/// How much of an image is read to see what it is.
const START: u64 = 1 << 20;
/// Where a PC's firmware puts the first sector of a disk, and enters it.
const BOOT_SECTOR: u64 = 0x7c00;

/// An image that QEMU boots.
#[derive(Clone, Debug)]
pub struct Guest {
    /// How.
    pub kind: Kind,
    /// The file's name without its folder.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Its symbols.
    pub symbols: Symbols,
    /// Where the firmware enters it, if that is known.
    pub entry: Option<Gpa>,
    /// CRC-32 of the file, of a disk's first MiB; for traces and reports.
    pub checksum: u32,
}

impl Guest {
    /// A built-in guest by its name, or an image by its path (what holds a slash, or is no built-in name but a file).
    ///
    /// # Errors
    /// Unknown names, with the nearest; files that are no bootable guest, and why.
    pub fn find(name: &str) -> Result<Guest, Refusal> {
        if name.contains('/') {
            return Guest::open(Path::new(name));
        }
        if let Some(path) = folders().into_iter().map(|folder| folder.join(name)).find(|path| is_image(path)) {
            return Guest::open(&path);
        }
        if Path::new(name).is_file() {
            return Guest::open(Path::new(name));
        }
        let known = built_in();
        let names = known.iter().map(String::as_str).chain(["linux"]);
        let remedy = match (nearest(name, names), known.is_empty()) {
            (_, true) => {
                "no built-in guests were built or installed with this program: build them (ci/setup, ci/build), install the package, name the folder that has them in MEM_EVENT_LIB, or name an ELF file"
                    .into()
            }
            (near, _) if near.is_empty() => "see `mem-event list`, or name an ELF file by its path".into(),
            (near, _) => format!("did you mean {}?", near.join(" or ")),
        };
        Err(Refusal::usage(format!("no guest {name:?}"), remedy))
    }

    /// The same, where a path is meant from a folder.
    ///
    /// # Errors
    /// As [`Guest::find`].
    pub fn find_from(name: &str, folder: Option<&Path>) -> Result<Guest, Refusal> {
        match folder {
            Some(folder) if name.contains('/') => Guest::open(&folder.join(name)),
            _ => Guest::find(name),
        }
    }

    /// An image, checked for what QEMU needs to boot it.
    ///
    /// # Errors
    /// What stands in the way.
    pub fn open(path: &Path) -> Result<Guest, Refusal> {
        let shown = path.display();
        let unread = |error: std::io::Error| {
            Refusal::usage(
                format!("cannot read guest {shown}: {}", plain(&error)),
                "name a file that exists and can be read",
            )
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        let mut file = std::fs::File::open(path).map_err(unread)?;
        file.by_ref().take(START).read_to_end(&mut bytes).map_err(unread)?;
        if !matches!(Kind::of(&bytes), Some(Kind::Disk(_))) {
            file.read_to_end(&mut bytes).map_err(unread)?;
        }
        let (kind, symbols) = recognise(&bytes).map_err(|why| {
            let remedy =
                "a guest is an x86 ELF, linked statically, with a PVH entry note (type 18, owner Xen) or, of 32 bits, a multiboot header; a bzImage; an EFI application; or a disk with a boot sector";
            Refusal::usage(format!("{shown} {}", why.what), why.remedy.unwrap_or(remedy))
        })?;
        let entry = entry(kind, &bytes).map(Gpa);
        Ok(Guest { kind, name, path: path.to_owned(), symbols, entry, checksum: crc32fast::hash(&bytes) })
    }
}

/// Where an image begins to run, which is where firmware and QEMU's loaders end.
fn entry(kind: Kind, bytes: &[u8]) -> Option<u64> {
    match kind {
        Kind::Elf | Kind::Multiboot => elf::entry(bytes),
        Kind::BzImage => Some(linux::ENTRY),
        Kind::Disk(_) => Some(BOOT_SECTOR),
        // Wherever the firmware finds room.
        Kind::Efi => None,
    }
}

/// How QEMU boots an image with these bytes, of a disk the first MiB; and the symbols of an ELF.
///
/// # Errors
/// What stands in the way.
pub fn recognise(bytes: &[u8]) -> Result<(Kind, Symbols), NoGuest> {
    match Kind::of(bytes) {
        Some(Kind::Elf) | None => elf::recognise(bytes),
        Some(other) => Ok((other, Symbols::default())),
    }
}

fn is_image(path: &Path) -> bool {
    let mut start = [0; 1024];
    std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && Kind::of(&start).is_some()
}

/// Where built-in guests may lie.
fn folders() -> Vec<PathBuf> {
    beside::folders().into_iter().map(|folder| folder.join("guests")).collect()
}

/// The names of the built-in guests, sorted.
#[must_use]
pub fn built_in() -> Vec<String> {
    let mut names: Vec<String> = folders()
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(Iterator::flatten)
        .filter(|entry| is_image(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names.dedup();
    names
}
