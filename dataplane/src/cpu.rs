//! The few instructions that the data path needs and the language does not offer.
#![expect(unsafe_code, reason = "CPU intrinsics without memory effects")]

/// Asks the CPU to fetch the cache line at `at`; never faults.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is only a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks the CPU to fetch the cache line at `at` no nearer than the second level: that can wait for three times as many lines at a
/// time as the first, which is worth it where most of them come from memory. Never faults.
#[inline(always)]
pub fn prefetch_far(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch is only a hint, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Asks the CPU to fetch the cache line at `at` for writing: away from the core that wrote it last, which saves the second
/// trip that a fetch for reading would leave for the first store. Never faults.
#[inline(always)]
pub fn prefetch_write(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch is only a hint, whatever the address; CPUs that do not know this one take it for a no-op.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// The time-stamp counter: ticks at a constant rate, which [`super::worker::Clock`] measures.
#[inline(always)]
#[must_use]
pub fn timestamp() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads a counter.
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        use std::sync::LazyLock;
        use std::time::Instant;
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        START.elapsed().as_nanos() as u64
    }
}

/// Which of the twelve 16-bit lanes of three words, lowest first, equal `value`; a bit each.
#[inline(always)]
#[must_use]
pub fn equal_lanes(words: [u64; 3], value: u16) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set_epi64x, _mm_set1_epi16};
        let [first, second, third] = words.map(u64::cast_signed);
        // SAFETY: every x86-64 has SSE2; registers only.
        unsafe {
            let value = _mm_set1_epi16(value.cast_signed());
            let low = _mm_cmpeq_epi16(_mm_set_epi64x(second, first), value);
            let high = _mm_cmpeq_epi16(_mm_set_epi64x(0, third), value);
            _mm_movemask_epi8(_mm_packs_epi16(low, high)).cast_unsigned() & 0xfff
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let lane = |index: usize| (words[index / 4] >> (index % 4 * 16)) as u16;
        (0..12).fold(0, |equal, index| equal | u32::from(lane(index) == value) << index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lanes_are_compared_exactly(tags: [u16; 12], tag: u16, copy: u16) {
            let mut tags = tags;
            for (way, value) in tags.iter_mut().enumerate() {
                if copy >> way & 1 == 1 {
                    *value = tag;
                }
            }
            let word = |half: &[u16]| half.iter().rev().fold(0u64, |word, &tag| word << 16 | u64::from(tag));
            let expected = (0..12).filter(|&way| tags[way] == tag).fold(0, |bits, way| bits | 1 << way);
            prop_assert_eq!(equal_lanes([word(&tags[..4]), word(&tags[4..8]), word(&tags[8..])], tag), expected);
        }
    }
}
