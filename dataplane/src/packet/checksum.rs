//! The Internet checksum (RFC 1071): the ones' complement sum of 16-bit words, taken piece by piece.

/// Bytes that [`sum_block`] takes at a time.
pub const BLOCK: usize = 64;

/// A running sum over bytes that come in pieces of any length, odd ones too.
#[derive(Clone, Copy, Debug, Default)]
pub struct InternetSum {
    /// Of words as memory holds them: the sum does not care for byte order until it is read (RFC 1071, section 2 (B)).
    words: u64,
    /// The next byte is the second of its word.
    odd: bool,
}

impl InternetSum {
    /// Goes on with `bytes`.
    pub fn add(&mut self, bytes: &[u8]) {
        let (blocks, tail) = bytes.as_chunks::<BLOCK>();
        let mut words = blocks.iter().map(sum_block).sum();
        let (halves, tail) = tail.as_chunks::<4>();
        for half in halves {
            words += u64::from(u32::from_ne_bytes(*half));
        }
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(tail) {
            *to = *from;
        }
        words += u64::from(u32::from_ne_bytes(last));
        self.append(words, bytes.len());
    }

    /// Goes on with `len` bytes of which only the sum is known, as [`sum_block`] makes it.
    #[inline]
    pub fn append(&mut self, words: u64, len: usize) {
        let word = fold(words);
        // Every byte lies in the other half of its word then.
        self.words += u64::from(if self.odd { word.swap_bytes() } else { word });
        self.odd ^= !len.is_multiple_of(2);
    }

    /// Goes on with a number of two bytes in network order; at an even place only.
    pub fn add_number(&mut self, number: u16) {
        self.words += u64::from(number.to_be());
    }

    /// The sum, not complemented: what a checksum field holds of a pseudo header.
    #[must_use]
    pub fn sum(self) -> u16 {
        u16::from_be(fold(self.words))
    }

    /// The checksum.
    #[must_use]
    pub fn checksum(self) -> u16 {
        !self.sum()
    }
}

/// The sum of a block, to be added to others and given to [`InternetSum::append`]: 2^32 of them do not overflow.
#[inline(always)]
#[must_use]
pub fn sum_block(block: &[u8; BLOCK]) -> u64 {
    let (halves, _) = block.as_chunks::<4>();
    halves.iter().map(|half| u64::from(u32::from_ne_bytes(*half))).sum()
}

/// To 16 bits, with the carries added in.
#[inline]
fn fold(words: u64) -> u16 {
    let mut words = (words >> 32) + (words & 0xffff_ffff);
    while words > 0xffff {
        words = (words >> 16) + (words & 0xffff);
    }
    words as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As RFC 1071 writes it down.
    fn by_the_book(bytes: &[u8]) -> u16 {
        let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)));
        let sum = words.fold(0u32, |sum, word| {
            let sum = sum + word;
            (sum & 0xffff) + (sum >> 16)
        });
        !(sum as u16)
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let mut sum = InternetSum::default();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!((sum.sum(), sum.checksum()), (0xddf2, 0x220d));
    }

    proptest! {
        #[test]
        fn pieces_of_any_length_add_up(bytes in proptest::collection::vec(any::<u8>(), 0..700), cuts: [usize; 4]) {
            let mut cuts = cuts.map(|cut| cut % (bytes.len() + 1));
            cuts.sort_unstable();
            let mut sum = InternetSum::default();
            let mut from = 0;
            for to in cuts.into_iter().chain([bytes.len()]) {
                sum.add(&bytes[from..to]);
                from = to;
            }
            prop_assert_eq!(sum.checksum(), by_the_book(&bytes));
        }

        #[test]
        fn a_number_is_its_two_bytes(bytes: [u8; 8], number: u16) {
            let (mut one, mut other) = (InternetSum::default(), InternetSum::default());
            one.add(&bytes);
            one.add_number(number);
            other.add(&[&bytes[..], &number.to_be_bytes()].concat());
            prop_assert_eq!(one.sum(), other.sum());
        }

        #[test]
        fn large_sums_do_not_overflow(len in 65_000usize..65_600) {
            let mut sum = InternetSum::default();
            sum.add(&vec![0xff; len & !1]);
            prop_assert_eq!(sum.sum(), 0xffff);
        }
    }
}
