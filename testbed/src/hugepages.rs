//! Huge pages for as long as somebody needs them.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::process::run;

const POOL: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";
const PAGE_MIB: u32 = 2;

/// A share of the machine's pool of 2 MiB pages. The pool shrinks again by what it was raised when this is dropped.
///
/// Others may raise and lower the pool meanwhile: differences are added and taken away, never an earlier size restored.
#[derive(Debug)]
pub struct HugePages {
    added: u64,
}

impl HugePages {
    /// Makes sure that `mib` MiB are free. Needs root, unless they are.
    ///
    /// # Errors
    /// When the kernel does not find that much memory in one piece.
    pub fn reserve(mib: u32) -> Result<Self> {
        let wanted = u64::from(mib.div_ceil(PAGE_MIB));
        let mut guard = Self { added: 0 };
        // A freed page of another process may be taken between two looks, so look again.
        for _ in 0..5 {
            let free = read("free_hugepages")?.saturating_sub(read("resv_hugepages")?);
            let missing = wanted.saturating_sub(free);
            if missing == 0 {
                return Ok(guard);
            }
            let size = read("nr_hugepages")?;
            write(size + missing)?;
            guard.added += read("nr_hugepages")?.saturating_sub(size);
            sleep(Duration::from_millis(50)); // lets the kernel compact
        }
        let free = read("free_hugepages")?;
        if free >= wanted {
            return Ok(guard);
        }
        bail!("{mib} MiB of huge pages are wanted, {} MiB are to be had", free * u64::from(PAGE_MIB))
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        // Who owned the pages may still be at the end of its exit; pages in use would become surplus and go later.
        if let Ok(size) = read("nr_hugepages")
            && self.added > 0
        {
            let _ = write(size.saturating_sub(self.added));
        }
    }
}

fn read(name: &str) -> Result<u64> {
    let path = Path::new(POOL).join(name);
    let text = fs::read_to_string(&path).with_context(|| format!("{}", path.display()))?;
    Ok(text.trim().parse()?)
}

fn write(pages: u64) -> Result<()> {
    fs::write(Path::new(POOL).join("nr_hugepages"), pages.to_string()).context("only root may reserve huge pages")
}

/// A mounted hugetlbfs, for programs that want files in one. Unmounted on drop if it was not there before.
#[derive(Debug)]
pub struct Hugetlbfs {
    ours: Option<TempDir>,
}

impl Hugetlbfs {
    /// Mounts one unless there is one.
    ///
    /// # Errors
    /// When it cannot be mounted, which needs root.
    pub fn mounted() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        if mounts.lines().any(|mount| mount.split(' ').nth(2) == Some("hugetlbfs")) {
            return Ok(Self { ours: None });
        }
        let dir = crate::scratch_dir()?;
        let words = ["-t", "hugetlbfs", "-o", "pagesize=2M", "ringway"].map(OsStr::new);
        run("mount", &[&words[..], &[dir.path().as_os_str()]].concat())?;
        Ok(Self { ours: Some(dir) })
    }
}

impl Drop for Hugetlbfs {
    fn drop(&mut self) {
        if let Some(dir) = &self.ours {
            let _ = run("umount", &[dir.path().as_os_str()]);
        }
    }
}
