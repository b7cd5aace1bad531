//! What this plugin does not support of a machine, each refused with a sentence: whatever pins guest pages, maps them elsewhere or gives them
//! back behind the engine's back.

use crate::memory::command_line::{CommandLine, CommandOption};
use rustix::fd::AsFd;

const STORES: [&str; 2] = ["drive", "blockdev"];
const NETWORKS: [&str; 3] = ["net", "netdev", "nic"];
const MACHINES: [&str; 2] = ["machine", "M"];

/// Whether a property has one of these values; any property whose last part has that name.
fn has(option: &CommandOption, name: &str, values: &[&str]) -> bool {
    let is_it = |key: &str| key == name || key.ends_with(&format!(".{name}"));
    option.properties.iter().any(|(key, value)| is_it(key) && values.contains(&value.as_str()))
}

const ON: [&str; 4] = ["on", "yes", "true", "y"];
/// The file system of huge pages, as the kernel numbers them.
const HUGETLBFS: u64 = 0x9584_58f6;
/// Why memory of huge pages is refused.
const HUGE: &str =
    "a page of the guest cannot be taken out of a huge one; use memory-backend-memfd,share=on without hugetlb";

fn of_a_store(option: &CommandOption) -> Option<&'static str> {
    if has(option, "cache", &["none"]) {
        Some("cache=none pins guest pages; use cache=writeback")
    } else if has(option, "cache", &["directsync"]) {
        Some("cache=directsync pins guest pages; use cache=writethrough")
    } else if has(option, "cache.direct", &ON) || has(option, "direct", &ON) {
        Some("cache.direct=on pins guest pages; use cache.direct=off")
    } else {
        None
    }
}

fn of_a_device(option: &CommandOption) -> Option<&'static str> {
    let driver = option.property("driver").unwrap_or_default();
    if driver.starts_with("vhost-") {
        Some("vhost devices map guest memory elsewhere; use QEMU's own")
    } else if driver.starts_with("virtio-balloon") {
        Some("virtio-balloon gives pages back behind the engine's back; leave it out")
    } else if ["pc-dimm", "nvdimm", "virtio-mem-pci", "virtio-pmem-pci"].contains(&driver) {
        Some("DIMMs are not supported; use one memory backend")
    } else {
        None
    }
}

fn of_memory(option: &CommandOption) -> Option<&'static str> {
    has(option, "hugetlb", &ON).then_some(HUGE)
}

fn of_locks(option: &CommandOption) -> Option<&'static str> {
    (has(option, "mem-lock", &ON) || has(option, "mem-lock", &["on-fault"]))
        .then_some("locked memory cannot be taken out; use -overcommit mem-lock=off")
}

/// # Errors
/// The sentence for a memory file that is not supported.
pub fn refuse_file(file: impl AsFd) -> Result<(), String> {
    let is_huge = rustix::fs::fstatfs(file).is_ok_and(|found| found.f_type.cast_unsigned() == HUGETLBFS);
    if is_huge { Err(HUGE.to_owned()) } else { Ok(()) }
}

fn of_a_network(option: &CommandOption) -> Option<&'static str> {
    if has(option, "vhost", &ON) || has(option, "vhostforce", &ON) {
        Some("vhost maps guest memory elsewhere; use vhost=off")
    } else if option.property("type").is_some_and(|kind| kind.starts_with("vhost-")) {
        Some("vhost devices map guest memory elsewhere; use QEMU's own")
    } else {
        None
    }
}

fn of_an_accelerator(name: Option<&str>) -> Option<&'static str> {
    // Of `kvm:tcg` QEMU takes the first that the host has.
    let other = name.is_some_and(|name| name.split(':').any(|one| one != "tcg"));
    other.then_some("only QEMU's own translator (TCG) calls plugins; use -accel tcg,thread=multi")
}

/// # Errors
/// The sentence for the first option that is not supported.
pub fn refuse(command: &CommandLine) -> Result<(), String> {
    let refused = |names: &'static [&'static str], why: fn(&CommandOption) -> Option<&'static str>| {
        let mut found = command.options(names).filter_map(move |option| Some((why(option)?, option)));
        match found.next() {
            Some((why, option)) => Err(format!("{why} (QEMU argument -{} {})", option.name, option.value)),
            None => Ok(()),
        }
    };
    refused(&["accel"], |option| of_an_accelerator(option.property("accel")))?;
    refused(&["enable-kvm"], |_| of_an_accelerator(Some("kvm")))?;
    refused(&MACHINES, |option| of_an_accelerator(option.property("accel")))?;
    refused(&STORES, of_a_store)?;
    refused(&["device"], of_a_device)?;
    refused(&NETWORKS, of_a_network)?;
    refused(&["object"], of_memory)?;
    refused(&["overcommit"], of_locks)?;
    let smm = command.machine("smm");
    if smm.is_some_and(|smm| ON.contains(&smm)) {
        return Err("SMM shows other memory at the VGA window; use smm=off".to_owned());
    }
    let machine = command.machine("type").unwrap_or_default();
    if machine.contains("q35") && smm.is_none_or(|smm| smm == "auto") {
        // On by default: the firmware then keeps memory of its own in the middle of RAM.
        return Err(format!("q35 has SMM, which shows other memory at some frames; use -machine {machine},smm=off"));
    }
    Ok(())
}
