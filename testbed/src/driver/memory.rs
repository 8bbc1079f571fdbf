//! Guest memory: memfds that the driver maps and a back end may map, too.
//!
//! Addresses are guest physical. What the driver reads and writes here it shares with a device, so it does it by raw copies
//! and by atomic words, never by references.
#![expect(unsafe_code, reason = "maps shared memory and touches it by raw pointers")]

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags};

/// What lies beside the regions of [`DriverMemory::with_margins`].
const CANARY: u8 = 0xc5;

/// Where a memory region lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Guest physical address of the first byte.
    pub guest: u64,
    /// Bytes.
    pub len: u64,
    /// The first byte's address as the front end calls it; a number and no more, since nothing is mapped there.
    pub user: u64,
    /// Where in its file the region starts.
    pub file_offset: u64,
}

impl Span {
    /// A region at `guest` from the start of its file. Its user address is unlike its guest address.
    #[must_use]
    pub fn new(guest: u64, len: u64) -> Self {
        Self { guest, len, user: guest.wrapping_add(0x7f00_0000_0000), file_offset: 0 }
    }

    fn contains(&self, guest: u64) -> bool {
        guest >= self.guest && guest - self.guest < self.len
    }
}

#[derive(Debug)]
struct Region {
    span: Span,
    file: File,
    /// The whole file.
    mapping: NonNull<u8>,
    mapping_len: usize,
}

// SAFETY: the mapping belongs to the region until it is dropped, and is touched only by raw copies and atomics.
unsafe impl Send for Region {}
// SAFETY: as above; what the copies race with is what a guest races with, too.
unsafe impl Sync for Region {}

impl Region {
    fn new(span: Span) -> std::io::Result<Self> {
        let file = memfd_create("driver", MemfdFlags::CLOEXEC)?;
        let len = (span.file_offset + span.len).next_multiple_of(4096);
        ftruncate(&file, len)?;
        let mapping_len = usize::try_from(len).map_err(std::io::Error::other)?;
        // SAFETY: a fresh shared mapping where the kernel wants it.
        let mapping = unsafe {
            let access = ProtFlags::READ | ProtFlags::WRITE;
            rustix::mm::mmap(std::ptr::null_mut(), mapping_len, access, MapFlags::SHARED, &file, 0)?
        };
        let mapping = NonNull::new(mapping.cast()).ok_or_else(|| std::io::Error::other("mapped at 0"))?;
        Ok(Self { span, file: file.into(), mapping, mapping_len })
    }

    /// The byte at `guest`, and how many follow in this region, it included.
    fn at(&self, guest: u64) -> Option<(NonNull<u8>, usize)> {
        let offset = guest.checked_sub(self.span.guest)?;
        let left = self.span.len.checked_sub(offset)?;
        // SAFETY: at most the region's length past its start, all of which is mapped.
        let byte = unsafe { self.mapping.add((self.span.file_offset + offset) as usize) };
        (left > 0).then_some((byte, left as usize))
    }
}

impl Region {
    /// What of the mapping is not of the region: where, and bytes.
    fn margins(&self) -> [(usize, usize); 2] {
        let (start, end) = (self.span.file_offset as usize, (self.span.file_offset + self.span.len) as usize);
        [(0, start), (end, self.mapping_len - end)]
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: what mmap gave; nobody holds a pointer into it beyond a call.
        let _ = unsafe { rustix::mm::munmap(self.mapping.as_ptr().cast(), self.mapping_len) };
    }
}

/// The memory of one guest.
#[derive(Debug)]
pub struct DriverMemory {
    regions: Vec<Region>,
    /// Free ranges of the allocator: start to length.
    free: Mutex<BTreeMap<u64, u64>>,
}

impl DriverMemory {
    /// Memory of these regions. All of it is free for [`DriverMemory::alloc`].
    ///
    /// # Errors
    /// What the kernel says of a memfd or its mapping.
    pub fn new(spans: &[Span]) -> std::io::Result<Self> {
        let regions = spans.iter().map(|&span| Region::new(span)).collect::<std::io::Result<_>>()?;
        let free = spans.iter().map(|span| (span.guest, span.len)).collect();
        Ok(Self { regions, free: Mutex::new(free) })
    }

