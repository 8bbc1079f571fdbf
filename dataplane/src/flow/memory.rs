//! Arrays of cache lines for the flow table, in huge pages if there are any.
#![expect(unsafe_code, reason = "an array in memory that the allocator of the language knows nothing of")]

use std::alloc::Layout;
use std::ptr::NonNull;

/// What is smaller than a cache line shall not lie in two.
const LINE: usize = 64;

/// A fixed number of values. Where they lie is decided by the thread that makes them: it is the first to write to each page, and
/// the kernel takes pages from the NUMA node of who does that.
#[derive(Debug)]
pub(crate) struct Lines<T> {
    values: NonNull<[T]>,
    layout: Layout,
    huge: bool,
}

// SAFETY: it owns its values, as a boxed slice does.
unsafe impl<T: Send> Send for Lines<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Lines<T> {}

impl<T> Lines<T> {
    /// `count` values. An error if there is no memory; without huge pages they are in small ones, see [`Lines::is_huge`].
    pub(crate) fn new(count: usize, make: impl Fn() -> T) -> std::io::Result<Self> {
        let layout =
            Layout::array::<T>(count).and_then(|layout| layout.align_to(LINE)).map_err(std::io::Error::other)?;
        if layout.size() == 0 {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        // hugepage-rs panics on a kernel that has none at all.
        let has_huge = std::fs::read_to_string("/proc/meminfo").is_ok_and(|text| text.contains("\nHugepagesize:"));
        // SAFETY: the layout is not empty.
        let huge = has_huge.then(|| NonNull::new(unsafe { hugepage_rs::alloc(layout) })).flatten();
        // SAFETY: the layout is not empty.
        let small = || NonNull::new(unsafe { std::alloc::alloc(layout) });
        let at = huge.or_else(small).ok_or(std::io::ErrorKind::OutOfMemory)?.cast::<T>();
        for index in 0..count {
            // SAFETY: within the memory just taken, which is aligned for `T`: huge pages are for any alignment up to their
            // size, and a larger one is refused by hugepage-rs.
            unsafe { at.add(index).write(make()) };
        }
        Ok(Self { values: NonNull::slice_from_raw_parts(at, count), layout, huge: huge.is_some() })
    }

    /// Whether they are in huge pages.
    pub(crate) fn is_huge(&self) -> bool {
        self.huge
    }
}

impl<T> std::ops::Deref for Lines<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: all of them were written, and nobody has them mutably.
        unsafe { self.values.as_ref() }
    }
}

impl<T> Drop for Lines<T> {
    fn drop(&mut self) {
        let at = self.values.as_ptr();
        // SAFETY: written by `new`, never dropped before; the memory goes back to where it came from.
        unsafe {
            std::ptr::drop_in_place(at);
            if self.huge {
                hugepage_rs::dealloc(at.cast(), self.layout);
            } else {
                std::alloc::dealloc(at.cast(), self.layout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringway_testbed::HugePages;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The page size of the mapping that holds `at`, in KiB, as the kernel tells it.
    fn page_kib(at: *const u8) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in maps.lines() {
            if let Some((from, to)) = line.split(' ').next().and_then(|range| range.split_once('-'))
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&at.addr());
            } else if inside && let Some(size) = line.strip_prefix("KernelPageSize:") {
                return size.trim().trim_end_matches(" kB").parse().unwrap();
            }
        }
        panic!("{at:?} is mapped nowhere")
    }

    fn some(count: usize) -> Lines<AtomicU64> {
        let lines = Lines::new(count, || AtomicU64::new(7)).unwrap();
        assert!(lines.len() == count && lines.iter().all(|word| word.load(Ordering::Relaxed) == 7));
        lines
    }

    #[test]
    fn huge_pages_are_used_where_there_are_any() {
        let Ok(_pages) = HugePages::reserve(4) else {
            assert!(!rustix::process::geteuid().is_root(), "root can have two huge pages");
            return;
        };
        let lines = some(300_000);
        assert!(lines.is_huge());
        assert_eq!(page_kib((&raw const lines[299_999]).cast()), 2048);
    }

    /// Free huge pages that nobody has been promised.
    fn free_pages() -> usize {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap();
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse::<usize>().unwrap()
        };
        field("HugePages_Free:") - field("HugePages_Rsvd:")
    }

    /// One page more than the machine has to give is the way down: it is the same as with none at all.
    #[test]
    fn small_pages_do_where_there_are_not_enough_huge_ones() {
        // Others may come by some meanwhile; then there are more than were counted, and the test is tried again.
        for _ in 0..5 {
            let free = free_pages();
            let count = (free + 1) * (2 << 20) / size_of::<AtomicU64>();
            let lines = some(count);
            if lines.is_huge() {
                continue;
            }
            assert_eq!(page_kib((&raw const lines[count - 1]).cast()), 4);
            return;
        }
        panic!("there are always more huge pages than there are");
    }

    #[test]
    fn nothing_and_too_much_are_errors() {
        Lines::new(0, || 0u8).unwrap_err();
        Lines::new(usize::MAX / 4, || 0u64).unwrap_err();
    }
}
