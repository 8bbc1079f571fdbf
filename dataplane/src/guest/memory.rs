//! Guest memory: the regions a front end shares with us, as a table in which addresses are looked up. What is found is a
//! [`Segment`], the only way to touch it.
#![expect(unsafe_code, reason = "points into memory shared with a guest")]

use std::fs::File;
use std::ptr::NonNull;
use std::sync::Arc;

pub use super::mapping::MapError;
use super::mapping::Mapping;
pub use super::segment::Segment;

/// The most regions a front end may give: QEMU needs a few, hot-plugged memory more.
pub const REGIONS_MAX: usize = 32;

/// Where a region lies, in the words of the vhost-user memory table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionAddress {
    /// Guest physical address of the first byte.
    pub guest: u64,
    /// Bytes.
    pub len: u64,
    /// Address of the first byte in the front end's own process; ring addresses come in these.
    pub user: u64,
    /// Offset of the first byte in the region's file.
    pub file_offset: u64,
}

/// The most bytes that one front end may share: what QEMU lets a guest grow to.
pub const SHARED_MAX: u64 = 4 << 40;

/// Why a memory table is refused.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// More than [`REGIONS_MAX`].
    #[error("{0} memory regions, at most {REGIONS_MAX} are taken")]
    TooMany(usize),
    /// More than [`SHARED_MAX`].
    #[error("{0} bytes of memory, at most {SHARED_MAX} are taken")]
    TooMuch(u64),
    /// Start plus length wraps, or the length is zero.
    #[error("memory region at {0:#x} is empty or ends beyond 2^64")]
    BadRange(u64),
    /// Two regions share guest physical addresses.
    #[error("memory regions at {0:#x} and {1:#x} overlap")]
    Overlap(u64, u64),
    /// Its file is not to be mapped.
    #[error("memory region at {guest:#x}: {source}")]
    Map {
        /// Guest physical address of the region.
        guest: u64,
        /// Why not.
        source: MapError,
    },
}

/// A mapped region. Unmapped when the last table that holds it is dropped.
#[derive(Debug)]
pub struct Region {
    address: RegionAddress,
    host: NonNull<u8>,
    mapping: Mapping,
}

// SAFETY: a Region is an address range that this process owns until it is dropped; all access goes
// through copies from raw pointers, which any thread may make.
unsafe impl Send for Region {}
// SAFETY: as above; nothing in it changes after construction.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `address.len` bytes of `file`.
    pub fn map(address: RegionAddress, file: &File) -> Result<Self, MemoryError> {
        let guest = address.guest;
        let bad = || MemoryError::BadRange(guest);
        let file_end = address.file_offset.checked_add(address.len).ok_or_else(bad)?;
        address.guest.checked_add(address.len).ok_or_else(bad)?;
        address.user.checked_add(address.len).ok_or_else(bad)?;
        if address.len == 0 {
            return Err(bad());
        }
        if address.len > SHARED_MAX {
            return Err(MemoryError::TooMuch(address.len));
        }
        let mapping = Mapping::new(file, address.file_offset, file_end);
        let mapping = mapping.map_err(|source| MemoryError::Map { guest, source })?;
        Ok(Self { address, host: mapping.start(), mapping })
    }

    /// Whether the other is the same piece of the same file, in the same place.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (self.address, self.mapping.file()) == (other.address, other.mapping.file())
    }

    /// Where it lies.
    #[must_use]
    pub fn address(&self) -> RegionAddress {
        self.address
    }

    /// The address of its first byte in this process, to ask the kernel about it.
    #[must_use]
    pub fn host_address(&self) -> u64 {
        self.host.as_ptr().addr() as u64
    }

    /// Whether some of it was found not to be there: its file was cut off, or the file system is full. It holds zeros since,
    /// and is shared with nobody.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.mapping.is_lost()
    }
}