    /// `len` bytes in two regions with a hole between them, as a machine with memory below and above 4 GiB has.
    ///
    /// # Errors
    /// As [`DriverMemory::new`].
    pub fn with_len(len: u64) -> std::io::Result<Self> {
        let half = (len / 2).next_multiple_of(4096);
        let high = (0x10_0000 + half + 1).next_multiple_of(1 << 32);
        // As where both are of one file, the second behind the first.
        Self::new(&[Span::new(0x10_0000, half), Span { file_offset: 0x3000, ..Span::new(high, half) }])
    }

    /// As [`DriverMemory::with_len`], but neither region begins or ends where a page does: what is left of those pages, before and
    /// behind, is mapped by whoever maps the region, and is not to be touched ([`DriverMemory::margins_are_whole`]).
    ///
    /// # Errors
    /// As [`DriverMemory::new`].
    pub fn with_margins(len: u64) -> std::io::Result<Self> {
        const MARGIN: u64 = 0x180;
        let half = (len / 2).next_multiple_of(4096) - 2 * MARGIN;
        let span = |guest| Span { file_offset: 0x1000 + MARGIN, ..Span::new(guest, half) };
        let memory = Self::new(&[span(0x10_0000), span(1 << 32)])?;
        for region in &memory.regions {
            for (at, len) in region.margins() {
                // SAFETY: inside the mapping, of which the margins are what no span covers.
                unsafe { region.mapping.add(at).write_bytes(CANARY, len) };
            }
        }
        Ok(memory)
    }

    /// Whether nobody has written beside the regions of [`DriverMemory::with_margins`].
    #[must_use]
    pub fn margins_are_whole(&self) -> bool {
        self.regions.iter().all(|region| {
            region.margins().into_iter().all(|(at, len)| {
                // SAFETY: as where they were written; bytes are read one by one, by value.
                (at..at + len).all(|at| unsafe { region.mapping.add(at).read_volatile() } == CANARY)
            })
        })
    }

    /// Other memory in the same place with the same content.
    ///
    /// # Errors
    /// As [`DriverMemory::new`].
    pub fn duplicate(&self) -> std::io::Result<Self> {
        let spans: Vec<_> = self.regions().map(|(span, _)| span).collect();
        let twin = Self::new(&spans)?;
        for span in spans {
            twin.write(span.guest, &self.read(span.guest, span.len as usize));
        }
        twin.free().clone_from(&self.free());
        Ok(twin)
    }

    /// Where the regions lie, and their files.
    pub fn regions(&self) -> impl Iterator<Item = (Span, BorrowedFd<'_>)> {
        self.regions.iter().map(|region| (region.span, region.file.as_fd()))
    }

    /// The front end's address of guest physical `guest`.
    ///
    /// # Panics
    /// If it is in no region.
    #[must_use]
    pub fn user(&self, guest: u64) -> u64 {
        let span = self.regions.iter().map(|region| region.span).find(|span| span.contains(guest));
        let span = span.unwrap_or_else(|| panic!("{guest:#x} is in no region"));
        span.user + (guest - span.guest)
    }

    fn free(&self) -> MutexGuard<'_, BTreeMap<u64, u64>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Guest physical address of `len` free bytes inside one region, a multiple of `align`, all zero.
    ///
    /// # Panics
    /// If there is no such range left.
    pub fn alloc(&self, len: u64, align: u64) -> u64 {
        let mut free = self.free();
        let found = free.iter().find_map(|(&start, &left)| {
            let at = start.next_multiple_of(align);
            (at - start + len <= left).then_some((start, left, at))
        });
        let (start, left, at) = found.unwrap_or_else(|| panic!("no {len} bytes of guest memory are left"));
        free.remove(&start);
        if at > start {
            free.insert(start, at - start);
        }
        if start + left > at + len {
            free.insert(at + len, start + left - (at + len));
        }
        drop(free);
        self.write(at, &vec![0; len as usize]);
        at
    }

