//! The machine that QEMU was told to be: where its memory file is, and how RAM is laid out.

use crate::memory::command_line::CommandLine;
use crate::memory::map::MemoryMap;
use crate::memory::mapping::Memory;
use crate::memory::unsupported;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

const GIB: u64 = 1 << 30;
/// What QEMU draws the picture of a display device into is a shared memory file too, of some megabytes (ui/console.c).
const PICTURE: &str = "/memfd:displaysurface";

/// A shared mapping of a file in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
    device: String,
    inode: u64,
}

/// Finds the guest's memory in this process.
///
/// # Errors
/// No shared memory file, several, or a machine whose layout is not known; with the remedy.
pub fn find_memory() -> Result<Memory, String> {
    let command = CommandLine::of_this_process();
    let maps = fs::read_to_string("/proc/self/maps").map_err(|error| format!("/proc/self/maps: {error}"))?;
    let mapping = match &candidates(&maps)[..] {
        [] => {
            return Err("the guest's memory is no shared memory file; add -object \
                        memory-backend-memfd,id=ram,size=SIZE,share=on -machine memory-backend=ram"
                .to_owned());
        }
        [one] => one.clone(),
        several => {
            return Err(format!(
                "{} memory files are mapped; NUMA nodes and DIMMs are not supported, use one memory backend",
                several.len()
            ));
        }
    };
    let size = mapping.end - mapping.start;
    let below = below_4g(&command, size)?;
    let file = open(mapping.inode)?;
    unsupported::refuse_file(&file)?;
    Ok(Memory::new(file, mapping.start, size, MemoryMap::new(size, below)))
}

/// Writable shared mappings of memory files of at least 1 MiB; parts of one file that lie together count as one.
fn candidates(maps: &str) -> Vec<Mapping> {
    let mut found: Vec<Mapping> = Vec::new();
    for mapping in maps.lines().filter_map(parse_mapping) {
        match found.last_mut() {
            Some(last)
                if last.end == mapping.start
                    && last.inode == mapping.inode
                    && last.device == mapping.device
                    && last.offset + (last.end - last.start) == mapping.offset =>
            {
                last.end = mapping.end;
            }
            _ => found.push(mapping),
        }
    }
    found.retain(|mapping| mapping.end - mapping.start >= 1 << 20 && mapping.offset == 0);
    found
}

/// `start-end perms offset device inode path`
fn parse_mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let rights = words.next()?;
    let offset = words.next()?;
    let device = words.next()?;
    let inode = words.next()?.parse().ok()?;
    let path = words.collect::<Vec<_>>().join(" ");
    let hex = |text| u64::from_str_radix(text, 16).ok();
    let is_a_picture = path.starts_with(PICTURE);
    let is_shared = rights.starts_with("rw") && rights.ends_with('s') && !path.starts_with("/dev/zero");
    let is_file = is_shared && inode != 0 && !is_a_picture;
    is_file
        .then(|| {
            Some(Mapping { start: hex(start)?, end: hex(end)?, offset: hex(offset)?, device: device.to_owned(), inode })
        })
        .flatten()
}

/// Opens the memory file anew through one of QEMU's own descriptors.
fn open(inode: u64) -> Result<File, String> {
    let descriptors = fs::read_dir("/proc/self/fd").map_err(|error| format!("/proc/self/fd: {error}"))?;
    for descriptor in descriptors.flatten() {
        let path = descriptor.path();
        let same = fs::metadata(&path).is_ok_and(|metadata| metadata.ino() == inode && metadata.is_file());
        if same {
            return File::options()
                .read(true)
                .write(true)
                .open(&path)
                .map_err(|error| format!("the guest's memory file {}: {error}", path.display()));
        }
    }
    Err("QEMU holds no descriptor of the guest's memory file".to_owned())
}

/// How much RAM the machine puts under the hole below 4 GiB, by the rules of QEMU's PC machines.
fn below_4g(command: &CommandLine, size: u64) -> Result<u64, String> {
    if size <= 2 * GIB {
        return Ok(size);
    }
    if command.machine("max-ram-below-4g").is_some() {
        return Err("max-ram-below-4g is not supported with more than 2 GiB of memory; leave it out".to_owned());
    }
    let kind = command.machine("type").unwrap_or("pc");
    if kind.contains("q35") {
        Ok(if size >= 0xb000_0000 { 0x8000_0000 } else { 0xb000_0000 })
    } else if kind.starts_with("pc") {
        Ok(if size >= 0xe000_0000 { 0xc000_0000 } else { 0xe000_0000 })
    } else if kind.starts_with("microvm") {
        Ok(0xc000_0000)
    } else {
        Err(format!("the memory layout of machine {kind:?} above 2 GiB is not known; use q35, pc or microvm"))
    }
}
