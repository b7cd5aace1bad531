//! A Linux kernel found in a guest that runs: by where a vCPU would enter it, proved by what the kernel calls itself there.

use crate::guest::kernel::flat::{Flat, IMAGE};
use crate::guest::kernel::{BANNER, Kernel};
use crate::guest::linear::{Found, Linear};
use crate::refusal::Refusal;
use anyhow::Context;
use mem_event::message::{Call, Reply, Space};
use mem_event::{Errno, Gla, Gpa, PAGE_SIZE, VcpuId};
use mem_event_client::Client;

/// The register in which Linux keeps its entry for system calls.
pub const LSTAR: u32 = 0xc000_0082;

/// Linux begins on such a boundary, wherever it lies.
const ALIGNED: u64 = 2 << 20;
/// So many bytes that are not mapped are the end of an image, and an image is no larger than so many.
const GAP: u64 = 16 << 20;
const IMAGE_SIZE: u64 = 256 << 20;
/// Calls that are sent ahead of their replies.
const AHEAD: u64 = 16;

/// Where a vCPU enters its kernel.
struct Entry {
    /// The symbol that is there.
    name: &'static str,
    address: u64,
    space: Space,
}

/// Looks for the kernel by a vCPU that stands; `lstar` is what its register will hold, where that is known to change.
///
/// # Errors
/// As [`Client::call`], and a [`Refusal`] where no Linux runs, or another one than that which was named.
pub fn find(client: &mut Client, vcpu: VcpuId, lstar: Option<u64>, linear: &Linear) -> anyhow::Result<()> {
    let entry = entry(client, vcpu, lstar)?;
    let kernel = match linear.kernel() {
        Some(kernel) => kernel.clone(),
        None => read(client, &entry)?,
    };
    let names = &kernel.names;
    let named = kernel.banner.clone().unwrap_or_else(|| "the named kernel".into());
    let other = || {
        Refusal::usage(
            format!("the guest runs another kernel than the symbols are of ({named})"),
            "name the image that the guest was booted from, or --symbols guest for the table in its memory",
        )
    };
    let linked = names.address(entry.name).ok_or_else(other)?;
    let mut found = Found { slide: entry.address.wrapping_sub(linked), physical: Gpa(0), kernel };
    let banner = found.kernel.names.address("linux_banner").map(|address| found.address(address)).ok_or_else(other)?;
    let said = client.call(&Call::ReadLinear { vcpu, cr3: entry.space.cr3, address: Gla(banner), len: 256 })?;
    let Reply::Bytes(said) = said else { return Err(other().into()) };
    let begins = found.kernel.banner.as_deref().unwrap_or(BANNER);
    if found.slide & 0xfff != 0 || !said.starts_with(begins.as_bytes()) {
        return Err(other().into());
    }
    let text = found.text().ok_or_else(other)?;
    found.physical = client.translate(entry.space, Gla(text))?;
    client.note(&found_in_words(text, found.physical))?;
    linear.is_found(found);
    Ok(())
}

/// What stands between the two addresses of a note that tells where the kernel lies.
const NOTE: [&str; 2] = ["the kernel's _text is at ", ", physical "];

/// What a trace says of it: whoever reads the trace with the kernel's file needs it.
fn found_in_words(text: u64, physical: Gpa) -> String {
    let [before, between] = NOTE;
    format!("{before}{text:#x}{between}{:#x}", physical.0)
}

/// Where a kernel lies, by a note in a trace: its linear address, and its physical one.
#[must_use]
pub fn told(note: &str) -> Option<(u64, Gpa)> {
    let [before, between] = NOTE;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let (text, physical) = note.strip_prefix(before)?.split_once(between)?;
    Some((number(text)?, Gpa(number(physical)?)))
}