    /// Gives back what [`DriverMemory::alloc`] gave.
    pub fn dealloc(&self, at: u64, len: u64) {
        if len == 0 {
            return;
        }
        let mut free = self.free();
        let (mut start, mut end) = (at, at + len);
        // Neighbours grow together, but not across the border of two regions.
        let border = |at: u64| self.regions.iter().any(|region| region.span.guest == at);
        if let Some((&before, &left)) = free.range(..at).next_back()
            && before + left == start
            && !border(start)
        {
            start = before;
        }
        if let Some(left) = free.get(&end).copied().filter(|_| !border(end)) {
            free.remove(&end);
            end += left;
        }
        free.insert(start, end - start);
    }

    fn at(&self, guest: u64) -> (NonNull<u8>, usize) {
        let found = self.regions.iter().find_map(|region| region.at(guest));
        found.unwrap_or_else(|| panic!("{guest:#x} is in no region"))
    }

    /// Copies `bytes` to `guest`, across adjacent regions if need be.
    ///
    /// # Panics
    /// If that leaves the memory.
    pub fn write(&self, mut guest: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (to, left) = self.at(guest);
            let len = left.min(bytes.len());
            // SAFETY: `len` bytes are mapped at `to` and lie in `bytes`, which is private.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), len) };
            bytes = &bytes[len..];
            guest += len as u64;
        }
    }

    /// Copies `len` bytes from `guest`, across adjacent regions if need be.
    ///
    /// # Panics
    /// If that leaves the memory.
    #[must_use]
    pub fn read(&self, mut guest: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            let (from, left) = self.at(guest);
            let part = &mut bytes[filled..];
            let len = left.min(part.len());
            // SAFETY: as in `write`.
            unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), part.as_mut_ptr(), len) };
            filled += len;
            guest += len as u64;
        }
        bytes
    }

    fn word(&self, guest: u64, len: usize) -> NonNull<u8> {
        let (at, left) = self.at(guest);
        assert!(left >= len && (at.as_ptr() as usize).is_multiple_of(len), "no word of {len} bytes at {guest:#x}");
        at
    }

    /// The little-endian word of 2 bytes at `guest`.
    #[must_use]
    pub fn load_u16(&self, guest: u64, order: Ordering) -> u16 {
        // SAFETY: `word` checks that it is mapped and aligned; an atomic may be shared with anybody.
        u16::from_le(unsafe { self.word(guest, 2).cast::<AtomicU16>().as_ref() }.load(order))
    }

    /// Stores a little-endian word of 2 bytes at `guest`.
    pub fn store_u16(&self, guest: u64, value: u16, order: Ordering) {
        // SAFETY: as in `load_u16`.
        unsafe { self.word(guest, 2).cast::<AtomicU16>().as_ref() }.store(value.to_le(), order);
    }

    /// The little-endian word of 4 bytes at `guest`.
    #[must_use]
    pub fn load_u32(&self, guest: u64, order: Ordering) -> u32 {
        // SAFETY: as in `load_u16`.
        u32::from_le(unsafe { self.word(guest, 4).cast::<AtomicU32>().as_ref() }.load(order))
    }

    /// Stores a little-endian word of 4 bytes at `guest`.
    pub fn store_u32(&self, guest: u64, value: u32, order: Ordering) {
        // SAFETY: as in `load_u16`.
        unsafe { self.word(guest, 4).cast::<AtomicU32>().as_ref() }.store(value.to_le(), order);
    }

    /// The little-endian word of 8 bytes at `guest`.
    #[must_use]
    pub fn load_u64(&self, guest: u64, order: Ordering) -> u64 {
        // SAFETY: as in `load_u16`.
        u64::from_le(unsafe { self.word(guest, 8).cast::<AtomicU64>().as_ref() }.load(order))
    }

    /// Stores a little-endian word of 8 bytes at `guest`.
    pub fn store_u64(&self, guest: u64, value: u64, order: Ordering) {
        // SAFETY: as in `load_u16`.
        unsafe { self.word(guest, 8).cast::<AtomicU64>().as_ref() }.store(value.to_le(), order);
    }
}

