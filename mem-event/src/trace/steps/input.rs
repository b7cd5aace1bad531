//! What the engine was told, and the code of the instruction.

use super::past::Past;
use crate::cpu_events::CpuEventKind;
use crate::input::{Access, AccessSource, CpuEvent};
use crate::number::{Gfn, Gla, VcpuId};
use crate::rights::Rights;
use crate::trace::bytes::{Bytes, Found, difference, number, text, wrong};

const GFN: u8 = 1;
const OFFSET: u8 = 2;
const GLA: u8 = 4;
const RIGHTS: u8 = 8;
const RIP: u8 = 0x10;

const KIND: u8 = 1;
const VALUE: u8 = 2;
const OLD: u8 = 4;
const NUMBER: u8 = 8;
const FRAME: u8 = 0x20;

/// The code stands here.
const CODE: u8 = 0x40;
/// There is none, though some is known of the place.
const NO_CODE: u8 = 0x80;

/// An access: its vCPU, which of its parts are otherwise than in that vCPU's last one, and these.
pub(super) fn access(out: &mut Vec<u8>, past: &mut Past, vcpu: VcpuId, access: &Access, code: &[u8]) {
    number(out, vcpu.0.into());
    let mut which = code_bits(past, access.rip, code);
    let last = std::mem::replace(&mut past.of(vcpu).access, *access);
    let linear = expected(&last, access.gfn, access.offset);
    let bits = [
        (access.gfn != last.gfn, GFN),
        (access.offset != last.offset, OFFSET),
        (access.gla != linear, GLA),
        (access.rights != last.rights || access.source != last.source, RIGHTS),
        (access.rip != last.rip, RIP),
    ];
    bits.into_iter().for_each(|(differs, bit)| which |= if differs { bit } else { 0 });
    out.push(which);
    if which & GFN != 0 {
        difference(out, access.gfn.0, last.gfn.0);
    }
    if which & OFFSET != 0 {
        number(out, access.offset.into());
    }
    if which & GLA != 0 {
        out.push(u8::from(access.gla.is_some()));
        access.gla.into_iter().for_each(|gla| difference(out, gla.0, linear.map_or(0, |it| it.0)));
    }
    if which & RIGHTS != 0 {
        out.push(access.rights.bits() | (access.source as u8) << 3);
    }
    if which & RIP != 0 {
        difference(out, access.rip, last.rip);
    }
    put_code(out, past, which, access.rip, code);
}

/// Reads [`access`]; the code is put into the buffer.
pub(super) fn read_access(bytes: &mut Bytes<'_>, past: &mut Past, code: &mut Vec<u8>) -> Found<(VcpuId, Access)> {
    let vcpu = read_vcpu(bytes)?;
    let which = bytes.byte()?;
    if which & 0x20 != 0 {
        return wrong("an unknown part of an access");
    }
    let last = past.of(vcpu).access;
    let gfn = if which & GFN != 0 { Gfn(bytes.difference(last.gfn.0)?) } else { last.gfn };
    let offset = if which & OFFSET != 0 { bytes.small()? } else { last.offset.into() };
    let Ok(offset) = u16::try_from(offset) else { return wrong("an offset above 65535") };
    let linear = expected(&last, gfn, offset);
    let gla = match which & GLA {
        0 => linear,
        _ if bytes.byte()? == 0 => None,
        _ => Some(Gla(bytes.difference(linear.map_or(0, |it| it.0))?)),
    };
    let (rights, source) = match which & RIGHTS {
        0 => (last.rights, last.source),
        _ => {
            let packed = bytes.byte()?;
            (Rights::from_bits(packed), source(packed >> 3)?)
        }
    };
    let rip = if which & RIP != 0 { bytes.difference(last.rip)? } else { last.rip };
    let access = Access { gfn, offset, gla, rights, source, rip };
    past.of(vcpu).access = access;
    read_code(bytes, past, which, rip, code)?;
    Ok((vcpu, access))
}

