//! A file of a guest's memory in our address space: what may be mapped, how much of it, and what lies around it.
//!
//! Beside each mapping is a page that nobody may touch, so that a store that leaves it ends the process and can never reach
//! another guest's memory; tests with hostile drivers rest on that. The mapping itself is watched ([`super::sigbus`]).
#![expect(unsafe_code, reason = "maps memory shared with a guest")]

use std::fs::File;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FileType, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::sigbus::Watch;

/// File systems whose files are memory: tmpfs (and so memfd), hugetlbfs, ramfs (statfs(2)). With a file of another one, each
/// page could be something that a worker waits for: a disk, or a FUSE server that never answers.
const MEMORY_FILE_SYSTEMS: [u32; 3] = [0x0102_1994, 0x9584_58f6, 0x8584_58f6];

/// The most bytes that all guests may share, half of what addresses there are: what is left is for the switch.
const MAPPED_MAX: u64 = 64 << 40;

/// From this size on a mapping lies at a multiple of it, so that huge pages of tmpfs fit.
const HUGE_PAGE: usize = 2 << 20;

/// Bytes that are mapped in all.
static MAPPED: AtomicU64 = AtomicU64::new(0);

/// Why a file is not mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The file ends before the region does: touching the rest would be a SIGBUS.
    #[error("it ends {0} bytes beyond its file")]
    ShortFile(u64),
    /// It is not memory.
    #[error("its file is not memory; take memory-backend-memfd, or a file on tmpfs or hugetlbfs")]
    NotMemory,
    /// The process has too many mappings, or too much mapped.
    #[error("too much guest memory is mapped in all")]
    TooMuch,
    /// fstat or mmap failed.
    #[error("it cannot be mapped: {0}; the guest's memory must be shared (share=on)")]
    System(#[from] Errno),
}

/// Some bytes of a file, readable and writable. Unmapped when dropped.
#[derive(Debug)]
pub(super) struct Mapping {
    /// The first of the bytes that were asked for.
    start: NonNull<u8>,
    /// Device and inode of the file.
    file: (u64, u64),
    /// Taken off the table before anything is unmapped: fields are dropped in this order.
    watch: Watch,
    _mapped: Counted,
    _reserved: Reserved,
}

impl Mapping {
    /// Maps `file` from `offset` to `end`, which is more.
    pub(super) fn new(file: &File, offset: u64, end: u64) -> Result<Self, MapError> {
        let stat = fstat(file)?;
        let file_system = fstatfs(file)?.f_type;
        let is_memory = MEMORY_FILE_SYSTEMS.contains(&(file_system as u32));
        if !is_memory || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(MapError::NotMemory);
        }
        let file_len = u64::try_from(stat.st_size).unwrap_or(0);
        if file_len < end {
            return Err(MapError::ShortFile(end - file_len));
        }
        // A file on hugetlbfs maps only at multiples of its page size, which is its block size.
        let page = u64::try_from(stat.st_blksize).unwrap_or(0);
        let page = if page.is_power_of_two() { page.max(4096) } else { 4096 };
        let from = offset & !(page - 1);
        let len = (end - from).checked_next_multiple_of(page).ok_or(MapError::TooMuch)?;
        let mapped = Counted::new(len).ok_or(MapError::TooMuch)?;
        let (len, page) = (len as usize, page as usize);
        let align = if len >= HUGE_PAGE { page.max(HUGE_PAGE) } else { page };
        let reserved = Reserved::new(len + 2 * page + align)?;
        let at = (reserved.start.as_ptr() as usize + page).next_multiple_of(align);
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: `at` is between one page and a page and `align` behind the start of what was just reserved for this, which
        // is longer by two pages and `align`: nothing else is replaced, and a page is left on either side.
        let mapping = unsafe { mmap(at as *mut _, len, access, flags, file, from) }?;
        let watch = Watch::new(at..at + len).ok_or(MapError::TooMuch)?;
        // SAFETY: less than a page behind the start of a mapping that is at least that long.
        let start = unsafe { mapping.cast::<u8>().add((offset - from) as usize) };
        let start = NonNull::new(start).ok_or(MapError::TooMuch)?;
        Ok(Self { start, file: (stat.st_dev, stat.st_ino), watch, _mapped: mapped, _reserved: reserved })
    }

    /// The first byte.
    pub(super) fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Device and inode of the file.
    pub(super) fn file(&self) -> (u64, u64) {
        self.file
    }

    /// Whether the file shrank under it, or its file system was full.
    pub(super) fn is_lost(&self) -> bool {
        self.watch.is_lost()
    }
}

/// A part of what may be mapped in all.
#[derive(Debug)]
struct Counted(u64);

impl Counted {
    fn new(len: u64) -> Option<Self> {
        let more = |mapped: u64| mapped.checked_add(len).filter(|&mapped| mapped <= MAPPED_MAX);
        MAPPED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(len))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        MAPPED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

/// A range of addresses where nothing is, for us to map at.
#[derive(Debug)]
struct Reserved {
    start: NonNull<u8>,
    len: usize,
}

impl Reserved {
    fn new(len: usize) -> Result<Self, Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a fresh mapping at an address of the kernel's choice disturbs nothing of ours.
        let start = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::empty(), flags) }?;
        Ok(Self { start: NonNull::new(start.cast()).ok_or(Errno::NOMEM)?, len })
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap gave, with the mapping in it; whoever could still point there holds the table that holds
        // this, so nobody does.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        debug_assert!(unmapped.is_ok());
    }
}
