//! All instructions that iced-x86 decodes and that QEMU has a decoder for, with each form of addressing, as a table that the guest
//! `encodings` runs.
//!
//! They are found by decoding: each opcode of each map under each prefix, with each form. Of those that decode to the same instruction, operand
//! kinds, segment and prefix one is kept.

use super::going::Going;
use iced_x86::{Code, Decoder, DecoderOptions, EncodingKind, Instruction, Mnemonic, OpKind};
use std::collections::HashSet;

/// Where the guest's table lies, and its `DATA` + 0x1800.
pub const TABLE: u64 = 32 << 20;
pub const DATA: u32 = 0x50_1800;
const PAGE: u64 = 4096;
const PLACE: usize = 32;

/// One instruction.
#[derive(Clone, Debug)]
pub struct Encoding {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// It, decoded.
    pub instruction: Instruction,
}

impl Encoding {
    /// Its mnemonic.
    pub fn name(&self) -> String {
        format!("{:?}", self.instruction.mnemonic()).to_lowercase()
    }

    /// Whether it names memory.
    pub fn names_memory(&self) -> bool {
        (0..self.instruction.op_count()).any(|number| self.instruction.op_kind(number) == OpKind::Memory)
    }
}

/// A form of the operand after ModRM: prefixes, mod and rm, and what follows.
struct Form {
    prefixes: &'static [u8],
    /// Of REX and VEX: bit 0 extends the base.
    extends: u8,
    modrm: u8,
    rest: &'static [u8],
}

const D: [u8; 4] = DATA.to_le_bytes();

const fn form(prefixes: &'static [u8], modrm: u8, rest: &'static [u8]) -> Form {
    Form { prefixes, extends: 0, modrm, rest }
}

/// Base, displacements, base and index, index alone, relative or absolute, none; then what prefixes change: address size and segments.
const FORMS_64: [Form; 17] = [
    form(&[], 0x03, &[]),
    form(&[], 0x43, &[0x40]),
    form(&[], 0x83, &[0, 1, 0, 0]),
    form(&[], 0x04, &[0x8b]),
    form(&[], 0x04, &[0xcd, D[0], D[1], D[2], D[3]]),
    form(&[], 0x05, &[0; 4]),
    form(&[], 0x04, &[0x25, D[0], D[1], D[2], D[3]]),
    form(&[], 0x44, &[0x24, 0x40]),
    Form { extends: 1, ..form(&[], 0x03, &[]) },
    form(&[], 0xc1, &[]),
    form(&[0x67], 0x03, &[]),
    form(&[0x67], 0x44, &[0x8b, 0x40]),
    form(&[0x26], 0x03, &[]),
    form(&[0x2e], 0x03, &[]),
    form(&[0x36], 0x03, &[]),
    form(&[0x64], 0x03, &[]),
    form(&[0x65], 0x44, &[0x8b, 0x40]),
];

/// In 32-bit code there is no address relative to the instruction pointer, and 16-bit addresses reach nothing that is mapped for ring 3.
const FORMS_32: [Form; 13] = [
    form(&[], 0x03, &[]),
    form(&[], 0x43, &[0x40]),
    form(&[], 0x83, &[0, 1, 0, 0]),
    form(&[], 0x04, &[0x8b]),
    form(&[], 0x04, &[0xcd, D[0], D[1], D[2], D[3]]),
    form(&[], 0x05, &D),
    form(&[], 0x44, &[0x24, 0x40]),
    form(&[], 0xc1, &[]),
    form(&[0x26], 0x03, &[]),
    form(&[0x2e], 0x03, &[]),
    form(&[0x36], 0x03, &[]),
    form(&[0x64], 0x03, &[]),
    form(&[0x65], 0x44, &[0x8b, 0x40]),
];

