//! Guest images: the built-in ones beside the program, and files that a user names.

pub mod cpio;
mod elf;
pub mod linux;
pub mod symbols;

use self::symbols::Symbols;
use crate::refusal::{Refusal, nearest};
use std::io::Read;
use std::path::{Path, PathBuf};

/// How much of an image is read to see what it is.
const START: u64 = 1 << 20;

/// How QEMU boots an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An ELF by its PVH entry. Only such a guest is one for mem-event, with checkpoints and an exit port.
    Elf,
    /// A kernel of 32-bit code by the first multiboot protocol, as Xen itself.
    Multiboot,
    /// A Linux kernel by its boot protocol.
    BzImage,
    /// An EFI application, which EFI firmware starts from a disk.
    Efi,
    /// A disk that firmware boots, in a format of QEMU's.
    Disk(&'static str),
}

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
                "no built-in guests are beside the program: build them with ci/setup and ci/demo, or name an ELF file"
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
        if !matches!(kind(&bytes), Some(Kind::Disk(_))) {
            file.read_to_end(&mut bytes).map_err(unread)?;
        }
        let (kind, symbols) = recognise(&bytes).map_err(|why| {
            let remedy =
                "a guest is an x86 ELF, linked statically, with a PVH entry note (type 18, owner Xen) or, of 32 bits, a multiboot header; a bzImage; an EFI application; or a disk with a boot sector";
            Refusal::usage(format!("{shown} {}", why.what), why.remedy.unwrap_or(remedy))
        })?;
        Ok(Guest { kind, name, path: path.to_owned(), symbols, checksum: crc32fast::hash(&bytes) })
    }
}

/// Why an image is no guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoGuest {
    /// The rest of a sentence that begins with the file's name.
    pub what: String,
    /// What to do, where it is known.
    pub remedy: Option<&'static str>,
}

impl From<&str> for NoGuest {
    fn from(what: &str) -> NoGuest {
        NoGuest { what: what.into(), remedy: None }
    }
}

/// How QEMU boots an image with these bytes, of a disk the first MiB; and the symbols of an ELF.
///
/// # Errors
/// What stands in the way.
pub fn recognise(bytes: &[u8]) -> Result<(Kind, Symbols), NoGuest> {
    match kind(bytes) {
        Some(Kind::Elf) | None => elf::recognise(bytes),
        Some(other) => Ok((other, Symbols::default())),
    }
}

/// What an image is by its first bytes: Linux's boot protocol ("HdrS" at 0x202), a PE image for EFI (named by the word at 0x3c; its
/// subsystem, 92 bytes on, is 10), QEMU's disk format, a boot sector. A kernel with an EFI stub is a kernel.
fn kind(start: &[u8]) -> Option<Kind> {
    let at = |at: usize, length: usize| start.get(at..at + length);
    let pe = at(0x3c, 4).map_or(0, |word| usize::from(word[0]) | usize::from(word[1]) << 8);
    if start.starts_with(b"\x7fELF") {
        Some(Kind::Elf)
    } else if at(0x202, 4) == Some(b"HdrS") {
        Some(Kind::BzImage)
    } else if start.starts_with(b"MZ") && at(pe, 4) == Some(b"PE\0\0") && at(pe + 92, 2) == Some(&[10, 0]) {
        Some(Kind::Efi)
    } else if start.starts_with(b"QFI\xfb") {
        Some(Kind::Disk("qcow2"))
    } else if at(510, 2) == Some(&[0x55, 0xaa]) {
        Some(Kind::Disk("raw"))
    } else {
        None
    }
}

fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        std::io::ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

fn is_image(path: &Path) -> bool {
    let mut start = [0; 1024];
    std::fs::File::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok()) && kind(&start).is_some()
}

/// Where built-in guests may lie: `guests` beside the program, or up to two folders above it (tests, `target/guests`).
fn folders() -> Vec<PathBuf> {
    let program = std::env::current_exe().unwrap_or_default();
    program.ancestors().skip(1).take(3).map(|folder| folder.join("guests")).collect()
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
