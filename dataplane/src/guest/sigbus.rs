//! SIGBUS: what the kernel sends for guest memory that is mapped and not there any more.
//!
//! A front end may cut off the file that it shared, and a tmpfs may be full when a page of it is touched first: then any load
//! or store of ours would end the process. The handler here puts zeros where the mapping was, marks it as lost and returns;
//! the instruction is done again, and reads zeros. Whatever comes of that is no worse than what a guest may write itself.
//! Housekeeping finds the mark, and the port loses its front end ([`super::Port::end_if_unbearable`]). A fault that is not in
//! guest memory goes where it went before.
//!
//! The handler runs on whatever thread was at the memory, at any instruction: it takes no lock, allocates nothing, calls nothing
//! but two system calls, and looks only at the table of mappings, whose entries are atomic words.
#![expect(unsafe_code, reason = "a signal handler, and a mapping put in place of another")]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{SA_ONSTACK, SA_SIGINFO, SIG_DFL, SIG_IGN, SIGBUS, sigaction, siginfo_t};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// The most mappings in the process: each takes up to three of the kernel's 65,530 (`vm.max_map_count`), and when those are used
/// up, memory for anything else is refused, too.
const MAPPINGS_MAX: usize = 16384;

/// What the handler replaces at the least.
const PAGE: usize = 4096;

/// A mapping that is watched.
struct Entry {
    /// Its first byte; 0 for an entry that is free.
    start: AtomicUsize,
    len: AtomicUsize,
    lost: AtomicBool,
}

static TABLE: [Entry; MAPPINGS_MAX] =
    [const { Entry { start: AtomicUsize::new(0), len: AtomicUsize::new(0), lost: AtomicBool::new(false) } };
        MAPPINGS_MAX];

/// Entries that were ever used; no other is looked at.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Entries that were used and are free again.
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// What was done at SIGBUS before; `None` if the handler could not be installed.
static BEFORE: OnceLock<Option<sigaction>> = OnceLock::new();

/// A mapping that may be lost without the process being lost, as long as this value lives. It must be dropped before the
/// mapping is taken away.
#[derive(Debug)]
pub(super) struct Watch {
    index: usize,
}

impl Watch {
    /// Watches a mapping of ours, whole pages, to which nothing but copies and atomics will ever be done. `None` if there are
    /// too many.
    pub(super) fn new(mapping: Range<usize>) -> Option<Self> {
        BEFORE.get_or_init(install).as_ref()?;
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let index = match free.pop() {
            Some(index) => index,
            None => USED.load(Ordering::Relaxed),
        };
        let entry = TABLE.get(index)?;
        entry.lost.store(false, Ordering::Relaxed);
        entry.len.store(mapping.len(), Ordering::Relaxed);
        // Only now can it be found; and no handler finds this start with another entry's length (see `find`).
        entry.start.store(mapping.start, Ordering::Release);
        USED.fetch_max(index + 1, Ordering::Release);
        Some(Self { index })
    }

    /// Whether some of it was not there when it was touched. It holds zeros since.
    pub(super) fn is_lost(&self) -> bool {
        TABLE.get(self.index).is_some_and(|entry| entry.lost.load(Ordering::Relaxed))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(entry) = TABLE.get(self.index) {
            entry.start.store(0, Ordering::Release);
        }
        FREE.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}

/// The watched mapping that `address` is in.
///
/// While this looks, other entries may come and go, but not the one that it looks for: whoever was at that address holds it. An
/// entry seen in between might join the start of one mapping to the length of another, so its start is read again.
fn find(address: usize) -> Option<(&'static Entry, Range<usize>)> {
    TABLE.iter().take(USED.load(Ordering::Acquire)).find_map(|entry| {
        let start = entry.start.load(Ordering::Acquire);
        let len = entry.len.load(Ordering::Acquire);
        let same = entry.start.load(Ordering::Acquire) == start;
        (start != 0 && same && address.wrapping_sub(start) < len).then_some((entry, start..start + len))
    })
}

/// Zeros in place of the whole mapping or, if the kernel refuses that (it may have promised all its memory), in place of the
/// page at `address`. Whether that was done.
fn replace(address: usize) -> bool {
    let Some((entry, mapping)) = find(address) else { return false };
    let page = address & !(PAGE - 1);
    let done = [(mapping.start, mapping.len()), (page, PAGE)].into_iter().any(|(start, len)| {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the range is a watched mapping of whole pages or one of its pages, so nothing but guest memory is replaced;
        // it is mapped before and after, and whoever copies from or to it may find anything there at any time. This is the bare
        // system call: it takes no lock and leaves `errno` alone.
        unsafe { mmap_anonymous(start as *mut c_void, len, access, flags) }.is_ok()
    });
    entry.lost.store(done, Ordering::Relaxed);
    done
}

/// Installs the handler. What was there before, or `None` if the kernel refuses.
fn install() -> Option<sigaction> {
    let mut before = MaybeUninit::<sigaction>::uninit();
    // SAFETY: asks for the action; `sigaction` writes all of it if it says 0.
    let before = unsafe {
        if sigaction(SIGBUS, std::ptr::null(), before.as_mut_ptr()) != 0 {
            return None;
        }
        before.assume_init()
    };
    let mut ours = before;
    ours.sa_sigaction = on_sigbus as *const () as usize;
    // On the alternative stack where a thread has one: a session's own is small.
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
    // SAFETY: a handler of the type that SA_SIGINFO asks for, that does nothing which is not allowed in a handler. Until
    // `BEFORE` is set nothing is watched, so that a fault that comes earlier is nobody's: `go_on` then takes the default.
    (unsafe { sigaction(SIGBUS, &raw const ours, null_mut()) } == 0).then_some(before)
}

/// The handler.
extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a valid `info`, in which SIGBUS has an address.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // Above 0 it comes from the kernel, for a fault; else somebody sent it, and there is no address.
    if code > 0 && replace(address) {
        return;
    }
    go_on(signal, info, context);
}

/// What would have been done without this handler.
fn go_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let before = BEFORE.get().and_then(Option::as_ref);
    match before.map_or(SIG_DFL, |before| before.sa_sigaction) {
        // A fault that is ignored would come again for ever; the kernel does not let it be ignored either.
        SIG_DFL | SIG_IGN => {
            // SAFETY: both are allowed in a handler. The signal is delivered when it returns, and ends the process.
            unsafe {
                libc::signal(signal, SIG_DFL);
                libc::raise(signal);
            }
        }
        handler if before.is_some_and(|before| before.sa_flags & SA_SIGINFO != 0) => {
            // SAFETY: what was installed with SA_SIGINFO has this type.
            let handler =
                unsafe { std::mem::transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: what was installed without SA_SIGINFO has this type.
            let handler = unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
            handler(signal);
        }
    }
}
