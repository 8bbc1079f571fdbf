//! EAL: DPDK's one start in the life of a process, and what it logs.
//!
//! It is started on a thread of its own, which is its main lcore from then on and makes every call of control; on a CPU without a
//! worker, if there is one. With huge pages if enough are free, else with memory of the heap's kind. DPDK cannot be started a
//! second time, so a failure stays until the switch is started again.
#![expect(unsafe_code, reason = "starts and ends EAL")]

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, IntoRawFd};
use std::path::{Path, PathBuf};

use dpdk_sys::{
    dpdk_sys_errno, rte_eal_cleanup, rte_eal_get_runtime_dir, rte_eal_init, rte_openlog_stream, rte_strerror,
    rte_thread_register, rte_thread_unregister,
};
use rustix::fs::{OFlags, fcntl_setfl};

/// Memory without huge pages, beside what mbufs need, in MiB: for rings, and for drivers' own.
const SPARE_MIB: usize = 128;

/// Lines of DPDK's log that are remembered to explain a failure. The cause comes first, what followed from it after.
const LINES: usize = 16;

/// Words of a line that tells a cause.
const CAUSE: [&str; 5] = ["fail", "cannot", "error", "no such", "invalid"];

/// A started EAL. Ended when dropped.
#[derive(Debug)]
pub(super) struct Eal {
    log: Log,
    directory: Option<PathBuf>,
}

/// What DPDK logs, by a pipe: to be read after every call, and shown when the call failed.
#[derive(Debug)]
struct Log {
    pipe: Option<fs::File>,
    rest: String,
    /// Since it was last forgotten.
    said: Vec<String>,
}

impl Eal {
    /// Starts it on this thread, which moves to `cpu`, with `mib` MiB for mbufs.
    pub(super) fn start(cpu: usize, mib: usize) -> Result<Self, String> {
        let mut log = Log::open();
        let mib = mib + SPARE_MIB;
        let free = free_huge_mib(Path::new("/sys"));
        let (lcores, prefix, memory) = (format!("0@{cpu}"), format!("ringway-{}", std::process::id()), mib.to_string());
        // A device that cannot be: without an allow list EAL would take every PCI device that it finds a driver for.
        let mut arguments = vec!["ringway", "--lcores", &lcores, "-a", "0000:00:00.0", "--no-telemetry"];
        if free >= mib {
            arguments.push("--in-memory");
        } else {
            arguments.extend(["--no-huge", "--no-shconf", "--file-prefix", &prefix, "-m", &memory]);
        }
        let arguments: Vec<*mut c_char> =
            // EAL may keep pointers into its arguments, so they are never freed.
            arguments.into_iter().filter_map(|word| CString::new(word).ok()).map(CString::into_raw).collect();
        let mut argv = arguments.clone();
        // SAFETY: as many C strings as told, none ever freed; this happens once, on a thread that stays.
        let started = unsafe { rte_eal_init(arguments.len() as c_int, argv.as_mut_ptr()) };
        if started < 0 {
            let why = log.explain(&last_error());
            return Err(format!("DPDK does not start: {why}; mend that, and start the switch again"));
        }
        log.drain();
        if free >= mib {
            tracing::info!("DPDK runs on CPU {cpu}, with huge pages");
        } else {
            tracing::warn!(
                "DPDK runs on CPU {cpu}, without huge pages: {free} MiB of them are free, {mib} MiB wanted; \
                 {mib} MiB of ordinary memory in their place cost some speed, and hardware NICs may refuse it"
            );
        }
        // SAFETY: EAL runs; the answer is a C string of its own.
        let directory = unsafe { CStr::from_ptr(rte_eal_get_runtime_dir()) };
        let directory = (free < mib).then(|| PathBuf::from(directory.to_string_lossy().into_owned()));
        Ok(Self { log, directory })
    }

    /// Why a call failed that said `error`: DPDK's own last words, if it had any since the last call.
    pub(super) fn explain(&mut self, error: &str) -> String {
        self.log.explain(error)
    }

