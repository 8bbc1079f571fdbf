//! Ringway's own flow table.

use anyhow::Result;
use ringway::flow::{Action, Candidates, FlowKey, FlowTable, MacRef, Stamp, Verdict};

use super::table::{BATCH, Found, Key, Lookup, Pages, Reader, Table};

struct Ours {
    table: FlowTable,
    capacity: usize,
}

/// Twice the nominal size: it has no place for a key whose bucket is full.
pub(crate) fn make(flows: usize, _pages: Pages) -> Result<Box<dyn Table<2>>> {
    Ok(Box::new(Ours { table: FlowTable::new(flows * 2)?, capacity: (flows * 2).next_power_of_two() }))
}

const STAMP: u32 = 1;

impl Table<2> for Ours {
    fn insert(&mut self, key: &Key<2>, datum: u64) -> bool {
        let key = FlowKey::from_words(*key);
        let verdict = Verdict {
            action: Action::Forward(1),
            generation: datum as u32,
            source: MacRef::ALWAYS,
            destination: MacRef::ALWAYS,
        };
        self.table.insert(key, self.table.view().hash(key), verdict, Stamp::new(0, STAMP));
        true
    }

    fn delete(&mut self, _key: &Key<2>) -> bool {
        false
    }

    fn deletes(&self) -> bool {
        false
    }

    fn look_up(&self, measure: &mut dyn FnMut(Lookup<'_, 2>)) {
        let view = self.table.view();
        measure(&mut |keys| {
            let (mut hashes, mut candidates) = ([0; BATCH], [Candidates::default(); BATCH]);
            for (hash, key) in hashes.iter_mut().zip(keys) {
                *hash = view.hash(FlowKey::from_words(*key));
            }
            for (candidates, hash) in candidates.iter_mut().zip(hashes).take(keys.len()) {
                *candidates = view.candidates(hash);
            }
            let mut found = Found::default();
            for (candidates, key) in candidates.iter().zip(keys) {
                if let Some(entry) = view.find(*candidates, FlowKey::from_words(*key)) {
                    found.hits += 1;
                    found.sum = found.sum.wrapping_add(u64::from(view.verdict(entry).generation));
                }
            }
            found
        });
    }

    /// Others can only list it.
    fn reader(&self) -> Option<Box<dyn Reader<2>>> {
        None
    }

    fn bytes(&self) -> Option<u64> {
        // A line for an entry, two bytes for its tag.
        Some(self.capacity as u64 * 66)
    }
}
