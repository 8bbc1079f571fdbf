//! A guest's memory in a file, with margins in the file that belong to nobody.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use ringway::guest::memory::{GuestMemory, Region, RegionAddress};
use rustix::fs::{MemfdFlags, memfd_create};

/// Bytes of a region, and of the whole pages that it lies in.
const REGION_LEN: u64 = 0x3f00;
const PAGES_LEN: u64 = 0x4000;
/// Where the region starts in its pages.
const MARGIN: u64 = 0x80;

/// Two regions that touch each other, and one behind a hole. Guest addresses; those of the front end are `USER` above.
pub const STARTS: [u64; 3] = [0x1_0000, 0x1_0000 + REGION_LEN, 0x10_0000];
pub const USER: u64 = 0x7000_0000_0000;

pub struct Memory {
    file: File,
    pub table: Arc<GuestMemory>,
}

impl Memory {
    pub fn new() -> Self {
        let file = File::from(memfd_create("fuzz", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(PAGES_LEN * STARTS.len() as u64).unwrap();
        let map = |(index, guest): (u64, u64)| {
            let file_offset = index * PAGES_LEN + MARGIN;
            let address = RegionAddress { guest, len: REGION_LEN, user: guest + USER, file_offset };
            Arc::new(Region::map(address, &file).unwrap())
        };
        let table = GuestMemory::new((0..).zip(STARTS).map(map).collect()).unwrap();
        Self { file, table: Arc::new(table) }
    }

    /// Writes as a driver does, as far as there is memory.
    pub fn write(&self, guest: u64, bytes: &[u8]) {
        for (index, start) in (0..).zip(STARTS) {
            if let Some(offset) = guest.checked_sub(start).filter(|&offset| offset < REGION_LEN) {
                let len = bytes.len().min((REGION_LEN - offset) as usize);
                self.file.write_all_at(&bytes[..len], index * PAGES_LEN + MARGIN + offset).unwrap();
            }
        }
    }

    /// That nothing was written beside the regions.
    pub fn assert_margins(&self) {
        for index in 0..STARTS.len() as u64 {
            for (at, len) in [(0, MARGIN), (MARGIN + REGION_LEN, PAGES_LEN - MARGIN - REGION_LEN)] {
                let mut margin = [0; PAGES_LEN as usize];
                let margin = &mut margin[..len as usize];
                self.file.read_exact_at(margin, index * PAGES_LEN + at).unwrap();
                assert!(margin.iter().all(|&byte| byte == 0), "region {index} was left: {at:#x}");
            }
        }
    }
}