    /// Reads what was logged, so that what is explained next is of the next call.
    pub(super) fn forget(&mut self) {
        self.log.drain();
        self.log.said.clear();
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        // SAFETY: no port is open any more, and nobody has an mbuf.
        unsafe { rte_eal_cleanup() };
        if let Some(directory) = &self.directory {
            let _ = fs::remove_dir_all(directory);
        }
    }
}

impl Log {
    fn open() -> Self {
        let mut log = Self { pipe: None, rest: String::new(), said: Vec::new() };
        let Ok((read, write)) = rustix::pipe::pipe() else { return log };
        // A full pipe loses lines, and holds nobody up.
        let nonblocking = |fd: std::os::fd::BorrowedFd<'_>| fcntl_setfl(fd, OFlags::NONBLOCK).is_ok();
        if nonblocking(read.as_fd()) && nonblocking(write.as_fd()) {
            // SAFETY: a descriptor of ours, which the stream owns from now on and DPDK never closes.
            unsafe {
                let stream = libc::fdopen(write.into_raw_fd(), c"w".as_ptr());
                if !stream.is_null() {
                    libc::setvbuf(stream, std::ptr::null_mut(), libc::_IOLBF, 4096);
                    rte_openlog_stream(stream.cast());
                    log.pipe = Some(fs::File::from(read));
                }
            }
        }
        log
    }

    fn drain(&mut self) {
        let mut bytes = Vec::new();
        if let Some(pipe) = &mut self.pipe {
            let _ = pipe.read_to_end(&mut bytes); // ends with EAGAIN
        }
        self.rest.push_str(&String::from_utf8_lossy(&bytes));
        while let Some((line, rest)) = self.rest.split_once('\n') {
            let line = line.trim();
            if !line.is_empty() {
                tracing::debug!("DPDK: {line}");
                if self.said.len() < LINES {
                    self.said.push(line.to_owned());
                }
            }
            self.rest = rest.to_owned();
        }
    }

    fn explain(&mut self, error: &str) -> String {
        self.drain();
        let tells = |line: &&String| CAUSE.iter().any(|word| line.to_lowercase().contains(word));
        let said = self.said.iter().find(tells).or(self.said.last());
        said.map_or_else(|| error.to_owned(), |said| format!("{error} ({said})"))
    }
}

thread_local! {
    static REGISTERED: RefCell<Option<Registered>> = const { RefCell::new(None) };
}

struct Registered;

impl Drop for Registered {
    fn drop(&mut self) {
        // SAFETY: this thread was registered, and ends.
        unsafe { rte_thread_unregister() };
    }
}

/// Makes the calling thread one that DPDK knows, until it ends: with caches of its own in front of mempools.
pub(crate) fn register_thread() -> Result<(), String> {
    REGISTERED.with_borrow_mut(|registered| {
        if registered.is_none() {
            // SAFETY: EAL runs: there is a queue of one of its ports.
            if unsafe { rte_thread_register() } != 0 {
                return Err(format!("DPDK has no place for one more thread: {}", last_error()));
            }
            *registered = Some(Registered);
        }
        Ok(())
    })
}

/// What `rte_errno` says.
pub(super) fn last_error() -> String {
    // SAFETY: reads a number of the thread's own.
    error_text(unsafe { dpdk_sys_errno() })
}

/// What a number of errno or `rte_errno` means, of any sign.
pub(super) fn error_text(number: c_int) -> String {
    // SAFETY: the text is the thread's own until its next call.
    unsafe { CStr::from_ptr(rte_strerror(number.abs())) }.to_string_lossy().into_owned()
}

/// Huge pages that nobody uses, in MiB.
fn free_huge_mib(sysfs: &Path) -> usize {
    let sizes = fs::read_dir(sysfs.join("kernel/mm/hugepages")).into_iter().flatten().flatten();
    let free = sizes.filter_map(|size| {
        let name = size.file_name();
        let kib: usize = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let count: usize = fs::read_to_string(size.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
        Some(kib * count / 1024)
    });
    free.sum()
}
