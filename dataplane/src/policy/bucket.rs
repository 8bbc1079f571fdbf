//! Token buckets: integer arithmetic on the time-stamp counter.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use ringway_config::{RateLimit, RateUnit};

/// The dearest that is ever taken at once: a frame of 64 KiB with its headers, or all segments of one.
const COST_MAX: u64 = 1 << 17;

/// A bucket that fills with time, up to its depth, and from which each frame takes its cost. A frame passes as long as anything
/// is in it and may leave it in debt: so none is too large for any limit, and the mean is exact.
///
/// Any number of writers, which never wait: a port's queues can be on several workers, and together they get what the port may have.
#[derive(Debug)]
pub struct Bucket {
    /// Parts of a token, by which the bucket fills a tick. There are so many of them that rounding does not matter.
    parts_per_tick: u64,
    /// A token is `1 << shift` parts.
    shift: u32,
    depth: i64,
    /// Parts in it; negative in debt.
    level: AtomicI64,
    /// When it was last filled, in ticks of the time-stamp counter.
    filled: AtomicU64,
}

impl Bucket {
    /// A full bucket of `burst` tokens, to which `per_second` are added a second of `ticks_per_second` ticks. Neither is 0.
    #[must_use]
    pub fn new(per_second: u64, burst: u64, ticks_per_second: u64, now: u64) -> Self {
        // Depth and debt stay below 2^62.
        let shift = 62 - (u64::BITS - (burst + COST_MAX).leading_zeros());
        let parts = (u128::from(per_second) << shift) / u128::from(ticks_per_second.max(1));
        let depth = (burst as i64) << shift;
        Self {
            parts_per_tick: u64::try_from(parts).unwrap_or(u64::MAX).max(1),
            shift,
            depth,
            level: AtomicI64::new(depth),
            filled: AtomicU64::new(now),
        }
    }

    /// Parts that were added since somebody last asked: each tick is given to one of those who ask.
    fn accrued(&self, now: u64) -> u128 {
        // Another core's counter may be a little behind.
        let elapsed = now.saturating_sub(self.filled.fetch_max(now, Ordering::Relaxed));
        u128::from(elapsed) * u128::from(self.parts_per_tick)
    }

    /// A level after `more` parts.
    fn filled_up(&self, level: i64, more: u128) -> i64 {
        if more >= u128::from(self.depth.abs_diff(level)) { self.depth } else { level + more as i64 }
    }

    fn update(&self, mut next: impl FnMut(i64) -> i64) {
        let _ = self.level.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |level| Some(next(level)));
    }

    /// Takes one; whether there was any.
    #[must_use]
    pub fn take(&self, now: u64) -> bool {
        self.take_each(now, 1, |_| 1) != 0
    }

    /// Takes the cost of each frame of `mask`, in order; those that may pass.
    pub fn take_each(&self, now: u64, mask: u32, cost: impl Fn(usize) -> u64) -> u32 {
        let (more, mut pass) = (self.accrued(now), 0);
        self.update(|level| {
            let (mut level, mut left) = (self.filled_up(level, more), mask);
            pass = 0;
            while left != 0 {
                let index = left.trailing_zeros();
                left &= left - 1;
                if level > 0 {
                    level -= (cost(index as usize).min(COST_MAX) as i64) << self.shift;
                    pass |= 1 << index;
                }
            }
            level
        });
        pass
    }

    /// Gives back what was taken for frames that come again.
    pub fn give_back(&self, tokens: u64) {
        let more = u128::from(tokens.min(COST_MAX * 32)) << self.shift;
        self.update(|level| self.filled_up(level, more));
    }
}

/// A bucket, and what its tokens are.
#[derive(Debug)]
pub struct Limit {
    bucket: Bucket,
    unit: RateUnit,
}

impl Limit {
    /// What `limit` says, full.
    #[must_use]
    pub fn new(limit: &RateLimit, ticks_per_second: u64, now: u64) -> Self {
        Self { bucket: Bucket::new(limit.per_second, limit.burst, ticks_per_second, now), unit: limit.unit }
    }

    /// What a frame of `len` bytes costs that becomes `segments`.
    #[must_use]
    pub fn cost(&self, len: u32, segments: usize) -> u64 {
        match self.unit {
            RateUnit::Frames => segments.max(1) as u64,
            RateUnit::Bytes => u64::from(len),
        }
    }

    /// Takes the cost of each frame of `mask`, in order, of which `frame` says length and segments; those that may pass.
    pub fn take_each(&self, now: u64, mask: u32, frame: impl Fn(usize) -> (u32, usize)) -> u32 {
        self.bucket.take_each(now, mask, |index| {
            let (len, segments) = frame(index);
            self.cost(len, segments)
        })
    }

