//! Keys that collide under a hash that anybody can compute: CRC32C, which DPDK's `rte_hash` and others use unless told otherwise. It
//! is linear, so one needs no search, and neither a seed nor a larger table would help against it.

/// CRC32C (Castagnoli), as the CPU's instruction does it: no inversion.
fn crc32c(seed: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(seed, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 })
    })
}

/// The key of a bridge: port and VLAN are the same for all of them, and so of no matter.
fn hash(to: [u8; 6], from: u64) -> u32 {
    crc32c(crc32c(0, &to), &from.to_le_bytes()[..6])
}

/// So many stations, administered locally, whose frames to `to` have keys of one hash: at most 16,384.
pub(super) fn colliding_sources(to: [u8; 6], count: usize) -> Vec<[u8; 6]> {
    const BASE: u64 = 0x02;
    let of_base = hash(to, BASE);
    // Which bits to change together so that nothing changes: the kernel of a linear map, by elimination. The two lowest bits
    // of the first byte say what kind of address it is.
    let (mut reduced, mut kernel): (Vec<(u32, u64)>, Vec<u64>) = (Vec::new(), Vec::new());
    for bit in 2..48 {
        let mut change = 1u64 << bit;
        let mut effect = hash(to, BASE ^ change) ^ of_base;
        for &(other, with) in &reduced {
            if effect ^ other < effect {
                (effect, change) = (effect ^ other, change ^ with);
            }
        }
        if effect == 0 {
            kernel.push(change);
        } else {
            reduced.push((effect, change));
            reduced.sort_unstable_by(|a, b| b.cmp(a));
        }
    }
    let sum = |index: usize| {
        let chosen = kernel.iter().enumerate().filter(|(bit, _)| index >> bit & 1 != 0);
        chosen.fold(BASE, |sum, (_, change)| sum ^ change)
    };
    let mac = |number: u64| {
        let [a, b, c, d, e, f, ..] = number.to_le_bytes();
        [a, b, c, d, e, f]
    };
    (0..count.min(1 << kernel.len())).map(|index| mac(sum(index))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_hash_is_what_it_is_said_to_be() {
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(!crc32c(!0, &[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn all_collide_and_none_is_another() {
        let to = [2, 0x57, 0, 1, 0, 0];
        let sources = colliding_sources(to, 8000);
        assert_eq!(sources.iter().collect::<HashSet<_>>().len(), 8000);
        let hashes: HashSet<_> = sources.iter().map(|from| crc32c(crc32c(0, &to), from)).collect();
        assert_eq!(hashes.len(), 1);
        assert!(sources.iter().all(|from| from[0] & 3 == 2));
        assert_eq!(colliding_sources(to, usize::MAX).len(), 16_384);
    }
}
