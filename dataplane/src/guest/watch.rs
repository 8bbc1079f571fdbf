//! Watching for sockets: a thousand ports to which nobody listens yet wait without looking, until the kernel says that a
//! file has appeared.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// A file appears at the path, by any way that there is, or becomes accessible.
const APPEARS: WatchFlags = WatchFlags::CREATE.union(WatchFlags::MOVED_TO).union(WatchFlags::ATTRIB);

/// Somebody who waits.
#[derive(Debug)]
struct Waiter {
    thread: Thread,
    appeared: Arc<AtomicBool>,
}

/// Who waits for which file in which watched directory.
type Waiters = HashMap<(i32, OsString), Waiter>;

thread_local! {
    /// Set when the file that this thread waits for has appeared.
    static APPEARED: Arc<AtomicBool> = Arc::default();
}

/// The watch for all ports. One for all: an inotify instance is a scarce thing, 128 a user.
#[derive(Debug)]
pub struct Watch {
    /// None if the kernel gives none: then everybody looks by himself, more often.
    inotify: Option<OwnedFd>,
    waiters: Mutex<Waiters>,
}

impl Watch {
    /// Starts watching, on a thread of its own.
    pub fn start() -> io::Result<Arc<Self>> {
        let inotify = inotify::init(CreateFlags::CLOEXEC);
        if let Err(error) = &inotify {
            tracing::warn!("no inotify ({error}): sockets are looked for five times a second");
        }
        let watch = Arc::new(Self { inotify: inotify.ok(), waiters: Mutex::default() });
        let watcher = watch.clone();
        thread::Builder::new().name("sockets".to_owned()).spawn(move || watcher.tell())?;
        Ok(watch)
    }

    /// Has the calling thread's [`Watch::wait`] end when a file appears at `path`. `false` if it will not: there is no such
    /// directory, or no inotify. To be said again after each wait: the directory itself may be another by then.
    pub(super) fn expect(&self, path: &Path) -> bool {
        let (Some(inotify), Some(directory), Some(name)) = (&self.inotify, path.parent(), path.file_name()) else {
            return false;
        };
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(directory) = inotify::add_watch(inotify, directory, APPEARS | WatchFlags::ONLYDIR) else { return false };
        let appeared = APPEARED.with(Arc::clone);
        appeared.store(false, Ordering::Relaxed);
        waiters.insert((directory, name.to_owned()), Waiter { thread: thread::current(), appeared });
        true
    }

    /// Waits for `limit` at most; whether the file has appeared since [`Watch::expect`].
    pub(super) fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now() + limit;
        APPEARED.with(|appeared| {
            loop {
                let left = end.saturating_duration_since(Instant::now());
                if appeared.swap(false, Ordering::Acquire) {
                    return true;
                }
                if left.is_zero() {
                    return false;
                }
                thread::park_timeout(left);
            }
        })
    }

    /// Tells each who waits of what appears.
    fn tell(&self) {
        let Some(inotify) = &self.inotify else { return };
        let mut space = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(inotify, &mut space);
        loop {
            match events.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    let lost = event.events().intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::IGNORED);
                    let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(name) = name {
                        waiters.get(&(event.wd(), name)).into_iter().for_each(wake);
                    } else if lost {
                        waiters.values().for_each(wake);
                        if event.events().contains(ReadFlags::IGNORED) {
                            waiters.retain(|(directory, _), _| *directory != event.wd());
                        }
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}

fn wake(waiter: &Waiter) {
    waiter.appeared.store(true, Ordering::Release);
    waiter.thread.unpark();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_when_the_file_appears() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let watch = Watch::start().unwrap();
        assert!(watch.expect(&path));
        std::fs::write(directory.path().join("b"), "").unwrap();
        assert!(!watch.wait(Duration::from_millis(50)), "another file ends the wait");
        assert!(watch.expect(&path));
        let maker = thread::spawn({
            let path = path.clone();
            move || {
                thread::sleep(Duration::from_millis(30));
                std::fs::write(path, "").unwrap();
            }
        });
        let begun = Instant::now();
        assert!(watch.wait(Duration::from_secs(20)));
        assert!(begun.elapsed() < Duration::from_secs(10));
        maker.join().unwrap();
        // What appeared between is not missed.
        std::fs::remove_file(&path).unwrap();
        assert!(watch.expect(&path));
        std::fs::write(&path, "").unwrap();
        assert!(watch.wait(Duration::from_secs(20)));
        assert!(!watch.expect(&directory.path().join("none/a")), "a directory that is not there");
    }
}
