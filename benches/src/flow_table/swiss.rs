//! hashbrown, the hash map of Rust's standard library: for one thread, a key at a time, with its default hash.
#![expect(unsafe_code, reason = "an allocator that takes huge pages")]

use std::alloc::Layout;
use std::ptr::NonNull;

use allocator_api2::alloc::{AllocError, Allocator, Global};
use anyhow::Result;
use hashbrown::{DefaultHashBuilder, HashMap};

use super::table::{Found, Key, Lookup, Pages, Reader, Table};

/// Memory of the wanted pages. What is smaller than a huge page is not worth one.
#[derive(Clone, Copy)]
struct Paged(Pages);

const HUGE: usize = 2 << 20;

impl Paged {
    fn is_huge(self, layout: Layout) -> bool {
        self.0 == Pages::Huge && layout.size() > HUGE / 2
    }
}

// SAFETY: a block is given back to where it came from, which its layout and the constant `Pages` tell; neither source
// moves or reuses a block that is held.
unsafe impl Allocator for Paged {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if !self.is_huge(layout) {
            return Global.allocate(layout);
        }
        // SAFETY: the layout is not empty.
        let at = NonNull::new(unsafe { hugepage_rs::alloc(layout) }).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(at, layout.size()))
    }

    unsafe fn deallocate(&self, at: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller gives back what `allocate` gave for this layout.
        unsafe {
            if self.is_huge(layout) {
                hugepage_rs::dealloc(at.as_ptr(), layout);
            } else {
                Global.deallocate(at, layout);
            }
        }
    }
}

struct Swiss<const N: usize>(HashMap<Key<N>, u64, DefaultHashBuilder, Paged>);

pub(crate) fn make<const N: usize>(flows: usize, pages: Pages) -> Result<Box<dyn Table<N>>> {
    Ok(Box::new(Swiss(HashMap::with_capacity_and_hasher_in(flows, DefaultHashBuilder::default(), Paged(pages)))))
}

impl<const N: usize> Table<N> for Swiss<N> {
    fn insert(&mut self, key: &Key<N>, datum: u64) -> bool {
        self.0.insert(*key, datum);
        true
    }

    fn delete(&mut self, key: &Key<N>) -> bool {
        self.0.remove(key).is_some()
    }

    fn look_up(&self, measure: &mut dyn FnMut(Lookup<'_, N>)) {
        measure(&mut |keys| {
            let mut found = Found::default();
            for datum in keys.iter().filter_map(|key| self.0.get(key)) {
                found.hits += 1;
                found.sum = found.sum.wrapping_add(*datum);
            }
            found
        });
    }

    fn reader(&self) -> Option<Box<dyn Reader<N>>> {
        None
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.0.allocation_size() as u64)
    }
}