    /// Gives back what was taken for frames that come again.
    pub fn give_back(&self, tokens: u64) {
        self.bucket.give_back(tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HZ: u64 = 2_400_000_000;

    #[test]
    fn a_burst_then_the_rate() {
        let bucket = Bucket::new(1000, 50, HZ, 0);
        assert_eq!((0..200).filter(|_| bucket.take(0)).count(), 50);
        // Ten thousandths of a second later there are ten more, or part of an eleventh.
        assert!((10..=11).contains(&(0..200).filter(|_| bucket.take(HZ / 100 + 10)).count()));
        // It never holds more than its depth.
        assert_eq!((0..200).filter(|_| bucket.take(HZ * 1000)).count(), 50);
        // A clock that goes back gives nothing.
        assert!(!bucket.take(0));
    }

    #[test]
    fn frames_larger_than_the_burst_pass_at_the_rate() {
        let limit = RateLimit { unit: RateUnit::Bytes, per_second: 65_536, burst: 100 };
        let limit = Limit::new(&limit, HZ, 0);
        let passes = |now| limit.take_each(now, 1, |_| (65_536, 0)) != 0;
        assert!(passes(0) && !passes(HZ / 2) && passes(HZ + 10));
        limit.give_back(65_536);
        assert!(passes(HZ + 20));
    }

    /// Several workers take from one bucket: together as much as one would have got, and not a frame more.
    #[test]
    fn workers_share_a_bucket() {
        const THREADS: u64 = 3;
        const STEPS: u64 = 60_000;
        const STEP: u64 = 7_000;
        let (per_second, burst) = (2_000_000u64, 100u64);
        let (bucket, clock) = (Bucket::new(per_second, burst, HZ, 0), AtomicU64::new(0));
        let worker = || {
            let (mut passed, mut back) = (0u64, 0u64);
            for step in 0..STEPS {
                let now = clock.fetch_add(STEP, Ordering::Relaxed) + STEP;
                let pass = u64::from(bucket.take_each(now, u32::MAX, |_| 1).count_ones());
                passed += pass;
                if step % 16 == 0 {
                    bucket.give_back(pass);
                    back += pass;
                }
            }
            passed - back
        };
        let passed: u64 = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let most = per_second * (THREADS * STEPS * STEP) / HZ + burst;
        // A step adds six, and a call takes all there is: hardly anything is left over, and nothing is taken twice.
        assert!(passed <= most + 1 && passed + 2 * burst >= most, "{passed} of {most}");
    }

    #[test]
    fn the_mask_says_who_passes() {
        let bucket = Bucket::new(1, 3, HZ, 0);
        assert_eq!(bucket.take_each(0, 0b1011_0100, |_| 1), 0b0011_0100);
        let bucket = Bucket::new(1, 3, HZ, 0);
        assert_eq!(bucket.take_each(0, u32::MAX, |index| if index == 0 { 3 } else { 1 }), 1);
    }

    proptest! {
        /// Over any time, no more passes than the burst and the rate allow, and, asked often, hardly less.
        #[test]
        fn the_mean_is_the_rate(
            per_second in 1u64..2_000_000_000_000,
            burst in 1u64..1_000_000_000_000,
            cost in 1u64..66_000,
            steps in proptest::collection::vec(1u64..20_000_000, 1..300),
        ) {
            let bucket = Bucket::new(per_second, burst, HZ, 0);
            let (mut now, mut passed) = (0u64, 0u128);
            for step in steps {
                now += step;
                passed += u128::from(bucket.take_each(now, u32::MAX, |_| cost).count_ones()) * u128::from(cost);
            }
            let most = u128::from(per_second) * u128::from(now) / u128::from(HZ) + u128::from(burst) + u128::from(cost);
            prop_assert!(passed <= most, "{passed} of {most}");
        }

        /// A slow bucket that is asked all the time loses nothing to rounding.
        #[test]
        fn rounding_does_not_matter(per_second in 1u64..1000, step in 50u64..5000) {
            let bucket = Bucket::new(per_second, 1, HZ, 0);
            let _ = bucket.take(0);
            let asked = (HZ / per_second).div_ceil(step) * 101 / 100 + 2;
            // Without a loop of millions: what each asking adds is the same.
            let added = u128::from(step) * u128::from(bucket.parts_per_tick) * u128::from(asked);
            prop_assert!(added >= 1 << bucket.shift);
        }
    }
}
