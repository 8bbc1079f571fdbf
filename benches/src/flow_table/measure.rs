//! One slice of measurement: how many cycles an operation took.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use ringway::cpu::timestamp;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::keys::{Keys, datum};
use super::table::{BATCH, Found, Key, Lookup, Table};
use crate::machine::LOAD_CPU;

/// Updates a second of a busy writer: flows deleted, and as many inserted. The same for all, so that a table that is quick
/// to write does not pay for it with more traffic between the cores.
pub(crate) const UPDATES_PER_SECOND: u64 = 500_000;

/// Operations between two looks at the clock. Their keys are fetched before: where they come from, the head of a frame that was
/// just received, they are in the nearest cache, and fetching them from a long list would be part of every figure.
const CHUNK: usize = 512;
const UPDATE_CHUNK: usize = 256;

/// Lookups and updates of a slice at least and at most; of a small table, several times each key.
const LOOKUPS: std::ops::RangeInclusive<usize> = 1 << 18..=1 << 21;
const UPDATES: std::ops::RangeInclusive<usize> = 1 << 12..=1 << 16;

/// Lookups before the clock counts, at most: what other tables have pushed out of the caches comes back.
const WARM_UP_MAX: usize = 1 << 20;

/// Where the next slice goes on, so that each looks at other keys than the one before.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Place {
    present: usize,
    absent: usize,
}

/// Cycles a lookup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lookups {
    pub(crate) hit: f64,
    pub(crate) miss: f64,
    /// Keys that were there and were not found, of all that were asked for: a cache may lose some.
    pub(crate) lost: f64,
}

/// Cycles an update.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Updates {
    pub(crate) insert: f64,
    pub(crate) delete: f64,
}

/// How flows are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deleting {
    /// A batch at a time, as they are looked up.
    Batches,
    OneByOne,
}

/// Lookups by the thread that writes, which does not do so meanwhile.
pub(crate) fn idle<const N: usize>(table: &dyn Table<N>, keys: &Keys<N>, place: &mut Place) -> Result<Lookups> {
    let mut measured = None;
    table.look_up(&mut |lookup| measured = Some(lookups(lookup, keys, place)));
    measured.context("nothing was looked up")?
}

/// Lookups while another thread, on another CPU, writes. None where that is impossible, or was not done fast enough.
pub(crate) fn busy<const N: usize>(
    table: &mut dyn Table<N>,
    keys: &Keys<N>,
    place: &mut Place,
    tsc_hz: f64,
) -> Result<Option<Lookups>> {
    let Some(reader) = table.reader() else { return Ok(None) };
    let (stop, updates) = (AtomicBool::new(false), AtomicU64::new(0));
    let (measured, rate) = thread::scope(|scope| {
        let writer = scope.spawn(|| churn(table, &keys.churn, tsc_hz, &stop, &updates));
        while updates.load(Ordering::Relaxed) == 0 && !writer.is_finished() {
            std::hint::spin_loop();
        }
        let (begun, before) = (timestamp(), updates.load(Ordering::Relaxed));
        let mut measured = None;
        reader.look_up(&mut |lookup| measured = Some(lookups(lookup, keys, place)));
        let done = updates.load(Ordering::Relaxed) - before;
        let seconds = timestamp().wrapping_sub(begun) as f64 / tsc_hz;
        stop.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("the writer failed"))??;
        Ok::<_, anyhow::Error>((measured.context("nothing was looked up")??, done as f64 / seconds))
    })?;
    if rate < UPDATES_PER_SECOND as f64 * 0.9 {
        eprintln!("the writer did only {rate:.0} updates a second: what was read meanwhile does not count");
        return Ok(None);
    }
    Ok(Some(measured))
}

/// Replaces flows at an even pace until told to stop; afterwards all of them are there.
fn churn<const N: usize>(
    table: &mut dyn Table<N>,
    keys: &[Key<N>],
    tsc_hz: f64,
    stop: &AtomicBool,
    updates: &AtomicU64,
) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(LOAD_CPU);
    sched_setaffinity(None, &set)?;
    let period = (tsc_hz / UPDATES_PER_SECOND as f64) as u64;
    let mut next = timestamp();
    // A reader that was stopped by somebody else may hold all that the table has to spare.
    let mut refused = Vec::new();
    for (count, key) in (1..).zip(keys.iter().cycle()) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        while timestamp().wrapping_sub(next) as i64 <= 0 {
            std::hint::spin_loop();
        }
        next = next.wrapping_add(period);
        table.delete(key);
        if !table.insert(key, datum(key)) {
            refused.push(key);
        }
        updates.store(count, Ordering::Relaxed);
    }
    let missing = refused.into_iter().filter(|key| !table.insert(key, datum(key))).count();
    ensure!(missing == 0, "no room for {missing} flows that were there before");
    Ok(())
}

fn lookups<const N: usize>(lookup: Lookup<'_, N>, keys: &Keys<N>, place: &mut Place) -> Result<Lookups> {
    let (hit, found) = slice(lookup, &keys.present, &mut place.present);
    let lost = found.lost();
    ensure!(lost < 0.05, "{:.1} % of the keys were not found", lost * 100.0);
    let (miss, found) = slice(lookup, &keys.absent, &mut place.absent);
    ensure!(found.found.hits == 0, "found {} keys that are not there", found.found.hits);
    Ok(Lookups { hit, miss, lost })
}

struct Asked {
    keys: usize,
    found: Found,
}

impl Asked {
    fn lost(&self) -> f64 {
        1.0 - self.found.hits as f64 / self.keys as f64
    }
}

