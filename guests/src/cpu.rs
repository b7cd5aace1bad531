//! What the processor can do.

use core::arch::x86_64::__cpuid_count;

/// EAX, EBX, ECX and EDX of a CPUID leaf; zero for one that the processor does not have.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let most = leaf_as_it_is(leaf & 0x8000_0000, 0)[0];
    if leaf > most { [0; 4] } else { leaf_as_it_is(leaf, subleaf) }
}

fn leaf_as_it_is(leaf: u32, subleaf: u32) -> [u32; 4] {
    #[allow(unused_unsafe, reason = "it was unsafe in older compilers")]
    // SAFETY: every 64-bit processor has CPUID.
    let found = unsafe { __cpuid_count(leaf, subleaf) };
    [found.eax, found.ebx, found.ecx, found.edx]
}