/// A CPU event likewise. Its old value is likely the new one of the event before.
pub(super) fn event(out: &mut Vec<u8>, past: &mut Past, vcpu: VcpuId, event: &CpuEvent, code: &[u8]) {
    number(out, vcpu.0.into());
    let mut which = code_bits(past, event.rip.0, code);
    let last = std::mem::replace(&mut past.of(vcpu).event, *event);
    let bits = [
        (event.kind != last.kind, KIND),
        (event.value != last.value, VALUE),
        (event.old != last.value, OLD),
        (event.number != last.number, NUMBER),
        (event.rip != last.rip, RIP),
        (event.gfn != last.gfn, FRAME),
    ];
    bits.into_iter().for_each(|(differs, bit)| which |= if differs { bit } else { 0 });
    out.push(which);
    if which & KIND != 0 {
        out.push(event.kind as u8);
    }
    if which & VALUE != 0 {
        difference(out, event.value, last.value);
    }
    if which & OLD != 0 {
        difference(out, event.old, last.value);
    }
    if which & NUMBER != 0 {
        number(out, event.number.into());
    }
    if which & RIP != 0 {
        difference(out, event.rip.0, last.rip.0);
    }
    if which & FRAME != 0 {
        difference(out, event.gfn.0, last.gfn.0);
    }
    put_code(out, past, which, event.rip.0, code);
}

/// Reads [`event`].
pub(super) fn read_event(bytes: &mut Bytes<'_>, past: &mut Past, code: &mut Vec<u8>) -> Found<(VcpuId, CpuEvent)> {
    let vcpu = read_vcpu(bytes)?;
    let which = bytes.byte()?;
    let last = past.of(vcpu).event;
    let kind = if which & KIND != 0 { CpuEventKind::from_number(bytes.byte()?) } else { Some(last.kind) };
    let Some(kind) = kind else { return wrong("an unknown CPU event") };
    let value = if which & VALUE != 0 { bytes.difference(last.value)? } else { last.value };
    let old = if which & OLD != 0 { bytes.difference(last.value)? } else { last.value };
    let number = if which & NUMBER != 0 { bytes.small()? } else { last.number };
    let rip = if which & RIP != 0 { Gla(bytes.difference(last.rip.0)?) } else { last.rip };
    let gfn = if which & FRAME != 0 { Gfn(bytes.difference(last.gfn.0)?) } else { last.gfn };
    let event = CpuEvent { kind, value, old, number, rip, gfn };
    past.of(vcpu).event = event;
    read_code(bytes, past, which, rip.0, code)?;
    Ok((vcpu, event))
}

/// Where a linear address would be if it had moved as its frame did.
#[inline]
fn expected(last: &Access, gfn: Gfn, offset: u16) -> Option<Gla> {
    let place = |gfn: Gfn, offset: u16| (gfn.0 << 12).wrapping_add(offset.into());
    let moved = place(gfn, offset).wrapping_sub(place(last.gfn, last.offset));
    last.gla.map(|gla| Gla(gla.0.wrapping_add(moved)))
}

pub(super) fn read_vcpu(bytes: &mut Bytes<'_>) -> Found<VcpuId> {
    match VcpuId(bytes.small()?) {
        vcpu if Past::knows(vcpu) => Ok(vcpu),
        _ => wrong("a vCPU above 4095"),
    }
}

fn source(number: u8) -> Found<AccessSource> {
    match number {
        0 => Ok(AccessSource::Instruction),
        1 => Ok(AccessSource::PageWalk),
        2 => Ok(AccessSource::Processor),
        _ => wrong("an unknown source of an access"),
    }
}

#[inline]
fn code_bits(past: &Past, rip: u64, code: &[u8]) -> u8 {
    match past.code(rip) {
        known if known == code => 0,
        _ if code.is_empty() => NO_CODE,
        _ => CODE,
    }
}

#[inline]
fn put_code(out: &mut Vec<u8>, past: &mut Past, which: u8, rip: u64, code: &[u8]) {
    if which & CODE != 0 {
        text(out, code);
        past.sees_code(rip, code);
    }
}

#[inline]
fn read_code(bytes: &mut Bytes<'_>, past: &mut Past, which: u8, rip: u64, code: &mut Vec<u8>) -> Found<()> {
    match which & (CODE | NO_CODE) {
        0 => code.extend_from_slice(past.code(rip)),
        CODE => {
            let seen = bytes.text()?;
            past.sees_code(rip, seen);
            code.extend_from_slice(seen);
        }
        _ => {}
    }
    Ok(())
}
