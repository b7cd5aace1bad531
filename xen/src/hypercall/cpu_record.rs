//! A vCPU's record of a saved context, from its registers and back.

use crate::errno::Errno;
use crate::layout::hvm_cpu;
use crate::layout::record::{Field, Record};
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

/// Of CR0: protection, the bit that is always set, paging.
const PE: u64 = 1;
const ET: u64 = 1 << 4;
const PG: u64 = 1 << 31;

/// Each 64-bit register with its place.
fn words(context: &mut Context) -> Vec<(Field<u64>, &mut u64)> {
    let registers = &mut context.registers;
    let [cr0, cr2, cr3, cr4] = &mut registers.control;
    let ([dr0, dr1, dr2, dr3], [dr6, dr7]) = (&mut context.breakpoints, &mut registers.debug);
    let [sysenter_cs, sysenter_esp, sysenter_eip] = &mut registers.sysenter;
    let rest = [
        (hvm_cpu::RIP, &mut registers.rip),
        (hvm_cpu::RFLAGS, &mut registers.rflags),
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
        (hvm_cpu::IDTR_BASE, &mut context.idtr_base),
        (hvm_cpu::GDTR_BASE, &mut registers.gdtr_base),
        (hvm_cpu::SYSENTER_CS, sysenter_cs),
        (hvm_cpu::SYSENTER_ESP, sysenter_esp),
        (hvm_cpu::SYSENTER_EIP, sysenter_eip),
        (hvm_cpu::SHADOW_GS, &mut registers.shadow_gs),
        (hvm_cpu::LSTAR, &mut registers.lstar),
        (hvm_cpu::STAR, &mut registers.star),
        (hvm_cpu::CSTAR, &mut context.cstar),
        (hvm_cpu::SYSCALL_MASK, &mut context.sfmask),
        (hvm_cpu::EFER, &mut registers.efer),
    ];
    GENERAL.into_iter().zip(&mut registers.general).chain(rest).collect()
}

/// The record. The FPU's registers are zero, and marked as not in use.
pub(super) fn record_of(context: &Context) -> Record {
    let mut context = *context;
    let mut record = Record::zeroed(hvm_cpu::BYTES);
    words(&mut context).into_iter().for_each(|(field, word)| record.set(field, *word));
    record.set(hvm_cpu::TSC, context.tsc);
    record.set(hvm_cpu::IDTR_LIMIT, context.idtr_limit.into());
    record.set(hvm_cpu::GDTR_LIMIT, context.registers.gdtr_limit.into());
    for (segment, places) in context.registers.segments.iter().chain(&context.system).zip(SEGMENTS) {
        record.set(places.selector, segment.selector.into());
        record.set(places.limit, bytes_of(segment));
        record.set(places.base, segment.base);
        record.set(places.rights, segment.rights.into());
    }
    record
}

/// What a vCPU with these registers has once the record is set. The time stamp counter goes on as it does.
///
/// # Errors
/// EINVAL, as in Xen: CR0 is none that a processor can have, or a flag is not known. EOPNOTSUPP, and what it is: something that is no
/// register.
pub(super) fn context_of(record: &Record, old: &Context) -> Result<Context, (Errno, &'static str)> {
    let cr0 = record.get(hvm_cpu::CR0);
    if cr0 & ET == 0 || cr0 & (PE | PG) == PG {
        return Err((Errno::EINVAL, "CR0"));
    }
    match record.get(hvm_cpu::FLAGS) {
        0 => {}
        hvm_cpu::FPU_INITIALISED => return Err((Errno::EOPNOTSUPP, "registers of the FPU")),
        _ => return Err((Errno::EINVAL, "flags of the record")),
    }
    if record.get(hvm_cpu::PENDING_EVENT) != 0 {
        return Err((Errno::EOPNOTSUPP, "a pending event"));
    }
    let mut context = *old;
    words(&mut context).into_iter().for_each(|(field, word)| *word = record.get(field));
    let short = |field: Field<u32>| u16::try_from(record.get(field)).map_err(|_| (Errno::EINVAL, "a table's limit"));
    (context.idtr_limit, context.registers.gdtr_limit) = (short(hvm_cpu::IDTR_LIMIT)?, short(hvm_cpu::GDTR_LIMIT)?);
    for (segment, places) in context.registers.segments.iter_mut().chain(&mut context.system).zip(SEGMENTS) {
        let too_wide = |_| (Errno::EINVAL, "a segment");
        segment.selector = u16::try_from(record.get(places.selector)).map_err(too_wide)?;
        segment.rights = u16::try_from(record.get(places.rights)).map_err(too_wide)?;
        segment.base = record.get(places.base);
        let limit = record.get(places.limit);
        segment.limit = if segment.rights & GRANULARITY == 0 { limit } else { limit >> 12 };
    }
    Ok(context)
}

/// A segment's limit in bytes.
fn bytes_of(segment: &Segment) -> u32 {
    if segment.rights & GRANULARITY == 0 { segment.limit } else { segment.limit << 12 | 0xfff }
}
