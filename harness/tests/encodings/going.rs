//! Instructions that go to another ring, each with the stack that tells where: by far calls, far returns, `iret` and `int`.

use super::table::{DATA, Encoding, TABLE};
use iced_x86::{Decoder, DecoderOptions};

// Selectors of the guest.
const KERNEL_CODE: u64 = 0x08;
const KERNEL_DATA: u64 = 0x10;
const USER_DATA: u64 = 0x2b;
const CODE_64: u64 = 0x33;
const CODE_32: u64 = 0x3b;
const CODE_16: u64 = 0x43;
const DATA_16: u64 = 0x4b;
const KERNEL_CODE_32: u64 = 0x50;
const GATE: u64 = 0x5b;

/// Of RFLAGS: the step is trapped.
const FLAGS: u64 = 0x102;

/// One such instruction.
#[derive(Clone, Debug)]
pub struct Going {
    /// It.
    pub encoding: Encoding,
    /// In which code and with which data.
    pub segments: [u64; 2],
    /// What stands on its stack.
    pub stack: Vec<u8>,
}

impl Going {
    fn of(bytes: &[u8], bits: u32, segments: [u64; 2], stack: Vec<u8>) -> Going {
        let instruction = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
        assert!(!instruction.is_invalid() && instruction.len() == bytes.len(), "{bytes:x?}");
        Going { encoding: Encoding { bytes: bytes.to_vec(), instruction }, segments, stack }
    }

    /// 128 bytes of the table.
    pub fn place(&self) -> Vec<u8> {
        let mut place = self.encoding.bytes.clone();
        place.resize(32, 0xcc);
        place.extend(self.segments.into_iter().flat_map(u64::to_le_bytes));
        place.extend(&self.stack);
        place.resize(128, 0);
        place
    }
}

/// Words of so many bytes, one above the other.
fn words(bytes: usize, words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()[..bytes].to_vec()).collect()
}

/// All of them.
pub fn all() -> Vec<Going> {
    let mut all = returns();
    all.extend(calls());
    let int = |bits, segments| Going::of(&[0xcd, 29], bits, segments, Vec::new());
    all.extend([int(64, [CODE_64, USER_DATA]), int(32, [CODE_32, USER_DATA]), int(16, [CODE_16, DATA_16])]);
    all
}

/// From ring 0 to ring 3, in words of each size.
fn returns() -> Vec<Going> {
    let (target, stack) = (u64::from(u32::try_from(TABLE).unwrap()), u64::from(DATA));
    let mut all = Vec::new();
    for (bits, code) in [(64, KERNEL_CODE), (32, KERNEL_CODE_32)] {
        for word in [2, 4, 8].into_iter().filter(|word| bits == 64 || *word < 8) {
            let prefix: &[u8] = match word {
                2 => &[0x66],
                8 => &[0x48],
                _ => &[],
            };
            for to in [CODE_64, CODE_32] {
                let far = words(word, &[target, to, stack, USER_DATA]);
                let passed = words(word, &[target, to, 0, 0, stack, USER_DATA]);
                let flags = words(word, &[target, to, FLAGS, stack, USER_DATA]);
                let by = u8::try_from(2 * word).unwrap();
                let segments = [code, KERNEL_DATA];
                all.push(Going::of(&[prefix, &[0xcb]].concat(), bits, segments, far));
                all.push(Going::of(&[prefix, &[0xca, by, 0]].concat(), bits, segments, passed));
                all.push(Going::of(&[prefix, &[0xcf]].concat(), bits, segments, flags));
            }
        }
    }
    all
}

/// Through the gate: from ring 3 to ring 0, and within ring 0.
fn calls() -> Vec<Going> {
    let pointer = |word| words(word, &[0, GATE]);
    let mut all = Vec::new();
    for (bits, code, data) in [
        (64, CODE_64, USER_DATA),
        (32, CODE_32, USER_DATA),
        (16, CODE_16, DATA_16),
        (64, KERNEL_CODE, KERNEL_DATA),
        (32, KERNEL_CODE_32, KERNEL_DATA),
    ] {
        let segments = [code, data];
        // call far [rsp], [esp], [si + 0x2000]
        let operand: &[u8] = if bits == 16 { &[0x9c, 0, 0x20] } else { &[0x1c, 0x24] };
        for (prefix, word) in [(&[][..], if bits == 16 { 2 } else { 4 }), (&[0x66][..], if bits == 16 { 4 } else { 2 })]
        {
            all.push(Going::of(&[prefix, &[0xff], operand].concat(), bits, segments, pointer(word)));
            if bits != 64 {
                let to = [&[0x9a][..], &words(word, &[0]), &words(2, &[GATE])].concat();
                all.push(Going::of(&[prefix, &to].concat(), bits, segments, Vec::new()));
            }
        }
        if bits == 64 {
            all.push(Going::of(&[0x48, 0xff, 0x1c, 0x24], bits, segments, pointer(8)));
        }
    }
    all
}
