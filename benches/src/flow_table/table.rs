//! What is measured: a table from keys of `N` words to a word, behind one face.

use anyhow::Result;

/// Keys a lookup takes at a time: the worker's burst.
pub(crate) const BATCH: usize = 32;

/// A key: `N` words, that is 8 · `N` bytes.
pub(crate) type Key<const N: usize> = [u64; N];

/// What a batch of lookups found: how many, and the sum of their data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) hits: u64,
    pub(crate) sum: u64,
}

/// Looks up at most [`BATCH`] keys.
pub(crate) type Lookup<'a, const N: usize> = &'a mut dyn FnMut(&[Key<N>]) -> Found;

/// A table, as its one writer has it.
pub(crate) trait Table<const N: usize>: Send {
    /// Whether there was room.
    fn insert(&mut self, key: &Key<N>, datum: u64) -> bool;
    /// Whether it was there.
    fn delete(&mut self, key: &Key<N>) -> bool;
    /// Deletes at most [`BATCH`] keys; how many were there. One by one, where the table has no better way.
    fn delete_batch(&mut self, keys: &[Key<N>]) -> u64 {
        keys.iter().map(|key| u64::from(self.delete(key))).sum()
    }
    /// Hands the writer's own lookup to `measure`: what a worker does that owns its table.
    fn look_up(&self, measure: &mut dyn FnMut(Lookup<'_, N>));
    /// For a thread that reads while this one writes. None where that is impossible.
    fn reader(&self) -> Option<Box<dyn Reader<N>>>;
    /// Bytes that it has taken for all of its flows, where it can tell.
    fn bytes(&self) -> Option<u64>;
}

/// A table, as a thread that only reads has it.
pub(crate) trait Reader<const N: usize>: Send {
    /// Hands this thread's lookup to `measure`.
    fn look_up(&self, measure: &mut dyn FnMut(Lookup<'_, N>));
}

/// What takes part.
pub(crate) struct Contender<const N: usize> {
    pub(crate) name: &'static str,
    /// Makes an empty table with room for so many flows.
    pub(crate) make: fn(usize, Pages) -> Result<Box<dyn Table<N>>>,
}

/// What the tables are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Pages {
    /// 2 MiB.
    Huge,
    /// 4 KiB.
    Small,
}
