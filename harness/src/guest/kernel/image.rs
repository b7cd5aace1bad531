//! A bzImage unpacked: the kernel's ELF, which the boot protocol's header says where to find.
//!
//! ```text
//! 0x1f1  u8 sectors of 512 bytes before the protected-mode code, less one; 0 is 4    0x202  "HdrS"    0x206  u16 version
//! 0x248  u32 where the compressed kernel lies in that code    0x24c  u32 its bytes, the last four of which are its unpacked size
//! ```

use crate::guest::little::{u16_at, u32_at};
use ruzstd::decoding::StreamingDecoder;
use std::io::Read;

/// The first version of the boot protocol whose header says where the kernel lies.
const VERSION: u16 = 0x208;
/// The largest kernel that is unpacked: a damaged image names any size.
const LARGEST: usize = 1 << 30;
/// A block of the form of LZ4 that the kernel takes.
const LZ4_BLOCK: usize = 8 << 20;

/// Whether these bytes are a bzImage.
#[must_use]
pub fn is_one(bytes: &[u8]) -> bool {
    bytes.get(0x202..0x206) == Some(b"HdrS")
}

/// Four bytes there, as a number of bytes.
fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    u32_at(bytes, at).map(|size| size as usize)
}

/// The kernel's ELF.
///
/// # Errors
/// It is too old, damaged, or compressed in a way that is not known here; the rest of a sentence that begins with the file's name.
pub fn unpack(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let damaged = || "is a damaged bzImage".to_owned();
    if u16_at(bytes, 0x206).ok_or_else(damaged)? < VERSION {
        return Err("is a bzImage whose boot protocol is older than 2.08".into());
    }
    let sectors = bytes.get(0x1f1).filter(|sectors| **sectors != 0).map_or(4, |sectors| usize::from(*sectors));
    let start = (sectors + 1) * 512 + size_at(bytes, 0x248).ok_or_else(damaged)?;
    let length = size_at(bytes, 0x24c).ok_or_else(damaged)?;
    let payload = start.checked_add(length).and_then(|end| bytes.get(start..end)).ok_or_else(damaged)?;
    let unpacked = length.checked_sub(4).and_then(|at| size_at(payload, at)).ok_or_else(damaged)?;
    if unpacked > LARGEST {
        return Err(damaged());
    }
    let elf = decompress(payload, unpacked)?;
    if elf.starts_with(b"\x7fELF") {
        Ok(elf)
    } else {
        Err("is a bzImage that unpacks to something else than an ELF".into())
    }
}

fn decompress(payload: &[u8], unpacked: usize) -> Result<Vec<u8>, String> {
    let wrong = |how: &str, error: &dyn std::fmt::Display| format!("does not unpack by {how}: {error}");
    let mut elf = Vec::new();
    let mut read = |how: &str, from: &mut dyn Read| {
        from.take(unpacked as u64).read_to_end(&mut elf).map_err(|error| wrong(how, &error))
    };
    match payload {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            read("zstd", &mut StreamingDecoder::new(payload).map_err(|error| wrong("zstd", &error))?)?;
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            read("xz", &mut lzma_rust2::XzReader::new(payload, false))?;
        }
        [0x5d, 0, 0, ..] => {
            let reader = lzma_rust2::LzmaReader::new_mem_limit(payload, u32::MAX, None);
            read("lzma", &mut reader.map_err(|error| wrong("lzma", &error))?)?;
        }
        [0x1f, 0x8b, 8, flags, ..] => {
            let packed = payload.get(gzip_header(payload, *flags)..).unwrap_or_default();
            elf = miniz_oxide::inflate::decompress_to_vec_with_limit(packed, unpacked)
                .map_err(|error| wrong("gzip", &error))?;
        }
        [0x02, 0x21, 0x4c, 0x18, ..] => elf = lz4(payload, unpacked).ok_or_else(|| wrong("lz4", &"it is damaged"))?,
        [b'B', b'Z', b'h', ..] => return Err("is compressed by bzip2, which is not unpacked here".into()),
        [0x89, b'L', b'Z', b'O', ..] => return Err("is compressed by LZO, which is not unpacked here".into()),
        [0x7f, b'E', b'L', b'F', ..] => elf = payload.to_vec(),
        _ => return Err("is compressed in a way that is not known here".into()),
    }
    Ok(elf)
}

/// A gzip header: ten bytes, then a name with its NUL where flag 3 says so, which is all that the kernel's build writes.
fn gzip_header(payload: &[u8], flags: u8) -> usize {
    let name = if flags & 8 == 0 { 0 } else { payload.iter().skip(10).take_while(|byte| **byte != 0).count() + 1 };
    10 + name
}

/// Blocks, each after its size; the size of the whole stands behind them.
fn lz4(payload: &[u8], unpacked: usize) -> Option<Vec<u8>> {
    let (mut at, mut elf) = (4, Vec::new());
    while elf.len() < unpacked {
        let size = size_at(payload, at)?;
        let block = payload.get(at + 4..(at + 4).checked_add(size)?)?;
        elf.extend(lz4_flex::block::decompress(block, LZ4_BLOCK.min(unpacked - elf.len())).ok()?);
        at += 4 + size;
    }
    Some(elf)
}

#[cfg(test)]
mod tests {
    use super::{is_one, unpack};

    /// An image whose payload is this, and unpacks to so many bytes.
    fn image(payload: &[u8], unpacked: u32) -> Vec<u8> {
        let mut bytes = vec![0; 1024];
        bytes[0x1f1] = 1;
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        let length = u32::try_from(payload.len()).unwrap() + 4;
        bytes[0x24c..0x250].copy_from_slice(&length.to_le_bytes());
        bytes.extend(payload);
        bytes.extend(unpacked.to_le_bytes());
        bytes
    }

    const KERNEL: &[u8] = b"\x7fELF, and so on, and so on, and so on, and so on";

    #[test]
    fn gzip_and_lz4_unpack_as_the_kernels_build_packs_them() {
        let size = u32::try_from(KERNEL.len()).unwrap();
        let gzip =
            [b"\x1f\x8b\x08\x08\0\0\0\0\x02\x03vmlinux.bin\0", &miniz_oxide::deflate::compress_to_vec(KERNEL, 9)[..]];
        assert_eq!(unpack(&image(&gzip.concat(), size)).as_deref(), Ok(KERNEL));
        let block = lz4_flex::block::compress(KERNEL);
        let lz4 = [b"\x02\x21\x4c\x18", &u32::try_from(block.len()).unwrap().to_le_bytes()[..], &block].concat();
        assert!(is_one(&image(&lz4, size)));
        assert_eq!(unpack(&image(&lz4, size)).as_deref(), Ok(KERNEL));
    }

    #[test]
    fn what_does_not_unpack_is_refused_with_what_it_is() {
        let refusal = |payload: &[u8]| unpack(&image(payload, 100)).unwrap_err();
        assert!(refusal(b"BZh9").contains("bzip2"));
        assert!(refusal(b"\x02\x21\x4c\x18\xff\xff\xff\xff").contains("lz4: it is damaged"));
        assert!(refusal(b"what").contains("not known"));
        let mut cut = image(KERNEL, 100);
        cut.truncate(1030);
        assert!(unpack(&cut).unwrap_err().contains("damaged"));
        assert!(unpack(&image(&[0x28, 0xb5, 0x2f, 0xfd, 9], 100)).unwrap_err().contains("zstd"));
    }
}
