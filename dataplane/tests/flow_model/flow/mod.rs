//! What surrounds the table in `src/flow`, as far as the table needs it.

#[path = "../../../src/flow/table/mod.rs"]
pub(crate) mod table;

/// What `flow::hash` is, but the same in every run: loom repeats them.
#[derive(Debug)]
pub(crate) struct HashKey;

impl HashKey {
    pub(crate) fn random() -> std::io::Result<Self> {
        Ok(Self)
    }

    pub(crate) fn hash_words<const N: usize>(&self, words: [u64; N]) -> u64 {
        words.iter().fold(0, |hash, word| (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23))
    }
}

pub(crate) mod atomics {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
}

pub(crate) mod memory {
    /// What `flow::memory` is, without its pages.
    #[derive(Debug)]
    pub(crate) struct Lines<T>(Box<[T]>);

    impl<T> Lines<T> {
        pub(crate) fn new(count: usize, make: impl Fn() -> T) -> std::io::Result<Self> {
            Ok(Self((0..count).map(|_| make()).collect()))
        }

        pub(crate) fn is_huge(&self) -> bool {
            false
        }
    }

    impl<T> std::ops::Deref for Lines<T> {
        type Target = [T];

        fn deref(&self) -> &[T] {
            &self.0
        }
    }
}
