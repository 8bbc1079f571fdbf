//! DPDK's `rte_hash`: its default hash function, lookups in bulk, readers that take no lock.
#![expect(unsafe_code, reason = "calls DPDK")]

use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};
use dpdk_sys::*;

use super::table::{BATCH, Found, Key, Lookup, Pages, Reader, Table};

/// DPDK's environment, started once in a process; it may pin the thread that starts it.
pub(crate) struct Eal {
    _started: (),
}

impl Eal {
    /// With as much memory as the tables will want at a time: 4 KiB pages are taken at the start.
    pub(crate) fn start(pages: Pages, cpu: usize, mib: u64) -> Result<Self> {
        let lcores = format!("0@{cpu}");
        let (prefix, mib) = (format!("ringway-bench-{}", std::process::id()), mib.to_string());
        let mut words = vec!["bench", "--no-pci", "--no-telemetry", "--no-shconf", "--log-level", "error"];
        words.extend(["--lcores", &lcores]);
        match pages {
            Pages::Huge => words.push("--in-memory"),
            Pages::Small => words.extend(["--no-huge", "-m", &mib, "--file-prefix", &prefix]),
        }
        // EAL may keep pointers into its arguments: they are never freed.
        let arguments: Result<Vec<*mut c_char>> =
            words.iter().map(|word| Ok(CString::new(*word)?.into_raw())).collect();
        let mut arguments = arguments?;
        // SAFETY: as many C strings as told, and nothing of DPDK runs yet.
        let parsed = unsafe { rte_eal_init(arguments.len() as i32, arguments.as_mut_ptr()) };
        ensure!(parsed >= 0, "DPDK does not start: {}", last_error());
        Ok(Self { _started: () })
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        // SAFETY: EAL is up; the answer is a C string of its own.
        let dir = unsafe { CStr::from_ptr(rte_eal_get_runtime_dir()) }.to_string_lossy().into_owned();
        // SAFETY: every table is gone: each run of the bench ends with its tables.
        unsafe { rte_eal_cleanup() };
        let _ = std::fs::remove_dir(dir);
    }
}

fn last_error() -> String {
    // SAFETY: reads a thread-local number; the text is this thread's own until it asks again.
    unsafe { CStr::from_ptr(rte_strerror(dpdk_sys_errno())) }.to_string_lossy().into_owned()
}

/// A table that is freed with its last holder.
struct Handle(*mut rte_hash);

// SAFETY: in its lock-free mode one thread may write while others look up; `RteHash` is the one writer.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `rte_hash_create`, and nobody holds it any more.
        unsafe { rte_hash_free(self.0) };
    }
}

pub(crate) struct RteHash(Arc<Handle>);

/// An empty table. It fills up at some 95 % of its nominal size: it is given an eighth more.
pub(crate) fn make<const N: usize>(flows: usize, _pages: Pages) -> Result<Box<dyn Table<N>>> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = CString::new(format!("bench-{}", NUMBER.fetch_add(1, Ordering::Relaxed)))?;
    let parameters = rte_hash_parameters {
        name: name.as_ptr(),
        entries: (flows + flows / 8) as u32,
        key_len: size_of::<Key<N>>() as u32,
        // None: the default, which is rte_hash_crc on x86.
        hash_func: None,
        socket_id: SOCKET_ID_ANY,
        extra_flag: RTE_HASH_EXTRA_FLAGS_RW_CONCURRENCY_LF as u8,
        ..Default::default()
    };
    // SAFETY: the parameters and the name outlive the call.
    let table = unsafe { rte_hash_create(&parameters) };
    ensure!(!table.is_null(), "no rte_hash for {flows} flows: {}", last_error());
    Ok(Box::new(RteHash(Arc::new(Handle(table)))))
}

impl<const N: usize> Table<N> for RteHash {
    fn insert(&mut self, key: &Key<N>, datum: u64) -> bool {
        // SAFETY: the key has the length that the table was made for; the datum is kept as a pointer that nobody follows.
        unsafe { rte_hash_add_key_data(self.0.0, key.as_ptr().cast(), datum as *mut c_void) == 0 }
    }

    /// Its place is free at once: no reader is asked whether it still looks there. That is cheaper than what one who has
    /// readers must do.
    fn delete(&mut self, key: &Key<N>) -> bool {
        // SAFETY: as for `insert`; the position is the one just given up.
        unsafe {
            let position = rte_hash_del_key(self.0.0, key.as_ptr().cast());
            position >= 0 && rte_hash_free_key_with_position(self.0.0, position) == 0
        }
    }

    fn look_up(&self, measure: &mut dyn FnMut(Lookup<'_, N>)) {
        measure(&mut |keys| bulk(&self.0, keys));
    }

    fn reader(&self) -> Option<Box<dyn Reader<N>>> {
        Some(Box::new(RteReader(self.0.clone())))
    }

    fn bytes(&self) -> Option<u64> {
        None
    }
}

struct RteReader(Arc<Handle>);

impl<const N: usize> Reader<N> for RteReader {
    fn look_up(&self, measure: &mut dyn FnMut(Lookup<'_, N>)) {
        measure(&mut |keys| bulk(&self.0, keys));
    }
}

fn bulk<const N: usize>(table: &Handle, keys: &[Key<N>]) -> Found {
    let mut pointers = [std::ptr::null::<c_void>(); BATCH];
    for (pointer, key) in pointers.iter_mut().zip(keys) {
        *pointer = key.as_ptr().cast();
    }
    let mut data = [null_mut::<c_void>(); BATCH];
    let (mut mask, count) = (0, keys.len().min(BATCH));
    // SAFETY: as many pointers to keys, and as much room for data, as told.
    unsafe {
        rte_hash_lookup_bulk_data(table.0, pointers.as_mut_ptr(), count as u32, &mut mask, data.as_mut_ptr());
    }
    let mut found = Found::default();
    let mut left = mask;
    while left != 0 {
        found.sum = found.sum.wrapping_add(data[left.trailing_zeros() as usize % BATCH] as u64);
        left &= left - 1;
    }
    found.hits = u64::from(mask.count_ones());
    found
}
