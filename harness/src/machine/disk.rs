//! The disk that the harness makes for guests that drive one: every eight bytes of it say which they are. And how many sectors, heads and
//! cylinders a small disk is said to have.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

const WORDS: u64 = 2048;

/// What the eight bytes with this number hold. `guests/src/disk.rs` knows it too.
fn word(number: u64) -> u64 {
    0xd15c_0000_0000_0000 | number
}

/// Writes the disk's file.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path) -> std::io::Result<()> {
    std::fs::write(path, (0..WORDS).flat_map(|number| word(number).to_le_bytes()).collect::<Vec<u8>>())
}

/// QEMU's arguments for it: the device, and a thread that the device may name. The thread does not poll, lest a device look at
/// memory when nothing told it to.
#[must_use]
pub fn arguments(device: &str, file: OsString) -> Vec<OsString> {
    let mut drive = OsString::from("if=none,id=disk,format=raw,file=");
    drive.push(file);
    let device = format!("{device},drive=disk");
    let thread = "iothread,id=disk-thread,poll-max-ns=0";
    vec!["-object".into(), thread.into(), "-drive".into(), drive, "-device".into(), device.into()]
}

/// A sector's bytes, and the most sectors and heads that firmware counts in a cylinder.
const SECTOR: u64 = 512;
const MOST_SECTORS: u64 = 63;
const MOST_HEADS: u64 = 16;

/// A disk's sectors a track, tracks a cylinder and cylinders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    sectors: u64,
    heads: u64,
}

impl Geometry {
    /// Of an image that holds less than a cylinder of the geometry that QEMU supposes: SeaBIOS boots no disk without a cylinder. `None` for a
    /// larger one, and where the size cannot be read.
    #[must_use]
    pub fn of_small_disk(image: &Path, format: &str) -> Option<Geometry> {
        let bytes = if format == "qcow2" {
            // The header's eighth word, in network order: the size that the guest sees.
            let mut header = [0; 32];
            std::fs::File::open(image).ok()?.read_exact(&mut header).ok()?;
            header.last_chunk().copied().map(u64::from_be_bytes)?
        } else {
            std::fs::metadata(image).ok()?.len()
        };
        let count = bytes.div_ceil(SECTOR);
        let is_small = count > 0 && count < MOST_SECTORS * MOST_HEADS;
        is_small.then(|| Geometry { sectors: count.min(MOST_SECTORS), heads: count.div_ceil(MOST_SECTORS) })
    }

    /// As properties of QEMU's device.
    #[must_use]
    pub fn properties(self) -> String {
        format!(",cyls=1,heads={},secs={}", self.heads, self.sectors)
    }
}

#[cfg(test)]
mod tests {
    use super::Geometry;

    #[test]
    fn a_small_disk_has_one_cylinder_and_a_large_one_what_qemu_supposes() {
        let path = std::env::temp_dir().join(format!("mem-event-geometry-{}", std::process::id()));
        let of = |bytes: usize| {
            std::fs::write(&path, vec![0; bytes]).unwrap();
            Geometry::of_small_disk(&path, "raw")
        };
        assert_eq!(of(512), Some(Geometry { sectors: 1, heads: 1 }));
        assert_eq!(of(64 * 512), Some(Geometry { sectors: 63, heads: 2 }));
        assert_eq!(of(63 * 16 * 512), None);
        assert_eq!(of(0), None);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn each_word_of_the_disk_is_its_own() {
        let path = std::env::temp_dir().join(format!("mem-event-disk-{}", std::process::id()));
        super::write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(bytes.len(), 32 * 512);
        assert_eq!(bytes[8 * 64..][..8], 0xd15c_0000_0000_0040_u64.to_le_bytes());
    }
}