/// In 16-bit code: two registers, one, displacements, none; an address of 32 bits; segments. Each lies within the first 64 KiB of the data.
const FORMS_16: [Form; 15] = [
    form(&[], 0x00, &[]),
    form(&[], 0x01, &[]),
    form(&[], 0x02, &[]),
    form(&[], 0x03, &[]),
    form(&[], 0x04, &[]),
    form(&[], 0x47, &[0x40]),
    form(&[], 0x87, &[0, 1]),
    form(&[], 0x06, &[D[0], D[1]]),
    form(&[], 0xc7, &[]),
    form(&[0x67], 0x05, &[D[0], D[1], 0, 0]),
    form(&[0x26], 0x07, &[]),
    form(&[0x2e], 0x07, &[]),
    form(&[0x36], 0x07, &[]),
    form(&[0x64], 0x07, &[]),
    form(&[0x65], 0x07, &[]),
];

/// Instructions of ring 0 that leave the guest its tables, its page tables and its interrupts. The others: `hlt`, `lgdt`, `lidt`, `mov` to
/// control and debug registers, `sysret` to where nothing is, `lmsw`, which may set TS.
const OF_RING_0: [Mnemonic; 26] = [
    Mnemonic::Clac,
    Mnemonic::Cli,
    Mnemonic::Clts,
    Mnemonic::In,
    Mnemonic::Insb,
    Mnemonic::Insd,
    Mnemonic::Insw,
    Mnemonic::Invd,
    Mnemonic::Invlpg,
    Mnemonic::Lldt,
    Mnemonic::Ltr,
    Mnemonic::Monitor,
    Mnemonic::Out,
    Mnemonic::Outsb,
    Mnemonic::Outsd,
    Mnemonic::Outsw,
    Mnemonic::Rdmsr,
    Mnemonic::Rdpmc,
    Mnemonic::Stac,
    Mnemonic::Sti,
    Mnemonic::Str,
    Mnemonic::Swapgs,
    Mnemonic::Sysexit,
    Mnemonic::Wbinvd,
    Mnemonic::Wrmsr,
    Mnemonic::Xsetbv,
];

/// Those instructions in 64-bit code.
pub fn of_ring_0() -> Vec<Encoding> {
    let wanted = |encoding: &Encoding| OF_RING_0.contains(&encoding.instruction.mnemonic());
    encodings(64).into_iter().filter(wanted).collect()
}

const MAPS: [&[u8]; 4] = [&[], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]];
const PREFIXES: [&[u8]; 6] = [&[], &[0x66], &[0xf3], &[0xf2], &[0xf0], &[0x66, 0xf2]];

/// The instructions of 64-bit, of 32-bit or of 16-bit code.
pub fn encodings(bits: u32) -> Vec<Encoding> {
    let forms: &[Form] = match bits {
        64 => &FORMS_64,
        32 => &FORMS_32,
        _ => &FORMS_16,
    };
    let mut found = Found { bits, seen: HashSet::new(), all: Vec::new() };
    for (number, form) in forms.iter().enumerate() {
        legacy(&mut found, number, form);
        three_d_now(&mut found, number, form);
        vex(&mut found, number, form);
    }
    found.all
}

/// The table as a file.
pub fn file(alike: [&[Encoding]; 4], going: &[Going]) -> Vec<u8> {
    let mut bytes = b"encoding".to_vec();
    let counts = alike.into_iter().map(<[Encoding]>::len).chain([going.len()]);
    bytes.extend(counts.flat_map(|count| (count as u64).to_le_bytes()));
    bytes.resize(usize::try_from(PAGE).unwrap(), 0);
    for (number, encoding) in alike.into_iter().flatten().enumerate() {
        let mut place = [0xcc; PLACE];
        place[..encoding.bytes.len()].copy_from_slice(&encoding.bytes);
        if encoding.instruction.is_ip_rel_memory_operand() && encoding.instruction.code().op_code().mode64() {
            relate(&mut place, encoding, TABLE + PAGE + (number * PLACE) as u64);
        }
        bytes.extend(place);
    }
    bytes.extend(going.iter().flat_map(Going::place));
    bytes
}

/// Makes the displacement that of `DATA` from where the instruction ends.
fn relate(place: &mut [u8; PLACE], encoding: &Encoding, at: u64) {
    let mut decoder = Decoder::new(64, &encoding.bytes, DecoderOptions::MPX);
    let instruction = decoder.decode();
    let displacement = decoder.get_constant_offsets(&instruction).displacement_offset();
    let distance =
        DATA.wrapping_sub(u32::try_from(at).unwrap()).wrapping_sub(u32::try_from(instruction.len()).unwrap());
    place[displacement..displacement + 4].copy_from_slice(&distance.to_le_bytes());
}

