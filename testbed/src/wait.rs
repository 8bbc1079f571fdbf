//! Waiting for something to come true, with an end.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks. Peers poll their cores, so a test must not take one to watch them.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `look` again and again until it has an answer.
///
/// # Errors
/// When `timeout` passes without one; `what` is in the message: "gave up after 5s: {what}".
pub fn wait_for<T>(what: &str, timeout: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let end = Instant::now() + timeout;
    loop {
        if let Some(answer) = look() {
            return Ok(answer);
        }
        if Instant::now() >= end {
            bail!("gave up after {timeout:?}: {what}");
        }
        sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_as_soon_as_there_is_one() {
        let mut looks = 0;
        let answer = wait_for("third look", Duration::from_secs(5), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(answer.unwrap(), 3);
    }

    #[test]
    fn gives_up_and_says_on_what() {
        let error = wait_for::<()>("the moon", Duration::from_millis(30), || None).unwrap_err();
        assert!(error.to_string().contains("the moon"), "{error}");
    }
}
