//! The hash of flow and MAC keys: keyed at start, so that nobody outside can choose keys that collide, and non-linear, so
//! that one collision found does not give others (as it does with CRC).

/// The secret of one table.
#[derive(Clone, Copy)]
pub struct HashKey([u64; 3]);

impl HashKey {
    /// A fresh secret from the kernel.
    pub fn random() -> std::io::Result<Self> {
        let mut words = [0; 3];
        for word in &mut words {
            *word = getrandom::u64().map_err(std::io::Error::other)?;
        }
        Ok(Self(words))
    }

    /// The hash of two words: two folded 128-bit products, each of secret operands.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, a: u64, b: u64) -> u64 {
        let [k0, k1, k2] = self.0;
        // Forced odd, so that the second product never collapses to zero.
        fold(fold(a ^ k0, b ^ k1) ^ a, k2 | 1)
    }
}

impl std::fmt::Debug for HashKey {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("HashKey(secret)")
    }
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_and_so_do_hashes() {
        let (one, two) = (HashKey::random().unwrap(), HashKey::random().unwrap());
        assert_ne!(one.hash(1, 2), two.hash(1, 2));
        assert_eq!(one.hash(1, 2), one.hash(1, 2));
    }

    /// Neighbouring keys, as MAC addresses and port numbers are, must fill buckets evenly.
    #[test]
    fn neighbouring_keys_spread() {
        let key = HashKey::random().unwrap();
        let mut buckets = vec![0u32; 1024];
        for a in 0..256u64 {
            for b in 0..256u64 {
                buckets[key.hash(a | 0x5254 << 32, b << 16) as usize % 1024] += 1;
            }
        }
        // 64 expected, deviation 8: eight deviations off would be a broken hash.
        assert!(buckets.iter().all(|&count| (1..=128).contains(&count)), "{:?}", buckets.iter().minmax());
    }

    trait MinMax {
        fn minmax(self) -> (u32, u32);
    }
    impl<'a, I: Iterator<Item = &'a u32>> MinMax for I {
        fn minmax(self) -> (u32, u32) {
            self.fold((u32::MAX, 0), |(low, high), &count| (low.min(count), high.max(count)))
        }
    }
}