/// Looks keys up in their order, from where the last slice ended. Cycles a key.
fn slice<const N: usize>(lookup: Lookup<'_, N>, keys: &[Key<N>], place: &mut usize) -> (f64, Asked) {
    let mut near = [[0; N]; CHUNK];
    let mut asked = Asked { keys: 0, found: Found::default() };
    let mut chunk = || {
        for batch in near.chunks_exact_mut(BATCH) {
            if *place + BATCH > keys.len() {
                *place = 0;
            }
            batch.copy_from_slice(&keys[*place..*place + BATCH]);
            *place += BATCH;
        }
        let begun = timestamp();
        for batch in near.chunks_exact(BATCH) {
            let found = lookup(batch);
            asked.keys += BATCH;
            asked.found.hits += found.hits;
            asked.found.sum = asked.found.sum.wrapping_add(found.sum);
        }
        timestamp().wrapping_sub(begun)
    };
    for _ in 0..keys.len().min(WARM_UP_MAX).div_ceil(CHUNK) {
        chunk();
    }
    let count = (keys.len() * 4).clamp(*LOOKUPS.start(), *LOOKUPS.end());
    let chunks = (0..count / CHUNK).map(|_| chunk()).collect();
    (settled(chunks, CHUNK), asked)
}

/// Deletes flows and inserts them again.
pub(crate) fn updates<const N: usize>(
    table: &mut dyn Table<N>,
    keys: &[Key<N>],
    from: &mut usize,
    deleting: Deleting,
) -> Result<Updates> {
    let count = keys.len().clamp(*UPDATES.start(), *UPDATES.end());
    let chunk = UPDATE_CHUNK.min(keys.len());
    let (mut inserts, mut deletes, mut missing) = (Vec::new(), Vec::new(), 0u64);
    let (mut done, mut near) = (0, vec![[0; N]; chunk]);
    while done < count {
        // As many at a time as there are, so that a delete and its insert are as far apart as can be.
        let first = *from;
        let chunks = (keys.len() / chunk).min((count - done).div_ceil(chunk));
        let part = |index: usize| {
            let start = (first + index * chunk) % (keys.len() / chunk * chunk);
            &keys[start..start + chunk]
        };
        for index in 0..chunks {
            near.copy_from_slice(part(index));
            let begun = timestamp();
            let there: u64 = match deleting {
                Deleting::Batches => near.chunks(BATCH).map(|batch| table.delete_batch(batch)).sum(),
                Deleting::OneByOne => near.iter().map(|key| u64::from(table.delete(key))).sum(),
            };
            deletes.push(timestamp().wrapping_sub(begun));
            missing += chunk as u64 - there;
        }
        for index in 0..chunks {
            near.copy_from_slice(part(index));
            let begun = timestamp();
            let inserted = near.iter().all(|key| table.insert(key, datum(key)));
            inserts.push(timestamp().wrapping_sub(begun));
            ensure!(inserted, "no room for a flow that was there before");
        }
        *from = (first + chunks * chunk) % (keys.len() / chunk * chunk);
        done += chunks * chunk;
    }
    ensure!((missing as f64) < 0.05 * done as f64, "{missing} of {done} flows to delete were not there");
    Ok(Updates { insert: settled(inserts, chunk), delete: settled(deletes, chunk) })
}

/// Cycles an operation: the mean of all chunks but the slowest twentieth, in which somebody else had the CPU.
fn settled(mut chunks: Vec<u64>, len: usize) -> f64 {
    chunks.sort_unstable();
    let kept = chunks.len() - chunks.len() / 20;
    chunks[..kept].iter().sum::<u64>() as f64 / (kept * len) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A table that is right, and slow.
    struct Plain(HashMap<Key<2>, u64>);

    impl Table<2> for Plain {
        fn insert(&mut self, key: &Key<2>, datum: u64) -> bool {
            self.0.insert(*key, datum);
            true
        }
        fn delete(&mut self, key: &Key<2>) -> bool {
            self.0.remove(key).is_some()
        }
        fn look_up(&self, measure: &mut dyn FnMut(Lookup<'_, 2>)) {
            measure(&mut |keys| {
                let data: Vec<u64> = keys.iter().filter_map(|key| self.0.get(key)).copied().collect();
                Found { hits: data.len() as u64, sum: data.iter().sum() }
            });
        }
        fn reader(&self) -> Option<Box<dyn super::super::table::Reader<2>>> {
            None
        }
        fn bytes(&self) -> Option<u64> {
            None
        }
    }

    #[test]
    fn a_slice_leaves_the_table_as_it_was() {
        let keys = Keys::of(1024);
        let mut table = Plain(keys.to_insert().map(|key| (*key, datum(key))).collect());
        let measured = idle(&table, &keys, &mut Place::default()).unwrap();
        assert!(measured.hit > 0.0 && measured.miss > 0.0 && measured.lost == 0.0);
        let mut from = 0;
        for deleting in [Deleting::Batches, Deleting::OneByOne] {
            let measured = updates(&mut table, &keys.churn, &mut from, deleting).unwrap();
            assert!(measured.insert > 0.0 && measured.delete > 0.0);
            assert_eq!(table.0.len(), 1024);
        }
    }

    #[test]
    fn a_table_that_loses_keys_is_no_result() {
        let keys = Keys::of(1024);
        let mut table = Plain(keys.to_insert().map(|key| (*key, datum(key))).collect());
        for key in &keys.present[..100] {
            table.delete(key);
        }
        idle(&table, &keys, &mut Place::default()).unwrap_err();
    }

    #[test]
    fn spells_do_not_count() {
        let mut chunks = vec![200; 19];
        chunks.push(1_000_000);
        assert!((settled(chunks, 100) - 2.0).abs() < 1e-9);
    }
}
