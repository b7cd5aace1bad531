//! The machine that QEMU was told to be: where its memory file is, how RAM is laid out, and what this plugin does not
//! support, each refused with a sentence.

use crate::memory::map::MemoryMap;
use crate::memory::mapping::Memory;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

const GIB: u64 = 1 << 30;

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
    let command = command_line();
    refuse_unsupported(&command)?;
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
    Ok(Memory::new(file, mapping.start, size, MemoryMap::new(size, below)))
}

fn command_line() -> Vec<String> {
    let bytes = fs::read("/proc/self/cmdline").unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// What pins guest pages, maps them elsewhere or gives them back behind the engine's back.
fn refuse_unsupported(command: &[String]) -> Result<(), String> {
    const REFUSED: [(&str, &str); 8] = [
        ("cache=none", "cache=none pins guest pages; use cache=writeback"),
        ("cache=directsync", "cache=directsync pins guest pages; use cache=writethrough"),
        ("vhost=on", "vhost maps guest memory elsewhere; use vhost=off"),
        ("vhost-", "vhost devices map guest memory elsewhere; use QEMU's own"),
        ("virtio-balloon", "virtio-balloon gives pages back behind the engine's back; leave it out"),
        ("free-page-reporting=on", "free page reporting gives pages back behind the engine's back; leave it out"),
        ("smm=on", "SMM shows other memory at the VGA window; use smm=off"),
        ("pc-dimm", "DIMMs are not supported; use one memory backend"),
    ];
    for word in command {
        if let Some((_, sentence)) = REFUSED.iter().find(|(part, _)| word.contains(part)) {
            return Err(format!("{sentence} (QEMU argument {word:?})"));
        }
    }
    let machine = machine(command);
    if machine.contains("q35") && !machine.contains("smm=off") {
        // On by default: the firmware then keeps memory of its own in the middle of RAM.
        return Err(format!(
            "q35 has SMM, which shows other memory at some frames; use smm=off (QEMU machine {machine:?})"
        ));
    }
    Ok(())
}

/// The values of the machine option, in one.
fn machine(command: &[String]) -> String {
    option(command, &["-machine", "-M", "--machine"]).unwrap_or_else(|| "pc".to_owned())
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
    let is_file = rights.starts_with("rw") && rights.ends_with('s') && inode != 0 && !path.starts_with("/dev/zero");
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
fn below_4g(command: &[String], size: u64) -> Result<u64, String> {
    if size <= 2 * GIB {
        return Ok(size);
    }
    let machine = machine(command);
    if machine.contains("max-ram-below-4g") {
        return Err("max-ram-below-4g is not supported with more than 2 GiB of memory; leave it out".to_owned());
    }
    let kind = machine.split(',').map(|part| part.strip_prefix("type=").unwrap_or(part)).next().unwrap_or("pc");
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

/// The values of all uses of an option, joined by commas.
fn option(command: &[String], names: &[&str]) -> Option<String> {
    let values: Vec<&str> = command
        .windows(2)
        .filter(|pair| names.contains(&pair[0].as_str()) && !pair[1].starts_with("memory-backend="))
        .map(|pair| pair[1].as_str())
        .collect();
    (!values.is_empty()).then(|| values.join(","))
}