fn entry(client: &mut Client, vcpu: VcpuId, lstar: Option<u64>) -> anyhow::Result<Entry> {
    let none = || Refusal::usage("no Linux runs in the guest", "attach once it has booted");
    let context = client.registers(vcpu)?;
    let (cr3, lstar_now, idt) = match &context {
        Ok(context) => (context.registers.control[2], context.registers.lstar, context.idtr_base),
        Err((errno, why)) if lstar.is_none() => {
            let what = format!("the registers of vCPU {vcpu} cannot be read: {errno}, {why}");
            return Err(Refusal::machine(what, "docs/qemu.md says what of QEMU's it takes").into());
        }
        Err(_) => (0, 0, 0),
    };
    // Where a program runs whose tables lack the kernel, the kernel's own lie beside them.
    let own = Space { vcpu, cr3: None };
    for space in [own, Space { vcpu, cr3: Some(cr3 & !0x1fff) }] {
        let (name, address) = match lstar.unwrap_or(lstar_now) {
            0 => {
                let gate = client.call(&Call::ReadLinear { vcpu, cr3: space.cr3, address: Gla(idt), len: 16 })?;
                let Reply::Bytes(gate) = gate else { continue };
                let part = |from: usize, to: usize| {
                    gate[from..to].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
                };
                ("asm_exc_divide_error", part(8, 12) << 32 | part(6, 8) << 16 | part(0, 2))
            }
            address => ("entry_SYSCALL_64", address),
        };
        if address >= IMAGE && is_mapped(client, space, address)? {
            return Ok(Entry { name, address, space });
        }
    }
    Err(none().into())
}

fn is_mapped(client: &mut Client, Space { vcpu, cr3 }: Space, address: u64) -> anyhow::Result<bool> {
    Ok(!matches!(client.call(&Call::Translate { vcpu, cr3, address: Gla(address) })?, Reply::Refused(..)))
}

/// The kernel that the guest holds, with the table of symbols in it.
fn read(client: &mut Client, entry: &Entry) -> anyhow::Result<Kernel> {
    let mut base = entry.address & !(ALIGNED - 1);
    while base > IMAGE && is_mapped(client, entry.space, base - ALIGNED)? {
        base -= ALIGNED;
    }
    let (mut bytes, mut gap) = (Vec::new(), 0);
    while gap < GAP && (bytes.len() as u64) < IMAGE_SIZE {
        let from = base + bytes.len() as u64;
        let page = |number: u64| Gla(from + number * PAGE_SIZE as u64);
        let Space { vcpu, cr3 } = entry.space;
        let len = u16::try_from(PAGE_SIZE).unwrap_or(u16::MAX);
        (0..AHEAD).try_for_each(|number| client.send(&Call::ReadLinear { vcpu, cr3, address: page(number), len }))?;
        for _ in 0..AHEAD {
            match client.reply()? {
                Reply::Bytes(page) => {
                    gap = 0;
                    bytes.extend(page);
                }
                Reply::Refused(Errno::EFAULT | Errno::ENOENT | Errno::ESRCH, _) => {
                    gap += PAGE_SIZE as u64;
                    bytes.resize(bytes.len() + PAGE_SIZE, 0);
                }
                Reply::Refused(errno, why) => anyhow::bail!("the kernel cannot be read: {errno}, {why}"),
                Reply::Done(_) => anyhow::bail!("no bytes in reply to a read"),
            }
        }
    }
    let why =
        |why| Refusal::usage(format!("the guest's kernel {why}"), "name its image or its vmlinux by --symbols FILE");
    Kernel::of_memory(&Flat { base, bytes }).map_err(why).context("the table of symbols")
}

/// Asks where the pages of a place lead, by a vCPU that stands. What leads nowhere stays unknown.
///
/// # Errors
/// As [`Client::call`], and a place that is none.
pub fn resolve(client: &mut Client, vcpu: VcpuId, place: &str, linear: &Linear) -> anyhow::Result<()> {
    for page in linear.pages(place)? {
        if let Reply::Done([gfn, ..]) = client.call(&Call::Translate { vcpu, cr3: None, address: page })? {
            linear.leads(page, Gpa(gfn << 12));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{found_in_words, told};
    use mem_event::Gpa;

    #[test]
    fn where_a_kernel_lies_is_read_from_its_note() {
        let (text, physical) = (0xffff_ffff_8700_0000, Gpa(0x1c0_0000));
        assert_eq!(told(&found_in_words(text, physical)), Some((text, physical)));
        assert_eq!(told("the kernel's _text is elsewhere"), None);
    }
}
