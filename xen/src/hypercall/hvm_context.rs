//! A domain's saved context: its vCPUs, of all that a real one holds.

use crate::domain::Domain;
use crate::errno::Errno;
use crate::guest::Guest;
use crate::layout::record::{Field, Record};
use crate::layout::{domctl, hvm_cpu, save_descriptor, save_header};
use crate::tool::Tool;
use mem_event::VcpuId;
use mem_event::registers::{Context, Segment};

/// In the order of their encoding.
const GENERAL: [Field<u64>; 16] = [
    hvm_cpu::RAX,
    hvm_cpu::RCX,
    hvm_cpu::RDX,
    hvm_cpu::RBX,
    hvm_cpu::RSP,
    hvm_cpu::RBP,
    hvm_cpu::RSI,
    hvm_cpu::RDI,
    hvm_cpu::R8,
    hvm_cpu::R9,
    hvm_cpu::R10,
    hvm_cpu::R11,
    hvm_cpu::R12,
    hvm_cpu::R13,
    hvm_cpu::R14,
    hvm_cpu::R15,
];

/// Where a segment register's parts lie.
struct Places {
    selector: Field<u32>,
    limit: Field<u32>,
    base: Field<u64>,
    rights: Field<u32>,
}

macro_rules! places {
    ($(($selector:ident $limit:ident $base:ident $rights:ident))*) => {
        [$(Places {
            selector: hvm_cpu::$selector,
            limit: hvm_cpu::$limit,
            base: hvm_cpu::$base,
            rights: hvm_cpu::$rights,
        }),*]
    };
}

/// CS, SS, DS, ES, FS, GS, TR and LDTR.
const SEGMENTS: [Places; 8] = places! {
    (CS_SEL CS_LIMIT CS_BASE CS_ARBYTES)
    (SS_SEL SS_LIMIT SS_BASE SS_ARBYTES)
    (DS_SEL DS_LIMIT DS_BASE DS_ARBYTES)
    (ES_SEL ES_LIMIT ES_BASE ES_ARBYTES)
    (FS_SEL FS_LIMIT FS_BASE FS_ARBYTES)
    (GS_SEL GS_LIMIT GS_BASE GS_ARBYTES)
    (TR_SEL TR_LIMIT TR_BASE TR_ARBYTES)
    (LDTR_SEL LDTR_LIMIT LDTR_BASE LDTR_ARBYTES)
};

/// Among a segment's rights: its limit counts pages.
const GRANULARITY: u16 = 1 << 11;

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
    Ok(contexts?.iter().map(cpu).collect())
}

fn described(kind: u16, instance: u16, body: &Record) -> Vec<u8> {
    let mut descriptor = Record::zeroed(save_descriptor::BYTES);
    descriptor.set(save_descriptor::TYPE, kind);
    descriptor.set(save_descriptor::INSTANCE, instance);
    descriptor.set(save_descriptor::LENGTH, u32::try_from(body.bytes().len()).unwrap_or(u32::MAX));
    [descriptor.bytes(), body.bytes()].concat()
}

/// The FPU's registers are zero, and marked as not in use.
fn cpu(context: &Context) -> Record {
    let registers = &context.registers;
    let mut record = Record::zeroed(hvm_cpu::BYTES);
    let [cr0, cr2, cr3, cr4] = registers.control;
    let ([dr0, dr1, dr2, dr3], [dr6, dr7]) = (context.breakpoints, registers.debug);
    let [sysenter_cs, sysenter_esp, sysenter_eip] = registers.sysenter;
    let words = GENERAL.into_iter().zip(registers.general).chain([
        (hvm_cpu::RIP, registers.rip),
        (hvm_cpu::RFLAGS, registers.rflags),
        (hvm_cpu::CR0, cr0),
        (hvm_cpu::CR2, cr2),
        (hvm_cpu::CR3, cr3),
        (hvm_cpu::CR4, cr4),
        (hvm_cpu::DR0, dr0),
        (hvm_cpu::DR1, dr1),
        (hvm_cpu::DR2, dr2),
        (hvm_cpu::DR3, dr3),
        (hvm_cpu::DR6, dr6),
        (hvm_cpu::DR7, dr7),
        (hvm_cpu::IDTR_BASE, context.idtr_base),
        (hvm_cpu::GDTR_BASE, registers.gdtr_base),
        (hvm_cpu::SYSENTER_CS, sysenter_cs),
        (hvm_cpu::SYSENTER_ESP, sysenter_esp),
        (hvm_cpu::SYSENTER_EIP, sysenter_eip),
        (hvm_cpu::SHADOW_GS, registers.shadow_gs),
        (hvm_cpu::LSTAR, registers.lstar),
        (hvm_cpu::STAR, registers.star),
        (hvm_cpu::CSTAR, context.cstar),
        (hvm_cpu::SYSCALL_MASK, context.sfmask),
        (hvm_cpu::EFER, registers.efer),
        (hvm_cpu::TSC, context.tsc),
    ]);
    words.for_each(|(field, word)| record.set(field, word));
    record.set(hvm_cpu::IDTR_LIMIT, context.idtr_limit.into());
    record.set(hvm_cpu::GDTR_LIMIT, registers.gdtr_limit.into());
    for (segment, places) in registers.segments.iter().chain(&context.system).zip(SEGMENTS) {
        record.set(places.selector, segment.selector.into());
        record.set(places.limit, bytes_of(segment));
        record.set(places.base, segment.base);
        record.set(places.rights, segment.rights.into());
    }
    record
}

/// A segment's limit in bytes.
fn bytes_of(segment: &Segment) -> u32 {
    if segment.rights & GRANULARITY == 0 { segment.limit } else { segment.limit << 12 | 0xfff }
}