/// A piece of a guest's memory, found once: for a driver that is fast.
#[derive(Clone, Debug)]
pub struct Window {
    start: NonNull<u8>,
    len: usize,
    // Keeps it mapped.
    _memory: Arc<DriverMemory>,
}

impl Window {
    /// `len` bytes from `guest` on, all in one region.
    ///
    /// # Panics
    /// If they are not, or `guest` is not a multiple of 8.
    #[must_use]
    pub fn new(memory: &Arc<DriverMemory>, guest: u64, len: usize) -> Self {
        let (start, left) = memory.at(guest);
        assert!(left >= len && (start.as_ptr() as usize).is_multiple_of(8), "no {len} bytes at {guest:#x}");
        Self { start, len, _memory: memory.clone() }
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset < self.len && self.len - offset >= 8, "no word at {offset:#x}");
        // SAFETY: inside what `new` found mapped, aligned as its start is; an atomic may be shared with anybody.
        unsafe { self.start.add(offset).cast::<AtomicU64>().as_ref() }
    }

    /// The little-endian word of 8 bytes at `offset`.
    ///
    /// # Panics
    /// If `offset` is no multiple of 8, or the word is not inside.
    #[inline]
    #[must_use]
    pub fn load(&self, offset: usize, order: Ordering) -> u64 {
        u64::from_le(self.word(offset).load(order))
    }

    /// Stores a little-endian word of 8 bytes at `offset`.
    ///
    /// # Panics
    /// As [`Window::load`].
    #[inline]
    pub fn store(&self, offset: usize, value: u64, order: Ordering) {
        self.word(offset).store(value.to_le(), order);
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Panics
    /// If they are not all inside.
    #[inline]
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.len && self.len - offset >= bytes.len(), "{} bytes at {offset:#x}", bytes.len());
        // SAFETY: inside what `new` found mapped; `bytes` are private.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(offset).as_ptr(), bytes.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_freed_can_be_had_again_and_borders_stay() {
        let memory = DriverMemory::new(&[Span::new(0x1000, 0x1000), Span::new(0x2000, 0x1000)]).unwrap();
        let first = memory.alloc(0x1000, 16);
        let second = memory.alloc(0x800, 16);
        let third = memory.alloc(0x800, 16);
        assert_eq!((first, second, third), (0x1000, 0x2000, 0x2800));
        memory.dealloc(first, 0x1000);
        memory.dealloc(third, 0x800);
        memory.dealloc(second, 0x800);
        assert_eq!(*memory.free(), BTreeMap::from([(0x1000, 0x1000), (0x2000, 0x1000)]));
        assert_eq!(memory.alloc(8, 4096), 0x1000);
    }

    #[test]
    fn a_window_shows_the_same_bytes() {
        let memory = Arc::new(DriverMemory::new(&[Span::new(0x1000, 0x1000)]).unwrap());
        let window = Window::new(&memory, 0x1800, 0x800);
        window.write(9, b"seven b");
        window.store(16, 7, Ordering::Relaxed);
        assert_eq!(memory.read(0x1809, 8), b"seven b\x07");
        assert_eq!(window.load(16, Ordering::Relaxed), 7);
        for outside in [0x7fc, 0x800, 4] {
            std::panic::catch_unwind(|| window.load(outside, Ordering::Relaxed)).unwrap_err();
        }
        std::panic::catch_unwind(|| window.write(0x7fd, b"four")).unwrap_err();
    }

    #[test]
    fn bytes_go_across_adjacent_regions() {
        let memory = DriverMemory::new(&[Span::new(0x1000, 0x1000), Span::new(0x2000, 0x1000)]).unwrap();
        memory.write(0x1ffe, b"four");
        assert_eq!(memory.read(0x1ffe, 4), b"four");
        assert_eq!(memory.load_u16(0x2000, Ordering::Relaxed), u16::from_le_bytes(*b"ur"));
    }
}
