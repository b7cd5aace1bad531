//! A domain's saved context: its vCPUs, of all that a real one holds.

use super::cpu_record::{context_of, record_of};
use crate::domain::Domain;
use crate::errno::Errno;
use crate::guest::Guest;
use crate::layout::record::Record;
use crate::layout::{domctl, hvm_cpu, save_descriptor, save_header};
use crate::tool::Tool;
use mem_event::VcpuId;
use std::collections::BTreeMap;

/// More than a domain of 128 vCPUs saves in Xen.
const LONGEST: u32 = 1 << 20;

/// All of it, as Xen saves it; without a buffer only how long it is.
pub(super) fn whole<D: Domain>(guest: &mut Guest<D>, tool: &dyn Tool, asked: &Record) -> Result<(), Errno> {
    let vcpus = u32::try_from(guest.domain.info()?.vcpus).unwrap_or(u32::MAX);
    let record = |body: usize| save_descriptor::BYTES + body;
    let bytes = record(save_header::BYTES) + vcpus as usize * record(hvm_cpu::BYTES) + record(0);
    let size = u32::try_from(bytes).map_err(|_| Errno::ENOSPC)?;
    let buffer = asked.get(domctl::CONTEXT_BUFFER);
    if buffer == 0 {
        return asked.put(tool, domctl::CONTEXT_SIZE, size);
    }
    if asked.get(domctl::CONTEXT_SIZE) < size {
        return Err(Errno::ENOSPC);
    }
    let mut header = Record::zeroed(save_header::BYTES);
    header.set(save_header::MAGIC, save_header::FILE_MAGIC);
    header.set(save_header::VERSION, save_header::FILE_VERSION);
    let mut saved = described(save_descriptor::HEADER, 0, &header);
    for (number, cpu) in (0..).zip(cpus(guest, 0..vcpus)?) {
        saved.extend(described(save_descriptor::CPU, number, &cpu));
    }
    saved.extend(described(save_descriptor::END, 0, &Record::zeroed(0)));
    tool.write(buffer, &saved)?;
    asked.put(tool, domctl::CONTEXT_SIZE, size)
}

/// One record's body; without a buffer only how long it is. `None`: this kind is not there.
pub(super) fn partial<D: Domain>(guest: &mut Guest<D>, tool: &dyn Tool, asked: &Record) -> Result<Option<()>, Errno> {
    if asked.get(domctl::RECORD_TYPE) != u32::from(save_descriptor::CPU) {
        return Ok(None);
    }
    let vcpu = asked.get(domctl::RECORD_INSTANCE);
    if u64::from(vcpu) >= guest.domain.info()?.vcpus {
        return Err(Errno::ENOENT);
    }
    let buffer = asked.get(domctl::RECORD_BUFFER);
    if buffer != 0 {
        if asked.get(domctl::RECORD_BYTES) < hvm_cpu::BYTES as u64 {
            return Err(Errno::ENOBUFS);
        }
        for cpu in cpus(guest, vcpu..vcpu + 1)? {
            tool.write(buffer, cpu.bytes())?;
        }
    }
    asked.put(tool, domctl::RECORD_BYTES, hvm_cpu::BYTES as u64).map(Some)
}

/// The records of these vCPUs, which stand still meanwhile, as in Xen.
fn cpus<D: Domain>(guest: &mut Guest<D>, vcpus: std::ops::Range<u32>) -> Result<Vec<Record>, Errno> {
    guest.domain.pause()?;
    let contexts: Result<Vec<_>, _> = vcpus.map(|vcpu| guest.domain.context(VcpuId(vcpu))).collect();
    guest.domain.unpause()?;
    Ok(contexts?.iter().map(record_of).collect())
}

fn described(kind: u16, instance: u16, body: &Record) -> Vec<u8> {
    let mut descriptor = Record::zeroed(save_descriptor::BYTES);
    descriptor.set(save_descriptor::TYPE, kind);
    descriptor.set(save_descriptor::INSTANCE, instance);
    descriptor.set(save_descriptor::LENGTH, u32::try_from(body.bytes().len()).unwrap_or(u32::MAX));
    [descriptor.bytes(), body.bytes()].concat()
}