/// Whether regions of these lengths are not too many, nor too much in all. To be asked before they are mapped: what is mapped
/// counts for all ports.
pub fn affordable(lens: impl ExactSizeIterator<Item = u64>) -> Result<(), MemoryError> {
    if lens.len() > REGIONS_MAX {
        return Err(MemoryError::TooMany(lens.len()));
    }
    let len = lens.map(u128::from).sum::<u128>();
    if len > u128::from(SHARED_MAX) {
        return Err(MemoryError::TooMuch(u64::try_from(len).unwrap_or(u64::MAX)));
    }
    Ok(())
}

/// A guest's memory as one immutable table. A change makes a new table; rings and workers hold the one
/// they were attached with.
#[derive(Debug, Default)]
pub struct GuestMemory {
    regions: Vec<Arc<Region>>,
}

impl GuestMemory {
    /// A table of `regions`, which must not overlap in guest physical addresses.
    pub fn new(mut regions: Vec<Arc<Region>>) -> Result<Self, MemoryError> {
        affordable(regions.iter().map(|region| region.address.len))?;
        regions.sort_by_key(|region| region.address.guest);
        for pair in regions.windows(2) {
            let (low, high) = (pair[0].address, pair[1].address);
            if low.guest + low.len > high.guest {
                return Err(MemoryError::Overlap(low.guest, high.guest));
            }
        }
        Ok(Self { regions })
    }

    /// The regions, by guest physical address.
    #[must_use]
    pub fn regions(&self) -> &[Arc<Region>] {
        &self.regions
    }

    /// The first region that is lost, if any is.
    #[must_use]
    pub fn lost(&self) -> Option<RegionAddress> {
        self.regions.iter().find(|region| region.is_lost()).map(|region| region.address)
    }

    /// Bytes shared in all.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.address.len).sum()
    }

    /// The contiguous segment at guest physical address `guest`, or `None` if it is not wholly inside one
    /// region. `hint` is the index of the region of the last hit; buffers come from few regions.
    #[inline]
    #[must_use]
    pub fn segment(&self, hint: &mut usize, guest: u64, len: u32) -> Option<Segment<'_>> {
        if let Some(region) = self.regions.get(*hint)
            && let Some(segment) = region_segment(region, guest, len)
        {
            return Some(segment);
        }
        self.find_segment(hint, guest, len)
    }

    #[cold]
    fn find_segment(&self, hint: &mut usize, guest: u64, len: u32) -> Option<Segment<'_>> {
        self.regions.iter().enumerate().find_map(|(index, region)| {
            let segment = region_segment(region, guest, len)?;
            *hint = index;
            Some(segment)
        })
    }

    /// The first piece of `[guest, guest + len)`, cut where its region ends. `None` if `guest` lies in no region.
    #[must_use]
    pub fn leading_segment(&self, guest: u64, len: u32) -> Option<Segment<'_>> {
        self.regions.iter().find_map(|region| {
            let left = region.address.len.checked_sub(guest.checked_sub(region.address.guest)?)?;
            let len = u32::try_from(left.min(u64::from(len))).ok()?;
            if left == 0 { None } else { region_segment(region, guest, len) }
        })
    }

    /// A segment of no bytes; `None` if there is no memory at all.
    #[must_use]
    pub fn empty_segment(&self) -> Option<Segment<'_>> {
        // SAFETY: no bytes are in every mapping.
        self.regions.first().map(|region| unsafe { Segment::new(region.host, 0) })
    }

    /// The host pointer to `len` bytes at the front end's address `user`, aligned to `align`: how ring addresses
    /// are given. Valid while this table lives.
    #[must_use]
    pub(super) fn user_range(&self, user: u64, len: u64, align: u64) -> Option<NonNull<u8>> {
        self.regions.iter().find_map(|region| {
            let offset = user.checked_sub(region.address.user)?;
            let end = offset.checked_add(len)?;
            if end > region.address.len {
                return None;
            }
            // SAFETY: offset + len is inside the region, which is mapped whole.
            let host = unsafe { region.host.add(usize::try_from(offset).ok()?) };
            (host.as_ptr() as u64).is_multiple_of(align).then_some(host)
        })
    }
}

