//! Ctrl-C ends a bench in good order: values are dropped, so processes end and huge pages go back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

static ASKED_TO_STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on the first signal asks to stop. A second one ends the process, and the kernel its children.
pub(crate) fn watch() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_default(signal, ASKED_TO_STOP.clone())?;
        flag::register(signal, ASKED_TO_STOP.clone())?;
    }
    Ok(())
}

/// An error if somebody asked to stop.
pub(crate) fn check() -> Result<()> {
    if ASKED_TO_STOP.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}

/// Sleeps, unless somebody asks to stop.
pub(crate) fn sleep(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        check()?;
        let rest = end.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(());
        }
        thread::sleep(rest.min(Duration::from_millis(100)));
    }
}
