//! A digest of bytes: 64 bits by folded multiplication, 16 bytes at a time; a page takes some hundred nanoseconds. It tells contents
//! apart that differ by mistake. Without keys of one's own it is no defence against somebody who makes two contents look equal.

/// The keys of digests that stand in files: drawn by lot. No known constants, which stand in guests' memory: those of SHA-512 do in each Linux.
const FIXED: [u64; 2] = [0x9ad1_7c3e_58f0_2b65, 0xd483_6ef9_014c_a71d];

/// The digest of some bytes, the same in every process.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    keyed_digest(FIXED, bytes)
}

/// The digest of some bytes under these keys. The last part of fewer than 16 bytes is filled up with zeros, and the number of bytes
/// counts as well.
#[must_use]
pub fn keyed_digest([first, second]: [u64; 2], bytes: &[u8]) -> u64 {
    let (parts, rest) = bytes.as_chunks::<16>();
    let fold = |digest: u64, part: &[u8; 16]| {
        let [low, high] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|byte| part[at + byte])));
        let (one, other) = (low ^ digest, high ^ second);
        let product = u128::from(one) * u128::from(other);
        // The halves of the product.
        #[allow(clippy::cast_possible_truncation, reason = "each half is 64 bits")]
        let (upper, lower) = ((product >> 64) as u64, product as u64);
        // What stood before and one half are added: a part whose other half is the key makes a product of 0, which would hide them.
        (upper ^ lower).wrapping_add(digest.rotate_left(32) ^ low)
    };
    let digest = parts.iter().fold(first ^ bytes.len() as u64, fold);
    if rest.is_empty() {
        return digest;
    }
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    fold(digest, &last)
}

#[cfg(test)]
mod tests {
    use super::{FIXED, digest};

    #[test]
    fn contents_that_differ_in_a_bit_in_their_length_or_in_their_order_have_other_digests() {
        let page = [0u8; 4096];
        for at in [0, 7, 8, 15, 16, 4095] {
            let mut other = page;
            other[at] = 1;
            assert_ne!(digest(&page), digest(&other), "{at}");
        }
        assert_ne!(digest(&[0; 3]), digest(&[0; 4]));
        let (mut one, mut other) = ([0; 32], [0; 32]);
        (one[0], other[16]) = (1, 1);
        assert_ne!(digest(&one), digest(&other));
    }

    /// A part that made a product of 0 made all that stood before it as good as absent: a saved Linux that was damaged looked whole.
    #[test]
    fn no_part_hides_what_stands_before_it_or_in_it() {
        let constants = [0x6a09_e667_f3bc_c908, 0xbb67_ae85_84ca_a73b, FIXED[0], FIXED[1]];
        for (low, high) in constants.into_iter().flat_map(|low| constants.map(|high| (low, high))) {
            let mut bytes = [7u8; 64];
            bytes[32..40].copy_from_slice(&u64::to_le_bytes(low));
            bytes[40..48].copy_from_slice(&u64::to_le_bytes(high));
            for at in 0..64 {
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