#[inline]
fn region_segment(region: &Region, guest: u64, len: u32) -> Option<Segment<'_>> {
    let offset = guest.checked_sub(region.address.guest)?;
    // Neither sum can wrap: the region's end is below 2^64, and so is any offset inside it plus 2^32.
    if offset > region.address.len || u64::from(len) > region.address.len - offset {
        return None;
    }
    // SAFETY: offset + len <= region length, which is mapped whole as long as the region lives.
    Some(unsafe { Segment::new(region.host.add(offset as usize), len) })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, Mode, OFlags, ftruncate, memfd_create, openat};
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    };
    use std::os::fd::AsFd;

    /// A memfd of `len` bytes.
    pub(crate) fn memfd(len: u64) -> File {
        let fd = memfd_create("guest", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&fd, len).unwrap();
        File::from(fd)
    }

    fn address(guest: u64, len: u64) -> RegionAddress {
        RegionAddress { guest, len, user: guest.wrapping_add(0x7000_0000_0000), file_offset: 0 }
    }

    /// Memory of regions (guest address, bytes), user addresses 0x7000_0000_0000 above.
    pub(crate) fn memory(regions: &[(u64, u64)]) -> GuestMemory {
        let map = |&(guest, len): &(u64, u64)| Arc::new(Region::map(address(guest, len), &memfd(len)).unwrap());
        GuestMemory::new(regions.iter().map(map).collect()).unwrap()
    }

    #[test]
    fn a_segment_lies_in_one_region_or_not_at_all() {
        let memory = memory(&[(0x1000, 0x1000), (0x2000, 0x1000), (0x10000, 0x1000)]);
        let mut hint = 0;
        assert_eq!(memory.segment(&mut hint, 0x1000, 0x1000).unwrap().len(), 0x1000);
        assert!(memory.segment(&mut hint, 0x1001, 0x1000).is_none(), "runs past the region's end");
        assert!(memory.segment(&mut hint, 0x3000, 1).is_none(), "in a hole");
        assert!(memory.segment(&mut hint, u64::MAX, 2).is_none(), "wraps");
        assert!(memory.segment(&mut hint, 0x10fff, 1).is_some());
        assert_eq!(hint, 2);
        assert_eq!(memory.leading_segment(0x1ff0, 0x20).unwrap().len(), 0x10);
        assert!(memory.leading_segment(0x11000, 1).is_none());
    }

    #[test]
    fn user_addresses_are_checked_whole_and_aligned() {
        let memory = memory(&[(0x1000, 0x1000)]);
        let user = 0x7000_0000_1000;
        assert!(memory.user_range(user, 0x1000, 16).is_some());
        assert!(memory.user_range(user, 0x1001, 16).is_none());
        assert!(memory.user_range(user + 8, 16, 16).is_none());
        assert!(memory.user_range(user, u64::MAX, 16).is_none());
    }

    #[test]
    fn bad_tables_are_refused() {
        let file = memfd(0x1000);
        let map = |address| Region::map(address, &file);
        assert!(matches!(map(address(0, 0)), Err(MemoryError::BadRange(_))));
        assert!(matches!(map(address(u64::MAX - 10, 0x1000)), Err(MemoryError::BadRange(_))));
        assert!(matches!(
            map(RegionAddress { file_offset: u64::MAX - 5, ..address(0, 0x1000) }),
            Err(MemoryError::BadRange(_))
        ));
        let source = |address| match map(address) {
            Err(MemoryError::Map { guest: 0, source }) => source,
            other => panic!("{other:?}"),
        };
        assert!(matches!(source(address(0, 0x1001)), MapError::ShortFile(1)));
        let one = Arc::new(map(address(0, 0x1000)).unwrap());
        let two = Arc::new(map(address(0xfff, 0x1000)).unwrap());
        assert!(matches!(GuestMemory::new(vec![two, one.clone()]), Err(MemoryError::Overlap(0, 0xfff))));
        assert!(matches!(GuestMemory::new(vec![one; 33]), Err(MemoryError::TooMany(33))));
    }

    /// A sparse file takes no memory, but addresses: one front end could use up all that there are.
    #[test]
    fn no_more_addresses_than_a_guest_can_use() {
        let file = memfd(SHARED_MAX + 0x2000);
        let map = |guest, len| Region::map(address(guest, len), &file);
        assert!(matches!(map(0, SHARED_MAX + 1), Err(MemoryError::TooMuch(_))));
        let halves = [0, SHARED_MAX / 2].map(|guest| Arc::new(map(guest, SHARED_MAX / 2).unwrap()));
        let one_more = Arc::new(map(SHARED_MAX, 0x1000).unwrap());
        assert!(GuestMemory::new(halves.to_vec()).is_ok());
        assert!(matches!(GuestMemory::new([&halves[..], &[one_more]].concat()), Err(MemoryError::TooMuch(_))));
        let all = (0..17).map(|_| map(0, SHARED_MAX)).collect::<Vec<_>>();
        let refused = all.iter().filter_map(|region| region.as_ref().err());
        let too_much = |error: &MemoryError| matches!(error, MemoryError::Map { source: MapError::TooMuch, .. });
        assert!(refused.clone().count() > 0 && { refused }.all(too_much));
        drop(all);
        assert!(map(0, SHARED_MAX).is_ok(), "what is unmapped can be mapped again");
    }

    #[test]
    fn a_file_that_is_not_memory_is_refused() {
        let file = File::open("/dev/zero").unwrap();
        let refused = Region::map(address(0, 0x1000), &file);
        assert!(matches!(refused, Err(MemoryError::Map { source: MapError::NotMemory, .. })));
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.set_len(0x1000).unwrap();
        let refused = Region::map(address(0, 0x1000), &file);
        assert!(matches!(refused, Err(MemoryError::Map { source: MapError::NotMemory, .. })));
    }

    /// R16 (no CVE: every other switch maps what it is given and dies).
    #[test]
    fn r16_what_is_cut_off_reads_as_zeros_and_is_marked() {
        let files = [memfd(0x3000), memfd(0x3000)];
        let map = |guest, file| Arc::new(Region::map(address(guest, 0x3000), file).unwrap());
        let memory = GuestMemory::new(vec![map(0, &files[0]), map(0x10000, &files[1])]).unwrap();
        let all = [0, 0x10000].map(|guest| memory.segment(&mut 0, guest, 0x3000).unwrap());
        for segment in all {
            assert_eq!(segment.write(&[7; 0x3000]), 0x3000);
        }
        assert_eq!(memory.lost(), None);
        ftruncate(&files[0], 0x1000).unwrap();
        // Several threads fall over it at once.
        std::thread::scope(|scope| {
            for at in [0x1000, 0x2000, 0x2fff] {
                let memory = &memory;
                scope.spawn(move || memory.segment(&mut 0, at, 1).unwrap().write(&[1]));
            }
        });
        let mut bytes = [1; 16];
        assert_eq!(all[0].from_offset(0x1800).read(&mut bytes), 16);
        assert_eq!(bytes, [0; 16]);
        assert_eq!(memory.lost(), Some(address(0, 0x3000)));
        assert_eq!(all[1].from_offset(0x2ff0).read(&mut bytes), 16);
        assert_eq!(bytes, [7; 16], "the other file is as it was");
        assert!(!memory.regions()[1].is_lost());
        drop(memory);
        // Its place in the table is used again, and the mark is gone.
        let memory = self::memory(&[(0, 0x1000)]);
        assert_eq!(memory.lost(), None);
    }

    /// A file of `len` bytes on a tmpfs of 64 KiB of its own. It is mounted nowhere and goes with the file.
    fn file_on_a_small_tmpfs(len: u64) -> File {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).expect("to make a file system, run as root");
        fsconfig_set_string(context.as_fd(), "size", "64k").unwrap();
        fsconfig_create(context.as_fd()).unwrap();
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(openat(&mount, "memory", flags, Mode::RUSR | Mode::WUSR).unwrap());
        file.set_len(len).unwrap();
        file
    }

    /// R16: a page that the file has and its file system does not.
    #[test]
    fn r16_a_tmpfs_that_is_full() {
        let file = file_on_a_small_tmpfs(0x40000);
        let memory = GuestMemory::new(vec![Arc::new(Region::map(address(0, 0x40000), &file).unwrap())]).unwrap();
        let write = |at| memory.segment(&mut 0, at, 1).unwrap().write(&[9]);
        for page in 0..16 {
            assert_eq!(write(page * 0x1000), 1);
        }
        assert_eq!(memory.lost(), None);
        assert_eq!(write(0x10000), 1);
        assert_eq!(memory.lost(), Some(address(0, 0x40000)));
        assert_eq!(write(0x20000), 1);
    }

    /// The same with huge pages, of the size of which fewest are free: none, unless somebody took care of both.
    #[test]
    fn r16_a_huge_page_that_is_not_to_be_had() {
        let sizes = [(2 << 20, MemfdFlags::HUGE_2MB), (1 << 30, MemfdFlags::HUGE_1GB)];
        let free = |size: u64| {
            let path = format!("/sys/kernel/mm/hugepages/hugepages-{}kB/free_hugepages", size >> 10);
            Some(std::fs::read_to_string(path).ok()?.trim().parse::<u64>().unwrap())
        };
        let sizes = sizes.into_iter().filter_map(|(size, flag)| Some((free(size)?, size, flag)));
        let (free, page_len, flag) =
            sizes.min_by_key(|&(free, size, _)| free * size).expect("a kernel with huge pages");
        let (pages, flags) = (free + 1, MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | flag);
        let file = File::from(memfd_create("guest", flags).unwrap());
        file.set_len(pages * page_len).unwrap();
        let region = Region::map(address(0, pages * page_len), &file).unwrap();
        let memory = GuestMemory::new(vec![Arc::new(region)]).unwrap();
        for page in 0..pages {
            assert_eq!(memory.segment(&mut 0, page * page_len, 1).unwrap().write(&[9]), 1);
        }
        assert!(memory.lost().is_some());
    }

    /// A fault elsewhere ends the process as ever.
    #[test]
    fn r16_a_fault_outside_guest_memory_is_not_hidden() {
        let guarded = self::memory(&[(0, 0x1000)]);
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "guest::memory::tests::touches_what_is_not_there", "--ignored", "--test-threads=1"]);
        let ended = child.output().unwrap().status;
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended), Some(libc::SIGBUS));
        drop(guarded);
    }

    #[test]
    #[ignore = "a part of r16_a_fault_outside_guest_memory_is_not_hidden"]
    fn touches_what_is_not_there() {
        let _guarded = self::memory(&[(0, 0x1000)]);
        let file = memfd(0);
        let access = rustix::mm::ProtFlags::READ;
        // SAFETY: a fresh mapping, read by a raw pointer; the fault is the point.
        let byte = unsafe {
            let at = rustix::mm::mmap(std::ptr::null_mut(), 4096, access, rustix::mm::MapFlags::SHARED, &file, 0);
            at.unwrap().cast::<u8>().read_volatile()
        };
        println!("{byte} was read");
    }

    #[test]
    fn an_unaligned_file_offset_maps_the_right_bytes() {
        let file = memfd(0x3000);
        rustix::io::pwrite(&file, b"here", 0x1234).unwrap();
        let region = Region::map(RegionAddress { file_offset: 0x1234, ..address(0, 0x1000) }, &file).unwrap();
        let memory = GuestMemory::new(vec![Arc::new(region)]).unwrap();
        let mut bytes = [0; 4];
        memory.segment(&mut 0, 0, 4).unwrap().read(&mut bytes);
        assert_eq!(&bytes, b"here");
    }
}
