//! A digest of bytes: 64 bits by folded multiplication, 16 bytes at a time; a page takes some hundred nanoseconds. It tells contents
//! apart that differ by mistake. Without keys of one's own it is no defence against somebody who makes two contents look equal.

/// The keys of digests that stand in files: drawn by lot. No known constants, which stand in guests' memory: those of SHA-512 do in each Linux.
const FIXED: [u64; 2] = [0x9ad1_7c3e_58f0_2b65, 0xd483_6ef9_014c_a71d];

/// Parts that a keyed digest folds at the same time: a processor multiplies the next while it still waits for one's product.
const CHAINS: usize = 4;
const PART: usize = 16;

/// The digest of some bytes, the same in every process.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let [first, second] = FIXED;
    chain(second, first ^ bytes.len() as u64, bytes)
}

/// A digest of some bytes under these keys, which stands in no file. The number of bytes counts as well.
#[must_use]
pub fn keyed_digest([first, second]: [u64; 2], bytes: &[u8]) -> u64 {
    let begun = first ^ bytes.len() as u64;
    let mut chains: [u64; CHAINS] = std::array::from_fn(|chain| begun.wrapping_add(chain as u64));
    let (groups, rest) = bytes.as_chunks::<{ CHAINS * PART }>();
    for group in groups {
        for (digest, part) in chains.iter_mut().zip(group.as_chunks().0) {
            *digest = fold(second, *digest, part);
        }
    }
    let folded = chains.iter().fold(begun, |digest, of_chain| {
        let part = std::array::from_fn(|at| of_chain.to_le_bytes()[at % 8]);
        fold(second, digest, &part)
    });
    chain(second, folded, rest)
}

/// Folds parts, each into what came of those before; the last one of fewer bytes is filled up with zeros.
fn chain(key: u64, begun: u64, bytes: &[u8]) -> u64 {
    let (parts, rest) = bytes.as_chunks();
    let digest = parts.iter().fold(begun, |digest, part| fold(key, digest, part));
    if rest.is_empty() {
        return digest;
    }
    let mut last = [0; PART];
    last[..rest.len()].copy_from_slice(rest);
    fold(key, digest, &last)
}

fn fold(key: u64, digest: u64, part: &[u8; PART]) -> u64 {
    let [low, high] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|byte| part[at + byte])));
    let (one, other) = (low ^ digest, high ^ key);
    let product = u128::from(one) * u128::from(other);
    // The halves of the product.
    #[allow(clippy::cast_possible_truncation, reason = "each half is 64 bits")]
    let (upper, lower) = ((product >> 64) as u64, product as u64);
    // What stood before and one half are added: a part whose other half is the key makes a product of 0, which would hide them.
    (upper ^ lower).wrapping_add(digest.rotate_left(32) ^ low)
}

#[cfg(test)]
mod tests {
    use super::{FIXED, digest, keyed_digest};

    const DIGESTS: [fn(&[u8]) -> u64; 2] = [digest, |bytes| keyed_digest(FIXED, bytes)];

    #[test]
    fn contents_that_differ_in_a_bit_in_their_length_or_in_their_order_have_other_digests() {
        for digest in DIGESTS {
            let page = [0u8; 4096];
            for at in [0, 7, 8, 15, 16, 4095] {
                let mut other = page;
                other[at] = 1;
                assert_ne!(digest(&page), digest(&other), "{at}");
            }
            assert_ne!(digest(&[0; 3]), digest(&[0; 4]));
            for apart in [16, 32, 48, 64, 80] {
                let (mut one, mut other) = ([0; 128], [0; 128]);
                (one[0], other[apart]) = (1, 1);
                assert_ne!(digest(&one), digest(&other), "{apart}");
            }
        }
    }

    /// A part that made a product of 0 made all that stood before it as good as absent: a saved Linux that was damaged looked whole.
    #[test]
    fn no_part_hides_what_stands_before_it_or_in_it() {
        let constants = [0x6a09_e667_f3bc_c908, 0xbb67_ae85_84ca_a73b, FIXED[0], FIXED[1]];
        for (low, high) in constants.into_iter().flat_map(|low| constants.map(|high| (low, high))) {
            let mut bytes = [7u8; 64];
            bytes[32..40].copy_from_slice(&u64::to_le_bytes(low));
            bytes[40..48].copy_from_slice(&u64::to_le_bytes(high));
            for (at, digest) in (0..64).flat_map(|at| DIGESTS.map(|digest| (at, digest))) {
                let mut other = bytes;
                other[at] ^= 1;
                assert_ne!(digest(&bytes), digest(&other), "byte {at}, {low:#x} {high:#x}");
            }
        }
    }

    #[test]
    fn digests_in_files_are_the_same_for_ever() {
        assert_eq!(digest(b"MEMEVENT"), 0x5aaf_98a5_1f4e_b7a0);
    }
}
