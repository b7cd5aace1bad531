//! The disk that the harness makes for guests that drive one: every eight bytes of it say which they are.

use std::ffi::OsString;
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

#[cfg(test)]
mod tests {
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
