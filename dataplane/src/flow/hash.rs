//! The hash of flow and MAC keys: keyed at start, so that nobody outside can choose keys that collide, and non-linear, so
//! that one collision found does not give others (as it does with CRC).

/// Words that can be hashed at most.
const WORDS_MAX: usize = 6;

/// The secret of one table: a word for each word of a key, and one for the end.
#[derive(Clone, Copy)]
pub struct HashKey([u64; WORDS_MAX + 1]);

impl HashKey {
    /// A fresh secret from the kernel.
    pub fn random() -> std::io::Result<Self> {
        let mut words = [0; WORDS_MAX + 1];
        for word in &mut words {
            *word = getrandom::u64().map_err(std::io::Error::other)?;
        }
        Ok(Self(words))
    }

    /// The hash of two words.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, a: u64, b: u64) -> u64 {
        self.hash_words([a, b])
    }

    /// The hash of some words: each pair is folded by a 128-bit product whose operands are both secret, and so is their sum, with
    /// the word that is left of an odd number of them.
    #[inline(always)]
    #[must_use]
    pub fn hash_words<const N: usize>(&self, words: [u64; N]) -> u64 {
        const { assert!(N > 1 && N <= WORDS_MAX) };
        let mut sum = words[0];
        for pair in 0..N / 2 {
            let (first, second) = (pair * 2, pair * 2 + 1);
            sum ^= fold(words[first] ^ self.0[first], words[second] ^ self.0[second]);
        }
        // Without a word that is left it is forced odd, so that the last product never collapses to zero.
        fold(sum, if N.is_multiple_of(2) { self.0[WORDS_MAX] | 1 } else { words[N - 1] ^ self.0[WORDS_MAX] })
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

    /// Of 2^14 keys, pairs that fall into one of 2^20 buckets under `hash`.
    fn collisions(hash: impl Fn([u64; 2]) -> u64) -> Vec<([u64; 2], [u64; 2])> {
        let mut buckets = std::collections::HashMap::new();
        let keys = (0..1u64 << 14).map(|number| [number << 8 | 0x52, number.wrapping_mul(0x1234_5677)]);
        keys.filter_map(|key| Some((buckets.insert(hash(key) & 0xf_ffff, key)?, key))).collect()
    }

    /// How many of these pairs collide as well when some bits of both keys are turned, or under another secret.
    fn kept(pairs: &[([u64; 2], [u64; 2])], hash: impl Fn([u64; 2]) -> u64, turn: [u64; 2]) -> usize {
        let hash = |key: [u64; 2]| hash([key[0] ^ turn[0], key[1] ^ turn[1]]) & 0xf_ffff;
        pairs.iter().filter(|(one, other)| hash(*one) == hash(*other)).count()
    }

    /// CRC32c, bit by bit: linear, so its start value makes no difference to which keys collide.
    fn crc(start: u32, key: [u64; 2]) -> u64 {
        let step = |crc: u32, byte: u8| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 0 { 0 } else { 0x82f6_3b78 })
        };
        key.iter().flat_map(|word| word.to_le_bytes()).fold(start, step).into()
    }

    /// Whoever has found keys that collide, in a table of his own or in ours, has found nothing for other keys or other tables.
    #[test]
    fn collisions_are_of_no_use() {
        let (one, two) = (HashKey::random().unwrap(), HashKey::random().unwrap());
        let pairs = collisions(|key| one.hash_words(key));
        assert!((60..250).contains(&pairs.len()), "some 128 by chance, there are {}", pairs.len());
        assert!(kept(&pairs, |key| two.hash_words(key), [0; 2]) <= 2, "under another secret");
        for turn in [[1, 0], [0, 1 << 47], [1 << 63, 1 << 63], [0xff << 8, 0]] {
            assert!(kept(&pairs, |key| one.hash_words(key), turn) <= 2, "turned by {turn:x?}");
        }
        // That this would have been noticed: the hash that it must not be fails both.
        let pairs = collisions(|key| crc(1, key));
        assert!(pairs.len() > 10);
        assert_eq!(kept(&pairs, |key| crc(2, key), [0; 2]), pairs.len());
        assert_eq!(kept(&pairs, |key| crc(1, key), [0xff << 8, 0]), pairs.len());
    }

    #[test]
    fn every_word_counts() {
        let key = HashKey::random().unwrap();
        let words = [3, 1, 4, 1, 5];
        for word in 0..5 {
            for bit in 0..64 {
                let mut other = words;
                other[word] ^= 1 << bit;
                assert_ne!(key.hash_words(words), key.hash_words(other), "bit {bit} of word {word}");
            }
        }
        assert_eq!(key.hash(8, 9), key.hash_words([8, 9]));
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
