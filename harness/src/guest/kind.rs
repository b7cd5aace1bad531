//! What an image is.

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

impl Kind {
    /// What an image is by its first bytes: Linux's boot protocol ("HdrS" at 0x202), a PE image for EFI (named by the word at 0x3c; its
    /// subsystem, 92 bytes on, is 10), QEMU's disk format, a boot sector. A kernel with an EFI stub is a kernel.
    pub fn of(start: &[u8]) -> Option<Kind> {
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
