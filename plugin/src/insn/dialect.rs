//! Where QEMU's TCG differs from the manuals, by which iced-x86 decodes.
//!
//! What is foreseen must be what QEMU does: where it reads more than a processor would, the further page is touched, and
//! where it knows no instruction, none is. The test `encodings` holds this against all that QEMU runs.

use iced_x86::{Code, CodeSize, CpuidFeature, EncodingKind, Instruction, Mnemonic};
use std::borrow::Cow;

fn is_rex(byte: u8) -> bool {
    byte & 0xf0 == 0x40
}

fn is_legacy_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}

/// To a processor a REX prefix counts only right before the opcode; to QEMU the last one counts, wherever it stands. The same bytes of
/// 64-bit code with REX where both agree.
pub fn in_order(bytes: &[u8]) -> Cow<'_, [u8]> {
    let prefixes = bytes.iter().take_while(|byte| is_rex(**byte) || is_legacy_prefix(**byte)).count();
    let (head, rest) = bytes.split_at(prefixes);
    let first = head.iter().position(|byte| is_rex(*byte));
    let last = head.iter().rposition(|byte| is_rex(*byte));
    let (Some(first), Some(last)) = (first, last) else { return Cow::Borrowed(bytes) };
    if head[first..].iter().all(|byte| is_rex(*byte)) {
        return Cow::Borrowed(bytes);
    }
    let legacy = head.iter().copied().filter(|byte| !is_rex(*byte));
    let rexes = head.iter().filter(|byte| is_rex(**byte)).map(|_| head[last]);
    Cow::Owned(legacy.chain(rexes).chain(rest.iter().copied()).collect())
}

/// Extensions of which QEMU's TCG has no instruction that touches memory, whatever the CPU model.
const UNKNOWN: [CpuidFeature; 28] = [
    CpuidFeature::AMX_TILE,
    CpuidFeature::AVX_IFMA,
    CpuidFeature::AVX_NE_CONVERT,
    CpuidFeature::AVX_VNNI,
    CpuidFeature::AVX_VNNI_INT16,
    CpuidFeature::AVX_VNNI_INT8,
    CpuidFeature::AVX512BW,
    CpuidFeature::AVX512DQ,
    CpuidFeature::AVX512F,
    CpuidFeature::CET_SS,
    CpuidFeature::CLDEMOTE,
    CpuidFeature::ENQCMD,
    CpuidFeature::FMA4,
    CpuidFeature::HRESET,
    CpuidFeature::KL,
    CpuidFeature::LKGS,
    CpuidFeature::LWP,
    CpuidFeature::MOVDIR64B,
    CpuidFeature::MOVDIRI,
    CpuidFeature::PTWRITE,
    CpuidFeature::RAO_INT,
    CpuidFeature::SM3,
    CpuidFeature::SM4,
    CpuidFeature::VMX,
    CpuidFeature::WIDE_KL,
    CpuidFeature::XOP,
    CpuidFeature::XSAVEC,
    CpuidFeature::XSAVES,
];

/// Whether it is an invalid opcode to QEMU: it touches nothing. AVX-512's own encoding is left to be foreseen, for a QEMU that knows it.
pub fn is_unknown(instruction: &Instruction) -> bool {
    // There QEMU takes the first byte for `les` or `lds`, of a register.
    let is_no_vex = instruction.encoding() == EncodingKind::VEX && instruction.code_size() == CodeSize::Code16;
    // A call of a hypervisor is invalid to QEMU too, and may be a request of the guest's all the same.
    if instruction.mnemonic() == Mnemonic::Vmcall {
        return false;
    }
    let mut features = instruction.cpuid_features().iter();
    is_no_vex || instruction.encoding() != EncodingKind::EVEX && features.any(|feature| UNKNOWN.contains(feature))
}

/// Whether it takes privilege level 0, without which it is a fault before it touches anything.
pub fn is_for_the_kernel(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{Lgdt, Lidt, Lldt, Lmsw, Ltr};
    matches!(mnemonic, Lgdt | Lidt | Lldt | Lmsw | Ltr)
}

/// `movbe` and `crc32` in 16-bit code: QEMU takes the operand-size prefix for 16 bits there too, and its absence for 32.
pub fn size_in_16_bit_code(code: Code) -> Option<usize> {
    match code {
        Code::Movbe_r16_m16 | Code::Movbe_m16_r16 | Code::Crc32_r32_rm16 => Some(4),
        Code::Movbe_r32_m32 | Code::Movbe_m32_r32 | Code::Crc32_r32_rm32 => Some(2),
        _ => None,
    }
}

/// Whether QEMU reads as many bytes as the first register has, where the instruction needs fewer.
pub fn reads_whole_register(mnemonic: Mnemonic) -> bool {
    use Mnemonic::{
        Cvtdq2pd, Punpcklbw, Punpckldq, Punpcklwd, Vcvtdq2pd, Vfmadd132sd, Vfmadd132ss, Vfmadd213sd, Vfmadd213ss,
        Vfmadd231sd, Vfmadd231ss, Vfmsub132sd, Vfmsub132ss, Vfmsub213sd, Vfmsub213ss, Vfmsub231sd, Vfmsub231ss,
        Vfnmadd132sd, Vfnmadd132ss, Vfnmadd213sd, Vfnmadd213ss, Vfnmadd231sd, Vfnmadd231ss, Vfnmsub132sd, Vfnmsub132ss,
        Vfnmsub213sd, Vfnmsub213ss, Vfnmsub231sd, Vfnmsub231ss, Vinsertf128, Vinserti128, Vpslld, Vpsllq, Vpsllw,
        Vpsrad, Vpsraw, Vpsrld, Vpsrlq, Vpsrlw,
    };
    let multiplies_and_adds = matches!(
        mnemonic,
        Vfmadd132sd
            | Vfmadd132ss
            | Vfmadd213sd
            | Vfmadd213ss
            | Vfmadd231sd
            | Vfmadd231ss
            | Vfmsub132sd
            | Vfmsub132ss
            | Vfmsub213sd
            | Vfmsub213ss
            | Vfmsub231sd
            | Vfmsub231ss
            | Vfnmadd132sd
            | Vfnmadd132ss
            | Vfnmadd213sd
            | Vfnmadd213ss
            | Vfnmadd231sd
            | Vfnmadd231ss
            | Vfnmsub132sd
            | Vfnmsub132ss
            | Vfnmsub213sd
            | Vfnmsub213ss
            | Vfnmsub231sd
            | Vfnmsub231ss
    );
    let shifts = matches!(mnemonic, Vpslld | Vpsllq | Vpsllw | Vpsrad | Vpsraw | Vpsrld | Vpsrlq | Vpsrlw);
    let converts = matches!(mnemonic, Cvtdq2pd | Vcvtdq2pd);
    let joins = matches!(mnemonic, Punpcklbw | Punpckldq | Punpcklwd | Vinsertf128 | Vinserti128);
    multiplies_and_adds || shifts || converts || joins
}