/// Sets a domain's vCPUs as a saved context has them: all, or none.
///
/// # Errors
/// As in Xen, ENODATA: its header or its end is missing; EINVAL: it is none, a record is not known, or is of no vCPU, or says what no processor
/// can have. Besides, with what it is: EOPNOTSUPP, what cannot be set here; EINVAL, a vCPU without a record, which Xen would take down.
pub(super) fn set<D: Domain>(guest: &mut Guest<D>, tool: &dyn Tool, asked: &Record) -> Result<(), (Errno, String)> {
    let plainly = |errno: Errno| (errno, String::new());
    let size = asked.get(domctl::CONTEXT_SIZE);
    if size > LONGEST {
        return Err(plainly(Errno::ENOMEM));
    }
    let mut saved = vec![0; size as usize];
    tool.read(asked.get(domctl::CONTEXT_BUFFER), &mut saved).map_err(plainly)?;
    let vcpus = u32::try_from(guest.domain.info().map_err(plainly)?.vcpus).unwrap_or(u32::MAX);
    let records = records(&saved, vcpus)?;
    if let Some(missing) = (0..vcpus).find(|vcpu| !records.contains_key(vcpu)) {
        return Err((Errno::EINVAL, format!("a context without a record of vCPU {missing}, which would take it down")));
    }
    guest.domain.pause().map_err(plainly)?;
    let done = set_all(guest, &records);
    guest.domain.unpause().map_err(plainly)?;
    done
}

/// The domain stands still. One that cannot be set has those before it be as they were.
fn set_all<D: Domain>(guest: &mut Guest<D>, records: &BTreeMap<u32, Record>) -> Result<(), (Errno, String)> {
    let mut before = Vec::new();
    for (&vcpu, record) in records {
        let it = VcpuId(vcpu);
        let done = guest.domain.context(it).map_err(|errno| (errno, String::new())).and_then(|old| {
            let new = context_of(record, &old).map_err(|(errno, what)| (errno, format!("vCPU {vcpu}: {what}")))?;
            guest.domain.set_context(it, &new).map_err(|(errno, why)| (errno, format!("vCPU {vcpu}: {why}")))?;
            before.push((it, old));
            Ok(())
        });
        if let Err(why) = done {
            for (it, old) in before {
                guest.domain.set_context(it, &old)?;
            }
            return Err(why);
        }
    }
    Ok(())
}

/// The vCPUs' records of a saved context.
fn records(saved: &[u8], vcpus: u32) -> Result<BTreeMap<u32, Record>, (Errno, String)> {
    let no_data = || (Errno::ENODATA, String::new());
    let (kind, _, header, mut rest) = first(saved).ok_or_else(no_data)?;
    if kind != save_descriptor::HEADER || header.bytes().len() != save_header::BYTES {
        return Err(no_data());
    }
    if header.get(save_header::MAGIC) != save_header::FILE_MAGIC
        || header.get(save_header::VERSION) != save_header::FILE_VERSION
    {
        return Err((Errno::EINVAL, "what is no saved context".to_owned()));
    }
    let mut found = BTreeMap::new();
    loop {
        let (kind, instance, body, after) = first(rest).ok_or_else(no_data)?;
        match kind {
            save_descriptor::END => return Ok(found),
            save_descriptor::CPU if u32::from(instance) >= vcpus => {
                return Err((Errno::EINVAL, format!("a record of vCPU {instance}, of which there is none")));
            }
            save_descriptor::CPU if body.bytes().len() == hvm_cpu::BYTES => {
                found.insert(instance.into(), body);
            }
            other => return Err((Errno::EINVAL, format!("record {other} of {} bytes", body.bytes().len()))),
        }
        rest = after;
    }
}

/// A context's first record: its kind, of which vCPU it is, what it holds, and what comes behind it.
fn first(saved: &[u8]) -> Option<(u16, u16, Record, &[u8])> {
    let (descriptor, rest) = saved.split_at_checked(save_descriptor::BYTES)?;
    let descriptor = Record::of_bytes(descriptor);
    let length = usize::try_from(descriptor.get(save_descriptor::LENGTH)).ok()?;
    let (body, rest) = rest.split_at_checked(length)?;
    let (kind, instance) = (descriptor.get(save_descriptor::TYPE), descriptor.get(save_descriptor::INSTANCE));
    Some((kind, instance, Record::of_bytes(body), rest))
}