fn legacy(found: &mut Found, number: usize, form: &Form) {
    let rexes: &[Option<u8>] = match (found.bits, form.extends) {
        (64, 0) => &[None, Some(0x48)],
        (64, _) => &[Some(0x41), Some(0x49)],
        _ => &[None],
    };
    for prefix in PREFIXES {
        for rex in rexes {
            for map in MAPS {
                let bits = found.bits;
                for opcode in (0..=255).filter(|opcode| is_opcode(bits, map, *opcode)) {
                    for reg in 0..8 {
                        let opcode = [map, &[opcode, form.modrm | reg << 3], form.rest].concat();
                        found.add(number, [form.prefixes, prefix, rex.as_slice(), &opcode].concat());
                    }
                }
            }
        }
    }
}

/// Whether it is none of the bytes that lead on: a prefix, or to another map.
fn is_opcode(bits: u32, map: &[u8], byte: u8) -> bool {
    match map {
        [] => {
            let leads_on = matches!(byte, 0x0f | 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
            !(leads_on || bits == 64 && byte & 0xf0 == 0x40)
        }
        [0x0f] => !matches!(byte, 0x0f | 0x38 | 0x3a),
        _ => true,
    }
}

/// Their opcode comes last.
fn three_d_now(found: &mut Found, number: usize, form: &Form) {
    let rex: &[u8] = if form.extends != 0 { &[0x41] } else { &[] };
    for opcode in 0..=255 {
        found.add(number, [form.prefixes, rex, &[0x0f, 0x0f, form.modrm], form.rest, &[opcode]].concat());
    }
}

fn vex(found: &mut Found, number: usize, form: &Form) {
    // The fifth register, or none.
    for vvvv in [0xb, 0xf] {
        for (map, opcode) in (1..4).flat_map(|map| (0..=255).map(move |opcode| (map, opcode))) {
            // Only there is a part of the opcode in ModRM.
            let regs = if matches!((map, opcode), (1, 0x71..=0x73 | 0xae) | (2, 0xf3)) { 8 } else { 1 };
            for (bits, reg) in (0..16).flat_map(|bits| (0..regs).map(move |reg| (bits, reg))) {
                let (w, length_and_prefix) = (bits >> 3, bits & 7);
                let first = 0xe0 ^ form.extends << 5 | map;
                let second = w << 7 | vvvv << 3 | length_and_prefix;
                let head = [0xc4, first, second, opcode, form.modrm | reg << 3];
                found.add(number, [form.prefixes, &head, form.rest].concat());
            }
        }
    }
}

/// What makes two encodings the same instruction here.
type Same = (Code, usize, [OpKind; 2], iced_x86::Register, bool, bool, bool);

struct Found {
    bits: u32,
    seen: HashSet<Same>,
    all: Vec<Encoding>,
}

impl Found {
    /// Adds what these bytes, and a further address where there is an immediate, decode to, if it is new.
    fn add(&mut self, form: usize, mut bytes: Vec<u8>) {
        bytes.extend(D);
        bytes.extend([0; 8]);
        bytes.truncate(15);
        let instruction = Decoder::new(self.bits, &bytes, DecoderOptions::MPX).decode();
        let is_known = matches!(
            instruction.code().op_code().encoding(),
            EncodingKind::Legacy | EncodingKind::VEX | EncodingKind::D3NOW
        );
        if instruction.is_invalid() || !is_known || instruction.len() > 15 {
            return;
        }
        let encoding = Encoding { bytes: bytes[..instruction.len()].to_vec(), instruction };
        let repeats = instruction.is_string_instruction();
        let same = (
            instruction.code(),
            if encoding.names_memory() { form } else { 0 },
            [instruction.op0_kind(), instruction.op1_kind()],
            instruction.memory_segment(),
            repeats && instruction.has_rep_prefix(),
            repeats && instruction.has_repne_prefix(),
            instruction.has_lock_prefix(),
        );
        if self.seen.insert(same) {
            self.all.push(encoding);
        }
    }
}
