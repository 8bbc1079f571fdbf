//! The keys: random, the same in every run, and queried in another order than they were inserted in.

use super::table::Key;

/// One flow in so many comes and goes; the others stay and are looked up.
const CHURN: usize = 16;

/// Keys that are never there: more would not miss better.
const ABSENT_MAX: usize = 1 << 20;

/// The keys of a table for so many flows.
pub(crate) struct Keys<const N: usize> {
    /// Inserted once and looked up, in this order.
    pub(crate) present: Vec<Key<N>>,
    /// Inserted and deleted.
    pub(crate) churn: Vec<Key<N>>,
    /// Never inserted.
    pub(crate) absent: Vec<Key<N>>,
}

impl<const N: usize> Keys<N> {
    pub(crate) fn of(flows: usize) -> Self {
        let mut random = Random(flows as u64);
        let mut some = |count: usize| (0..count).map(|_| std::array::from_fn(|_| random.next())).collect::<Vec<_>>();
        let churn = flows / CHURN;
        Self { present: some(flows - churn), churn: some(churn), absent: some(flows.min(ABSENT_MAX)) }
    }

    /// All that are inserted, shuffled: a table that gives out its places in order must not be read in that order.
    pub(crate) fn to_insert(&self) -> impl Iterator<Item = &Key<N>> {
        let all = self.present.len() + self.churn.len();
        let mut order: Vec<u32> = (0..all as u32).collect();
        let mut random = Random(1);
        for last in (1..all).rev() {
            order.swap(last, (random.next() % (last as u64 + 1)) as usize);
        }
        order.into_iter().map(|index| {
            let index = index as usize;
            self.present.get(index).unwrap_or_else(|| &self.churn[index - self.present.len()])
        })
    }
}

/// What a table keeps for a key.
pub(crate) fn datum<const N: usize>(key: &Key<N>) -> u64 {
    key[N - 1] >> 40
}

/// SplitMix64, by Sebastiano Vigna: all that is asked of it is not to repeat itself.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn keys_differ_and_all_but_the_absent_are_inserted_once() {
        let keys = Keys::<2>::of(1024);
        assert_eq!((keys.present.len(), keys.churn.len(), keys.absent.len()), (960, 64, 1024));
        let inserted: HashSet<_> = keys.to_insert().collect();
        assert_eq!(inserted.len(), 1024);
        assert!(keys.absent.iter().all(|key| !inserted.contains(key)));
        assert!(keys.present.iter().chain(&keys.churn).all(|key| inserted.contains(key)));
        let in_order = keys.to_insert().zip(&keys.present).filter(|(inserted, queried)| inserted == queried);
        assert!(in_order.count() < 10, "queried as inserted");
    }
}
