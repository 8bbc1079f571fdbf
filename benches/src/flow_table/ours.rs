//! Ringway's own flow table: as a worker has it, and as others read it.

use anyhow::Result;
use ringway::flow::{Size, Stamp, table};

use super::table::{Found, Key, Lookup, Pages, Reader, Table};

/// Of a verdict, too.
const VALUE: usize = 3;

type Flows<const N: usize> = table::Table<Key<N>, [u64; VALUE], N, { VALUE - 1 }>;
type FlowReader<const N: usize> = table::Reader<Key<N>, [u64; VALUE], N, { VALUE - 1 }>;

struct Ours<const N: usize>(Flows<N>);

/// Where there are huge pages it takes them: the bench reserves none when it is about small ones.
pub(crate) fn make<const N: usize>(flows: usize, pages: Pages) -> Result<Box<dyn Table<N>>> {
    let table = Flows::new(Size::of(flows))?;
    anyhow::ensure!(
        table.reader().in_huge_pages() == (pages == Pages::Huge),
        "the machine's pool of huge pages does not fit --pages"
    );
    Ok(Box::new(Ours(table)))
}

impl<const N: usize> Table<N> for Ours<N> {
    fn insert(&mut self, key: &Key<N>, datum: u64) -> bool {
        let hash = self.0.view().hash(*key);
        self.0.insert(*key, hash, [datum, 0, 0], Stamp::new(0, 1))
    }

    fn delete(&mut self, key: &Key<N>) -> bool {
        let hash = self.0.view().hash(*key);
        self.0.delete(*key, hash)
    }

    fn delete_batch(&mut self, keys: &[Key<N>]) -> u64 {
        self.0.delete_batch(keys).count_ones().into()
    }

    fn look_up(&self, measure: &mut dyn FnMut(Lookup<'_, N>)) {
        let view = self.0.view();
        measure(&mut |keys| {
            let mut sum = 0u64;
            let hits = view.look_up(keys, |_, hit| sum = sum.wrapping_add(hit.first_word()));
            Found { hits: u64::from(hits.count_ones()), sum }
        });
    }

    fn reader(&self) -> Option<Box<dyn Reader<N>>> {
        Some(Box::new(OurReader(self.0.reader())))
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.0.bytes() as u64)
    }
}

struct OurReader<const N: usize>(FlowReader<N>);

impl<const N: usize> Reader<N> for OurReader<N> {
    fn look_up(&self, measure: &mut dyn FnMut(Lookup<'_, N>)) {
        let Some(mut pinned) = self.0.pin() else { return };
        measure(&mut |keys| {
            let mut sum = 0u64;
            let hits = pinned.look_up(keys, |_, hit| sum = sum.wrapping_add(hit.first_word()));
            pinned.pass();
            Found { hits: u64::from(hits.count_ones()), sum }
        });
    }
}
